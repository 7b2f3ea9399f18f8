"""The quick way through a chunk takes only what is whole and canonical, and leaves the rest as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.resp.pipeline import CRLF, SIZE_MAX, is_dense, take_commands


def encode(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)


def take(data: bytes) -> tuple[list[list[bytes]], bytes]:
    commands: list[list[bytes]] = []
    rest = take_commands(data.split(CRLF), commands)
    return commands, rest


SET, GET, PING = [b"SET", b"k", b"v"], [b"GET", b"k"], [b"PING"]


@pytest.mark.parametrize(
    "commands", [[], [SET], [GET], [PING], [SET] * 5, [GET] * 5, [SET, GET, SET, PING, GET, GET], [[b"a"] * 1024, SET]]
)
def test_whole_commands_leave_nothing(commands: list[list[bytes]]) -> None:
    assert take(b"".join(encode(*command) for command in commands)) == (commands, b"")


@pytest.mark.parametrize("first", [SET, GET, PING])
@pytest.mark.parametrize("second", [SET, GET, PING])
def test_a_half_command_is_left_however_it_is_cut(first: list[bytes], second: list[bytes]) -> None:
    start, half = encode(*first), encode(*second)
    for cut in range(len(half)):
        assert take(start + half[:cut]) == ([first], half[:cut])


@pytest.mark.parametrize(
    "odd",
    [
        encode(b"SET", b"k", b"\r\n"),
        encode(b"GET", b"\r\n"),
        encode(b"\r\n"),
        encode(b"SET", b"k", b"x" * (SIZE_MAX + 1)),
        encode(b"GET", b"x" * (SIZE_MAX + 1)),
        encode(b"x" * (SIZE_MAX + 1)),
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$+1\r\nv\r\n",
        b"*3\r\n$3\r\nSET\r\n$01\r\nk\r\n$1\r\nv\r\n",
        b"*2\r\n$3\r\nGET\r\n$2\r\nk\r\n",
        b"*2\r\n+GET\r\n$1\r\nk\r\n",
        b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"PING\r\n",
        b"\r\n",
        encode(*[b"a"] * 1025),
    ],
)
def test_what_is_odd_stops_it(odd: bytes) -> None:
    for before in ([], [SET], [GET], [PING], [SET, GET]):
        start = b"".join(encode(*command) for command in before)
        rest = odd + encode(*SET)
        assert take(start + rest) == (before, rest)


@given(st.lists(st.sampled_from([encode(*SET), encode(*GET), b"*2\r\n", b"*3\r\n", b"$1\r\n", b"$3\r\n", b"GET", b"x", b"\r\n", b"\n"])))
def test_what_is_taken_and_what_is_left_are_the_bytes_that_came(fragments: list[bytes]) -> None:
    data = b"".join(fragments)
    commands, rest = take(data)
    assert b"".join(encode(*command) for command in commands) + rest == data


def test_density_is_judged_by_the_first_kilobyte() -> None:
    assert is_dense(encode(b"SET", b"k", b"x" * 64) * 20, 0)
    assert not is_dense(encode(b"SET", b"k", b"x" * 2000) * 20, 0)
    assert is_dense(b"x" * 5000 + encode(b"GET", b"k") * 20, 5000)
