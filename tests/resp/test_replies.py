from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.resp.replies import is_one_reply
from respkv.resp.writer import bulk, encode

REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(REPLIES, st.sampled_from([2, 3]), st.integers(0, 10_000))
def test_what_the_writer_makes_is_one_reply_and_nothing_less_or_more(value: object, resp: int, cut: int) -> None:
    data = encode(value, resp)
    assert is_one_reply(data)
    assert not is_one_reply(data[: cut % len(data)])
    assert not is_one_reply(data + bulk(b"x"))


@pytest.mark.parametrize(
    "data", [b"+OK\r\n", b"-ERR no\r\n", b":-5\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"$-1\r\n", b"*-1\r\n", b"%1\r\n+a\r\n:1\r\n"]
)
def test_replies(data: bytes) -> None:
    assert is_one_reply(data)


MALFORMED = [b"", b"\r\n", b"OK\r\n", b"+OK", b":x\r\n", b":\r\n", b"$5\r\nabc\r\n", b"$x\r\n", b"?1\r\n", b"$3\r\nabcde"]
MALFORMED += [b"$99999999999999999999\r\n", b"*1000000000\r\n", b"*2\r\n:1\r\n", b"%1\r\n:1\r\n"]


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_no_reply(data: bytes) -> None:
    assert not is_one_reply(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert is_one_reply(data) in {True, False}
