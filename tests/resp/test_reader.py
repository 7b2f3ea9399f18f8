"""Requests: the hostile inputs of the protocol, with what Redis 7.0.15 says to each, and any cutting into chunks."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.resp.reader import RequestReader


def encode(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)


def read(data: bytes, **options: bool) -> tuple[list[list[bytes]], bytes | None]:
    """All commands in `data`, and the error reply, if any, that follows them."""
    reader = RequestReader(**options)
    commands = reader.feed(data)
    return commands, reader.error.reply() if reader.error else None


def protocol_error(text: str) -> bytes:
    return b"-ERR Protocol error: %b\r\n" % text.encode()


REFUSED = [
    *((b"*%b\r\n" % count, "invalid multibulk length") for count in (b"abc", b"", b"+1", b" 1", b"01", b"1.5", b"-0", b"1_0", b"1 ")),
    (b"*2147483648\r\n", "invalid multibulk length"),
    (b"*20000000000000000000\r\n", "invalid multibulk length"),
    (b"*1048577\r\n", "invalid multibulk length"),  # our own limit; Redis takes up to 2147483647
    (b"*" + b"1" * 65600, "too big mbulk count string"),
    (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*1\r\n*1\r\n", "expected '$', got '*'"),
    (b"*1\r\n\r\n", "expected '$', got ' '"),
    *((b"*1\r\n$%b\r\n" % size, "invalid bulk length") for size in (b"-1", b"abc", b"", b"+4", b"04", b"1_0", b"99999999999999999999")),
    (b"*1\r\n$536870913\r\n", "invalid bulk length"),
    (b"*2\r\n$3\r\nGET\r\n$536870913\r\n", "invalid bulk length"),
    (b"*1\r\n$" + b"1" * 65600, "too big bulk count string"),
    (b"A" * 65537, "too big inline request"),
    (b"PING\0\r\n" + b"A" * 65537, "too big inline request"),
    (b'SET k "abc\r\n', "unbalanced quotes in request"),
    (b'"a"b\r\n', "unbalanced quotes in request"),
    # Redis overlooks these three; see the head of reader.py.
    (b"*1\r\n$4\r\nPINGXX", "invalid bulk length"),
    (b"*1\r\n$2\r\nPING\r\n", "invalid bulk length"),
    (b"*1\rX$4\r\nPING\r\n", "invalid multibulk length"),
    (b"*1\0\r\n", "invalid multibulk length"),
]


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize(("data", "text"), REFUSED)
def test_refused_as_redis_words_it_after_what_came_before(data: bytes, text: str, *, accelerate: bool) -> None:
    ping = encode(b"PING")
    assert read(data, accelerate=accelerate) == ([], protocol_error(text))
    assert read(ping * 2 + data, accelerate=accelerate) == ([[b"PING"], [b"PING"]], protocol_error(text))


def test_nothing_is_read_after_an_error() -> None:
    reader = RequestReader()
    assert reader.feed(b"PING\r\n*x\r\nPING\r\n") == [[b"PING"]]
    error = reader.error
    assert error is not None
    reader.authenticated = True
    assert reader.feed(b"PING\r\n") == []
    assert reader.feed(encode(b"PING")) == []
    assert reader.error is error
    assert reader.pending_bytes == 0


TAKEN: list[tuple[bytes, list[list[bytes]]]] = [
    (b"PING\r\n", [[b"PING"]]),
    (b"PING\n", [[b"PING"]]),
    (b"\r\n\n  \r\n*0\r\n*-1\r\n*-10\r\n*-99999999999999\r\nPING\r\n", [[b"PING"]]),
    (b"A" * 70000 + b"\r\n", [[b"A" * 70000]]),
    (b"$4\r\nPING\r\n", [[b"$4"], [b"PING"]]),
    (b":1\r\n(123\r\n%1\r\n", [[b":1"], [b"(123"], [b"%1"]]),
    (b"*1\r\n$0\r\n\r\n", [[b""]]),
    (b'""\r\n', [[b""]]),
    (b"SSH-2.0-x\r\n", [[b"SSH-2.0-x"]]),
    (b"GET k\r\n" + encode(b"GET", b"k") + b"GET k\r\n", [[b"GET", b"k"]] * 3),
    (encode(b"SET", b"\r\n", b"*1\r\n$4\r\nPING\r\n"), [[b"SET", b"\r\n", b"*1\r\n$4\r\nPING\r\n"]]),
    (encode(*[b"x"] * 5000), [[b"x"] * 5000]),
]


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize(("data", "commands"), TAKEN)
def test_taken(data: bytes, commands: list[list[bytes]], *, accelerate: bool) -> None:
    assert read(data, accelerate=accelerate) == (commands, None)


WAITING = [
    b"*1048576\r\n",
    b"*1\r\n$536870912\r\n",
    b"*1\n$4\nPING\n",
    b"A" * 65536,
    b"*" + b"1" * 65535,
    b"\x16\x03\x01\0\n\n\r\n",  # the start of a TLS handshake
    b"PING\r",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r",
    b"*2\r\n$3\r\nGET\r\n$1\r\n",
]


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("data", WAITING)
def test_waits_for_more_and_counts_what_it_holds(data: bytes, *, accelerate: bool) -> None:
    reader = RequestReader(accelerate=accelerate)
    assert reader.feed(encode(b"PING") + data) == [[b"PING"]]
    assert reader.error is None
    assert reader.pending_bytes == len(data)


class TestStranger:
    """A connection that has not given the password may send little."""

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"*11\r\n", "unauthenticated multibulk length"),
            (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
            (b"*99999999999\r\n", "invalid multibulk length"),
        ],
    )
    def test_small_limits(self, data: bytes, text: str) -> None:
        assert read(data, authenticated=False) == ([], protocol_error(text))
        assert read(encode(*[b"x"] * 10) + encode(b"x" * 16384), authenticated=False) == ([[b"x"] * 10, [b"x" * 16384]], None)

    @pytest.mark.parametrize("more", [encode(*[b"x"] * 11), encode(b"ECHO", b"x" * 16385)])
    def test_what_follows_auth_in_one_packet_waits_for_its_outcome(self, more: bytes) -> None:
        for allowed in (True, False):
            reader = RequestReader(authenticated=False)
            found = reader.feed(encode(b"AUTH", b"secret") + more + encode(b"PING"))
            assert (found, reader.awaits_authentication, reader.error) == ([[b"AUTH", b"secret"]], True, None)
            reader.authenticated = allowed
            commands = reader.feed(b"")
            assert not reader.awaits_authentication
            if allowed:
                assert len(commands) == 2
                assert encode(*commands[0]) == more
                assert reader.feed(encode(b"GET", b"k")) == [[b"GET", b"k"]]
            else:
                assert commands == []
                assert reader.error is not None

    def test_more_bytes_may_come_before_the_outcome(self) -> None:
        reader = RequestReader(authenticated=False)
        big = encode(*[b"x"] * 11)
        assert reader.feed(encode(b"AUTH", b"secret") + big[:20]) == [[b"AUTH", b"secret"]]
        reader.authenticated = True
        assert reader.feed(big[20:]) == [[b"x"] * 11]


class TestLimits:
    def test_they_may_change(self) -> None:
        reader = RequestReader()
        reader.bulk_bytes_max = 5000
        reader.arguments_max = 2000
        reader.inline_bytes_max = 10
        assert reader.feed(encode(b"x" * 5000) + encode(*[b"x"] * 2000)) == [[b"x" * 5000], [b"x"] * 2000]
        assert reader.feed(b"12345678901") == []
        assert reader.error is not None
        assert str(reader.error) == "Protocol error: too big inline request"
        for data, text in ((b"*2001\r\n", "invalid multibulk length"), (b"*1\r\n$5001\r\n", "invalid bulk length")):
            reader = RequestReader(bulk_bytes_max=5000, arguments_max=2000)
            reader.feed(data)
            assert str(reader.error) == f"Protocol error: {text}"

    def test_a_line_that_drips_in_is_bounded_too(self) -> None:
        reader = RequestReader(inline_bytes_max=1000)
        for _ in range(1000):
            assert reader.feed(b"A") == []
        assert reader.pending_bytes == 1000
        assert reader.error is None
        reader.feed(b"A")
        assert reader.error is not None

    def test_a_header_reserves_nothing(self) -> None:
        tracemalloc.start()
        try:
            reader = RequestReader()
            reader.feed(b"*1048576\r\n$536870912\r\n")
            reader.feed(b"x" * 100)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    def test_a_value_that_drips_in_takes_little_more_than_its_size(self) -> None:
        size = 1_000_000
        reader = RequestReader()
        header = b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % size
        reader.feed(header)
        tracemalloc.start()
        try:
            for _ in range(size // 10):
                reader.feed(b"0123456789")
            assert tracemalloc.get_traced_memory()[1] < 2.5 * size
        finally:
            tracemalloc.stop()
        assert reader.pending_bytes == len(header) + size
        assert reader.feed(b"\r") == []
        assert reader.feed(b"\n") == [[b"ECHO", b"0123456789" * (size // 10)]]
        assert reader.pending_bytes == 0


words = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"\r\n", b"\r", b"\n", b"$3\r\nfoo\r\n", b"*1\r\n", b"\r\n*1\r\n$4\r\nPING\r\n", b"-1", b"x" * 100, b"x" * 5000]),
)
commands_of_words = st.lists(st.lists(words, min_size=1, max_size=5), max_size=20)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(commands_of_words, st.lists(st.integers(min_value=0, max_value=2**20)), st.booleans())
def test_any_cutting_gives_the_same_commands(commands: list[list[bytes]], cuts: list[int], accelerate: bool) -> None:  # noqa: FBT001
    reader = RequestReader(accelerate=accelerate)
    found = []
    for chunk in chunks(b"".join(encode(*command) for command in commands), cuts):
        found += reader.feed(chunk)
    assert found == commands
    assert reader.error is None
    assert reader.pending_bytes == 0


@pytest.mark.parametrize("command", [[b"SET", b"k", b"v"], [b"GET", b"k"], [b"PING"]])
def test_a_chunk_of_one_command_and_a_bit(command: list[bytes]) -> None:
    whole = encode(*command)
    for more in range(1, len(whole)):
        reader = RequestReader()
        assert reader.feed(whole + whole[:more]) == [command]
        assert reader.pending_bytes == more
        assert reader.feed(whole[more:]) == [command]


@pytest.mark.parametrize("command", [[b"SET", b"k", b"v"], [b"GET", b"k"]])
def test_every_length_of_a_single_command_counts(command: list[bytes]) -> None:
    whole = encode(*command)
    for place in (place for place in range(1, len(whole)) if whole[place - 1 : place] == b"$"):
        reader = RequestReader()
        assert reader.feed(whole[:place] + b"9" + whole[place + 1 :]) == []
    assert RequestReader().feed(b"*4" + whole[2:]) == []


def test_what_is_behind_a_value_is_checked_however_it_arrives() -> None:
    data = b"*1\r\n$4\r\nPINGXX"
    for cut in range(1, len(data)):
        reader = RequestReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == []
        assert str(reader.error) == "Protocol error: invalid bulk length"


@pytest.mark.parametrize("accelerate", [True, False])
def test_byte_by_byte(*, accelerate: bool) -> None:
    sent = [[b"SET", b"k", b"\r\n\r\n"], [b"GET", b"k"], [b"", b"x" * 300]]
    reader = RequestReader(accelerate=accelerate)
    found = []
    for byte in b"PING a\r\n*0\r\n" + b"".join(encode(*command) for command in sent):
        found += reader.feed(bytes([byte]))
    assert found == [[b"PING", b"a"], *sent]


fragments = st.one_of(
    st.binary(max_size=10),
    st.sampled_from(
        [b"*", b"$", b"\r\n", b"\n", b"\r", b"*1\r\n", b"*2\r\n", b"*3\r\n", b"$0\r\n", b"$1\r\n", b"$3\r\n", b"GET", b'"', b"\0"]
    ),
    st.sampled_from(
        [b"+OK\r\n", b":1\r\n", b"|1\r\n", b"%1\r\n", b"~1\r\n", b">1\r\n", b"=7\r\ntxt:abc\r\n", b"_\r\n", b"#t\r\n", b",1\r\n"]
    ),
    st.builds(encode, words),
    st.builds(encode, words, words),
    st.builds(encode, words, words, words),
)


@given(st.lists(fragments, max_size=30).map(b"".join), st.lists(st.integers(min_value=0, max_value=2**20), max_size=4), st.booleans())
def test_the_quick_way_and_the_other_agree_on_any_bytes(data: bytes, cuts: list[int], authenticated: bool) -> None:  # noqa: FBT001
    """The same bytes, to one reader whole and to one in pieces, with and without the pipeline's way."""
    outcomes = []
    for accelerate in (True, False):
        for pieces in ([data], chunks(data, cuts)):
            reader = RequestReader(accelerate=accelerate, authenticated=authenticated)
            found = []
            for piece in pieces:
                found += reader.feed(piece)
                while reader.awaits_authentication:
                    found += reader.feed(b"")
            assert all(command and set(map(type, command)) == {bytes} for command in found)
            assert reader.pending_bytes <= len(data)
            outcomes.append((found, str(reader.error), reader.pending_bytes))
    assert outcomes[1:] == outcomes[:-1]
