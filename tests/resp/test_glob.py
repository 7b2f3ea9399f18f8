"""Patterns, beside a plain recursive reading of what Redis's `stringmatchlen` does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from respkv.errors import ClientError
from respkv.resp.glob import PATTERN_BYTES_MAX, matches


def class_allows(pattern: bytes, byte: int) -> tuple[bool, bytes]:
    """Whether the class that `pattern` begins with (behind its bracket) allows the byte; and what follows the class."""
    inverted = pattern.startswith(b"^")
    pattern = pattern.removeprefix(b"^")
    found = False
    while pattern and pattern[0] != ord("]"):
        if pattern[0] == ord("\\") and len(pattern) >= 2:
            found |= pattern[1] == byte
            pattern = pattern[2:]
        elif len(pattern) >= 3 and pattern[1] == ord("-"):
            found |= min(pattern[0], pattern[2]) <= byte <= max(pattern[0], pattern[2])
            pattern = pattern[3:]
        else:
            found |= pattern[0] == byte
            pattern = pattern[1:]
    return found != inverted, pattern[1:]


def reference(pattern: bytes, text: bytes) -> bool:
    """By the book, with all its branches: exponential."""
    if not pattern:
        return not text
    if pattern[0] == ord("*"):
        return any(reference(pattern[1:], text[start:]) for start in range(len(text) + 1))
    if not text:
        return False
    if pattern[0] == ord("?"):
        return reference(pattern[1:], text[1:])
    if pattern[0] == ord("["):
        allowed, behind = class_allows(pattern[1:], text[0])
        return allowed and reference(behind, text[1:])
    if pattern[0] == ord("\\") and len(pattern) >= 2:
        pattern = pattern[1:]
    return pattern[0] == text[0] and reference(pattern[1:], text[1:])


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (b"*", b"anything", True),
        (b"*", b"", True),
        (b"**", b"", False),
        (b"", b"", True),
        (b"", b"a", False),
        (b"user:*", b"user:1", True),
        (b"user:*", b"user:", True),
        (b"user:*", b"users:1", False),
        (b"h?llo", b"hello", True),
        (b"h?llo", b"hllo", False),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-b]llo", b"hcllo", False),
        (b"[b-a]", b"a", True),
        (b"[]", b"a", False),
        (b"[^]", b"a", True),
        (b"[abc", b"c", True),
        (b"[a-", b"-", True),
        (b"[\\]]", b"]", True),
        (b"\\*", b"*", True),
        (b"\\*", b"a", False),
        (b"a\\", b"a\\", True),
        (b"*ab*ab", b"xabab", True),
        (b"*ab*ab", b"xab", False),
        (b"a*a", b"a", False),
        (b"*a*a*", b"a", False),
        (b"*a*[a]*", b"a", False),
        (b"*a*a*", b"aa", True),
        (b"*\xff*", b"\0\xff\0", True),
        (b"key.+(x)|$", b"key.+(x)|$", True),
        (b"h*", b"HELLO", False),
    ],
)
def test_pattern(pattern: bytes, text: bytes, *, expected: bool) -> None:
    assert matches(pattern, text) is expected


def test_case_may_be_ignored() -> None:
    assert matches(b"MAXmem*", b"maxMEMory", ignore_case=True)
    assert matches(b"[A-M]?x*", b"MAXmemory", ignore_case=True)
    assert not matches(b"[^M]*", b"maxmemory", ignore_case=True)
    assert not matches(b"MAXmem*", b"maxMEMory")


@given(st.text(alphabet="**?[]^-\\abc", max_size=10).map(str.encode), st.text(alphabet="abc-]^\\", min_size=1, max_size=7).map(str.encode))
@example(b"*[ab]*[bc]", b"cacb")
def test_equal_to_the_reference(pattern: bytes, text: bytes) -> None:
    assert matches(pattern, text) is reference(pattern, text)


def test_hostile_patterns_end() -> None:
    assert not matches(b"*a" * 2000 + b"*b", b"a" * 10_000)
    assert not matches(b"*[ab]" * 800 + b"*c", b"a" * 10_000)
    assert not matches(b"*" + b"[ab]" * 1000 + b"c*", b"a" * 10_000)
    assert matches(b"[^a]" * 1000 + b"*", b"b" * 1001)
    assert not matches(b"*" * PATTERN_BYTES_MAX, b"")
    with pytest.raises(ClientError, match="longer than"):
        matches(b"a" * (PATTERN_BYTES_MAX + 1), b"a")
