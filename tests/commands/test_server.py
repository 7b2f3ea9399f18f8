from __future__ import annotations

import pytest

from respkv.commands.slowlog import shown
from respkv.commands.table import COMMANDS
from tests.commands.node_alone import EPOCH_MS, World


def test_time_role_and_lastsave() -> None:
    world = World(1)
    client = world.client()
    seconds, microseconds = client("TIME")
    assert int(seconds) * 1000 + int(microseconds) // 1000 == world.wall_ms
    assert client("ROLE") == [b"master", 0, []]
    assert client("LASTSAVE") == EPOCH_MS // 1000 + 1000
    assert client("MODULE", "LIST") == []
    assert str(client("MODULE", "LOAD", "x")) == "ERR respkv loads no modules"
    assert str(client("DEBUG", "SLEEP", "1")).startswith("ERR DEBUG command not allowed: respkv has none.")


@pytest.mark.parametrize("line", ["", "NOSAVE", "save now force"])
def test_shutdown_stops_the_node_without_a_reply(line: str) -> None:
    world = World(1)
    client = world.client()
    assert client.raw("SHUTDOWN", *line.split()) == b""
    assert world.processes[0].stopped == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ABORT", "ERR No shutdown in progress."),
        ("FOO", "ERR syntax error"),
        ("SAVE NOSAVE", "ERR syntax error"),
        ("ABORT NOW", "ERR syntax error"),
    ],
)
def test_shutdown_refuses_nonsense(line: str, text: str) -> None:
    world = World(1)
    assert str(world.client()("SHUTDOWN", *line.split())) == text
    assert world.processes[0].stopped is None


def test_slow_commands_are_kept_cut_and_without_secrets() -> None:
    world = World(1, slowlog_log_slower_than="0", slowlog_max_len="3")
    client = world.client()
    client("CLIENT", "SETNAME", "me")
    client("CONFIG", "SET", "requirepass", "")
    client("MSET", *(word for number in range(20) for word in (f"k{number}", "x" * 200)))
    assert client("SLOWLOG", "LEN") == 2
    newest, older = client("SLOWLOG", "GET", "-1")
    number, unix_s, microseconds, words, address, name = newest
    assert (number, unix_s, microseconds, address, name) == (1, world.wall_ms // 1000, 0, b"127.0.0.1:50000", b"me")
    assert len(words) == 32
    assert words[2] == b"x" * 128 + b"... (72 more bytes)"
    assert words[-1] == b"... (10 more arguments)"
    assert older[3] == [b"CONFIG", b"SET", b"requirepass", b"(redacted)"]
    assert len(client("SLOWLOG", "GET", "1")) == 1
    assert client("SLOWLOG", "GET", "0") == []
    for _ in range(5):
        client("STRLEN", "k1")
    assert client("SLOWLOG", "LEN") == 3
    assert client("SLOWLOG", "RESET") == b"OK"
    assert client("SLOWLOG", "GET") == []
    assert str(client("SLOWLOG", "GET", "-2")) == "ERR count should be greater than or equal to -1"
    assert str(client("SLOWLOG", "GET", "1", "2")) == "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."


def test_short_lines_are_shown_whole() -> None:
    assert shown([b"config", b"set", b"timeout", b"1", b"nosuch", b"secret?"])[3:] == [b"1", b"nosuch", b"(redacted)"]
    assert shown([b"x"] * 32) == [b"x"] * 32
    assert shown([b"x"] * 33)[-1] == b"... (2 more arguments)"


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        ("12", b"int"),
        ("-9223372036854775808", b"int"),
        ("9223372036854775808", b"embstr"),
        ("012", b"embstr"),
        ("x" * 44, b"embstr"),
        ("x" * 45, b"raw"),
    ],
)
def test_object_encoding(value: str, encoding: bytes) -> None:
    client = World(1).client()
    client("SET", "a", value)
    assert client("OBJECT", "ENCODING", "a") == encoding


def test_object_and_memory() -> None:
    world = World(3)
    client = world.client()
    client("SET", "a", "x" * 100)
    world.advance(7.0)
    assert client("OBJECT", "IDLETIME", "a") == 7
    assert client("OBJECT", "REFCOUNT", "a") == 1
    assert str(client("OBJECT", "FREQ", "a")).startswith("ERR An LFU maxmemory policy is not selected")
    assert [client("OBJECT", name, "nosuch") for name in ("ENCODING", "FREQ", "IDLETIME", "REFCOUNT")] == [None] * 4
    assert 100 < client("MEMORY", "USAGE", "a") < 400
    assert client("MEMORY", "USAGE", "a", "SAMPLES", "0") == client("MEMORY", "USAGE", "a")
    assert client("MEMORY", "USAGE", "nosuch") is None
    assert str(client("MEMORY", "USAGE", "a", "SAMPLES", "-1")) == "ERR syntax error"
    assert str(client("MEMORY", "USAGE", "a", "FOO", "1")) == "ERR syntax error"
    assert client("MEMORY", "PURGE") == b"OK"
    assert client("MEMORY", "DOCTOR").startswith(b"Hi Sam")


@pytest.mark.parametrize("maxmemory", ["0", "1gb"])
def test_what_all_keys_take_is_what_memory_usage_tells_of_each(maxmemory: str) -> None:
    world = World(1, maxmemory=maxmemory)
    client = world.client()
    for number in range(10, 60):
        client("SET", f"key:{number}", "x" * 100)
    world.advance(2.0)
    usage = client("MEMORY", "USAGE", "key:10")
    flat = client("MEMORY", "STATS")
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    assert told[b"keys.count"] == 50
    assert told[b"keys.bytes-per-key"] == usage
    assert told[b"dataset.bytes"] == 50 * usage
    assert told[b"overhead.total"] == max(told[b"total.allocated"] - told[b"dataset.bytes"], 0)
    assert {b"dataset.percentage", b"peak.percentage", b"fragmentation", b"fragmentation.bytes"} <= set(told)


def test_each_container_explains_itself() -> None:
    client = World(1).client()
    for entry in COMMANDS.values():
        if entry.subcommands:
            lines = client(entry.name, "HELP")
            assert lines[0] == f"{entry.name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".encode()
            assert str(client(entry.name, "NOSUCH")) == f"ERR unknown subcommand 'NOSUCH'. Try {entry.name} HELP."
