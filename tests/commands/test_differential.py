"""The same commands to a node and to redis-server: the same bytes come back, in both protocols, from one node and from a cluster.

Known differences, kept out of the generated commands: PTTL (time passes between the two servers), WATCH,
what is said of the server itself (HELLO, CLIENT LIST), and floats in C's hexadecimal notation.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respkv.commands.table import find
from tests.commands.harness import World, split_replies
from tests.commands.stock import StockConnection, differences, stock_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.stock("redis-server")

Command = list[bytes]

KEYS = [b"a", b"b", b"{a}c", b""]
NUMBERS = [b"0", b"1", b"-1", b"7", b"-3", b"100", b"10000", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808"]
ODD_NUMBERS = [b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1_0", b"1.5", b"abc", b"1e3", "٣".encode(), b"12345678901234567890123"]
FLOATS = [b"0.1", b"-2.5", b"1e3", b"3.0e-2", b"1234567890.1", b"1e300", b"inf", b"-inf", b"nan", b".5", b"5.", b"1e5000", b"-0.0"]
VALUES = [b"x", b"hello", b"", b"\r\n", b"\x00\xff", b"A" * 40]
# Either long gone or far away: nothing may expire while the two servers are compared.
DELAYS = [b"100", b"3000", b"0", b"-1", b"9223372036854775", b"9223372036854775807", b"-9223372036854775808"]
DATES = [b"1", b"4102444800", b"4102444800000", b"0", b"-5", b"9223372036854775807"]
WORDS = [b"NX", b"xx", b"GET", b"EX", b"px", b"EXAT", b"PXAT", b"KEEPTTL", b"persist", b"GT", b"lt", b"FOO", b"100", b"1"]

keys = st.sampled_from(KEYS)
integers = st.sampled_from(NUMBERS + ODD_NUMBERS) | st.integers(-20, 20).map(lambda number: b"%d" % number)
floats = st.sampled_from(FLOATS + NUMBERS[:6]) | st.floats(-1e6, 1e6).map(lambda number: repr(number).encode()) | integers
values = st.sampled_from(VALUES + NUMBERS + ODD_NUMBERS + FLOATS) | st.binary(max_size=12) | integers
delays = st.sampled_from(DELAYS + ODD_NUMBERS)
# In milliseconds the longest of them is no error, but a moment that the clock of each server tells.
short_delays = delays.filter(lambda text: text != b"9223372036854775")
dates = st.sampled_from(DATES + ODD_NUMBERS)
words = st.sampled_from(WORDS)
conditions = st.lists(st.sampled_from([b"NX", b"xx", b"Gt", b"LT", b"oops"]), max_size=2)
# GT and LT alone compare two moments, and two that were told from now may be a millisecond apart or not.
conditions_from_now = conditions.filter(
    lambda drawn: {word.upper() for word in drawn} not in ({b"GT"}, {b"LT"}, {b"XX", b"GT"}, {b"XX", b"LT"})
)
set_options = st.lists(
    st.one_of(
        st.sampled_from([b"NX", b"xx", b"get", b"KEEPTTL"]).map(lambda word: [word]),
        st.tuples(st.just(b"EX"), delays).map(list),
        st.tuples(st.just(b"px"), short_delays).map(list),
        st.tuples(st.sampled_from([b"EXAT", b"pxat"]), dates).map(list),
        words.map(lambda word: [word]),
    ),
    max_size=3,
).map(lambda groups: [word for group in groups for word in group])
getex_options: st.SearchStrategy[list[bytes]] = st.one_of(
    st.just([]),
    st.just([b"persist"]),
    st.tuples(st.just(b"EX"), delays).map(list),
    st.tuples(st.just(b"px"), short_delays).map(list),
    st.tuples(st.sampled_from([b"EXAT", b"pxat"]), dates).map(list),
    st.lists(words, max_size=3),
)


def form(name: bytes, *parts: st.SearchStrategy[bytes] | st.SearchStrategy[list[bytes]]) -> st.SearchStrategy[Command]:
    """Commands of a name whose arguments, or lists of them, come from strategies."""

    def join(drawn: tuple[bytes | list[bytes], ...]) -> Command:
        return [name] + [word for part in drawn for word in ([part] if isinstance(part, bytes) else part)]

    return st.tuples(*parts).map(join)


key_lists = st.lists(keys, min_size=1, max_size=4)
pair_lists = st.lists(st.tuples(keys, values), min_size=1, max_size=3).map(lambda pairs: [word for pair in pairs for word in pair])
FORMS = [
    *[form(name, keys) for name in (b"GET", b"get", b"GETDEL", b"STRLEN", b"INCR", b"DECR", b"TYPE", b"TTL", b"EXPIRETIME", b"PERSIST")],
    *[form(name, keys, values) for name in (b"SET", b"SETNX", b"GETSET", b"APPEND")],
    form(b"SET", keys, values, set_options),
    form(b"GETEX", keys, getex_options),
    *[form(name, key_lists) for name in (b"DEL", b"UNLINK", b"EXISTS", b"TOUCH", b"MGET")],
    *[form(name, pair_lists) for name in (b"MSET", b"MSETNX")],
    form(b"SETEX", keys, delays, values),
    form(b"PSETEX", keys, st.sampled_from([b"100000", b"0", b"-1", b"x", b"9223372036854775807"]), values),
    *[form(name, keys, integers, integers) for name in (b"GETRANGE", b"SUBSTR")],
    form(b"SETRANGE", keys, st.sampled_from([b"0", b"3", b"20", b"-1", b"x", b"536870912", b"9223372036854775807"]), values),
    *[form(name, keys, integers) for name in (b"INCRBY", b"DECRBY")],
    form(b"INCRBYFLOAT", keys, floats),
    form(b"EXPIRE", keys, delays, conditions_from_now),
    form(b"PEXPIRE", keys, st.sampled_from([b"100000", b"0", b"-1", b"x", b"9223372036854775807"]), conditions_from_now),
    *[form(name, keys, dates, conditions) for name in (b"EXPIREAT", b"PEXPIREAT")],
    form(b"PEXPIRETIME", keys),
    *[form(name) for name in (b"MULTI", b"EXEC", b"DISCARD", b"PING")],
    form(b"ECHO", values),
    form(b"PING", values),
]
NAMES = [
    b"GET", b"SET", b"GETEX", b"MGET", b"MSET", b"MSETNX", b"SETEX", b"PSETEX", b"SETRANGE", b"GETRANGE", b"INCRBY", b"APPEND",
    b"DEL", b"EXISTS", b"EXPIRE", b"PEXPIREAT", b"TTL", b"PING", b"ECHO", b"MULTI", b"EXEC", b"nosuch", b"", b"SELECT", b"STRLEN",
    b"CLIENT",
]  # fmt: skip
wild = st.tuples(st.sampled_from(NAMES), st.lists(keys | words | integers, max_size=5)).map(lambda drawn: [drawn[0], *drawn[1]])
commands = st.one_of(*FORMS, *FORMS, wild)
packets = st.lists(st.lists(commands, min_size=1, max_size=6), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Set to what a node has here: it is part of an error's condition.
    with stock_server(tmp_path_factory.mktemp("redis"), "--proto-max-bulk-len", "64mb") as path:
        yield path


@pytest.fixture(scope="module")
def cluster_stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock_server(tmp_path_factory.mktemp("redis"), "--cluster-enabled", "yes") as path, StockConnection(path) as client:
        client.ask("CLUSTER ADDSLOTSRANGE 0 16383")
        yield path


@pytest.fixture(scope="module", params=[1, 3, 5])
def world(request: pytest.FixtureRequest) -> World:
    # The clocks are set all the time, to those of redis-server.
    return World(request.param, epoch_ms=time.time_ns() // 1_000_000, max_clock_skew="2147483647")


_examples = itertools.count()


def with_prefix(command: Command, prefix: bytes) -> Command:
    """The same command on keys that no other example touches."""
    entry = find(command[0])
    if entry is None or not entry.keys.first:
        return command
    stop = len(command) if entry.keys.last < 0 else entry.keys.last + 1
    places = range(entry.keys.first, stop, entry.keys.step)
    return [prefix + word if place in places else word for place, word in enumerate(command)]


def is_comparable(command: Command) -> bool:
    """Whether the reply does not depend on the moment, or on which server it is."""
    return command[0].upper() not in {b"CLIENT", b"SELECT"} or len(command) == 1


@pytest.mark.parametrize("nodes", [1, 3])
@given(packets=packets, coolings=st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_keys_that_are_not_in_memory_are_no_different(stock: Path, nodes: int, packets: list[list[Command]], coolings: list[bool]) -> None:
    prefix = b"%d:" % next(_examples)
    world = World(nodes, epoch_ms=time.time_ns() // 1_000_000, maxmemory="1gb")
    ours = world.connect()
    with StockConnection(stock) as theirs:
        for packet, is_cooled in zip(packets, coolings, strict=False):
            if is_cooled:
                world.cool()
            world.set_wall_clock(time.time_ns() // 1_000_000)
            sent = [with_prefix(command, prefix) for command in packet if is_comparable(command)]
            assert differences(sent, ours.ask(*sent), theirs.ask(*sent)) == []


@given(packets=packets, protocol=st.sampled_from([2, 3]), index=st.integers(0, 4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_sequence_is_answered_as_redis_does(stock: Path, world: World, packets: list[list[Command]], protocol: int, index: int) -> None:
    prefix = b"%d:" % next(_examples)
    ours = world.connect(index % len(world.nodes))
    with StockConnection(stock) as theirs:
        ours.ask(f"HELLO {protocol}")
        theirs.ask(f"HELLO {protocol}")
        for packet in packets:
            world.set_wall_clock(time.time_ns() // 1_000_000)
            sent = [with_prefix(command, prefix) for command in packet if is_comparable(command)]
            assert differences(sent, ours.ask(*sent), theirs.ask(*sent)) == []


LINES = [
    "COMMAND INFO nosuch",
    "COMMAND GETKEYSANDFLAGS set a b",
    "COMMAND GETKEYSANDFLAGS set a b NX get",
    "COMMAND GETKEYSANDFLAGS mset a 1 b 2",
    "CONFIG SET maxmemory 1 timeout",
    "CONFIG SET maxmemory",
    "WAIT 0 abc",
    "WAIT abc 0",
    "WAIT 0 -1",
    "WAIT 0 9223372036854775808",
    "SLOWLOG GET 1 2",
    "SLOWLOG get x",
    "SCAN -1",
    "SCAN +0",
    "SCAN -",
    "SCAN 18446744073709551616",
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", LINES)
def test_what_is_said_of_the_server_and_of_its_arguments_is_what_redis_says(stock: Path, line: str, protocol: int) -> None:
    ours = World(1).connect()
    with StockConnection(stock) as theirs:
        told = [split_replies(each.ask(f"HELLO {protocol}", "FLUSHALL", line)) for each in (ours, theirs)]
    assert told[0][1:] == told[1][1:]


def kinds(reply: bytes) -> list[str]:
    """The types that a reply is made of, in order: what a client's parser makes of it."""
    return [line[:1] for line in reply.decode().split("\r\n") if line[:1] in {*"*~%>$+-:,_#=("}]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", ["COMMAND INFO get ping", "COMMAND INFO mget dbsize config|get", "CLUSTER SLOTS", "CLUSTER BUMPEPOCH"])
def test_what_is_said_of_commands_and_slots_has_the_types_that_redis_gives_it(cluster_stock: Path, line: str, protocol: int) -> None:
    ours = World(1, scan_scope="primary").connect()
    with StockConnection(cluster_stock) as theirs:
        told = [split_replies(each.ask(f"HELLO {protocol}", line)) for each in (ours, theirs)]
    assert kinds(told[0][1]) == kinds(told[1][1])
