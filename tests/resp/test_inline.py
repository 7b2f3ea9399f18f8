"""Words and quotes on a line. The expectations are redis-server 7.0.15's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.resp.inline import split_arguments


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t\v\f\r", []),
        (b"  set  k\tv ", [b"set", b"k", b"v"]),
        (rb'"a\x41\n\r\t\b\a\q\""', [b'aA\n\r\t\b\aq"']),
        (rb'"\xZZ\x4"', [b"xZZx4"]),
        (rb"'b\'c\n'", [rb"b'c\n"]),
        (rb"a\n \x41", [rb"a\n", rb"\x41"]),
        (b"x'y' z\"w\"", [b"xy", b"zw"]),
        (b"'' \"\" a", [b"", b"", b"a"]),
        # Skipped between words, but no end of a word.
        (b"a\vb \v c\f", [b"a\vb", b"c\f"]),
        (b'"a"\vb', [b"a", b"b"]),
        (b"'a", None),
        (b'"a', None),
        (b'"a\\', None),
        (b'"a"b', None),
        (b"'a'b", None),
        (b"a\"b\"'c'", None),
    ],
)
def test_words(line: bytes, words: list[bytes] | None) -> None:
    assert split_arguments(line) == words


@given(st.lists(st.binary()))
def test_what_is_quoted_comes_back(words: list[bytes]) -> None:
    quoted = [b'"%b"' % b"".join(b"\\x%02x" % byte for byte in word) for word in words]
    assert split_arguments(b" ".join(quoted)) == words
