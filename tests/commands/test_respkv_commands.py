from __future__ import annotations

from typing import Any

import msgspec
import pytest

from respkv.cli.key import Whereabouts
from respkv.cli.status import Status
from tests.commands.node_alone import Caller, World


def pairs(flat: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def whereabouts(client: Caller, key: str) -> Whereabouts:
    return msgspec.json.decode(client("RESPKV", "KEY", key), type=Whereabouts)


def test_status_is_what_the_command_line_reads() -> None:
    world = World(5)
    client = world.client(2)
    for number in range(100):
        client("SET", f"key:{number}", "value")
    world.advance(3.0)
    status = msgspec.json.decode(client("RESPKV", "STATUS"), type=Status)
    assert (status.cluster.n, status.cluster.r, status.cluster.w, status.cluster.agreed) == (3, 2, 2, "5/5")
    assert [node.port for node in status.nodes] == [7001, 7002, 7003, 7004, 7005]
    assert {node.state for node in status.nodes} == {"up"}
    assert sum(node.owns_ratio or 0 for node in status.nodes) == pytest.approx(1.0)
    assert sum(node.keys or 0 for node in status.nodes) == 300
    assert all(10 * (node.keys or 0) < (node.bytes or 0) < 20 * (node.keys or 0) for node in status.nodes)


def test_status_tells_who_is_down_and_how_many_hints_are_held_for_it() -> None:
    world = World(5)
    world.kill(1)
    world.advance(2.0)
    client = world.client(0)
    for number in range(200):
        client("SET", f"key:{number}", "value")
    world.advance(3.0)
    status = msgspec.json.decode(client("RESPKV", "STATUS"), type=Status)
    assert [node.state for node in status.nodes] == ["up", "down", "up", "up", "up"]
    # It is a primary of three partitions of five, and owns one.
    assert 0.55 < status.cluster.short_ratio < 0.65
    assert status.nodes[1].keys is None
    held = status.nodes[1].hints_held_for or 0
    assert 80 < held < 160
    assert [node.hints_held_for for node in status.nodes if node.state == "up"] == [0] * 4
    hints = [pairs(each) for each in client("RESPKV", "HINTS")]
    assert [each["held_by_all"] for each in hints] == [held]
    assert 0 < hints[0]["held"] < held


def test_where_a_key_lives() -> None:
    world = World(5)
    client = world.client()
    client("SET", "{user}1", "0123456789", "PX", "5000")
    found = whereabouts(client, "{user}1")
    assert (found.slot, found.partition) == (5474, 5474 // 256)
    assert len(found.preference_list) == 5
    assert [replica.id for replica in found.replicas] == found.preference_list[:3]
    assert {(replica.state, replica.type, replica.size) for replica in found.replicas} == {("in step", "string", 10)}
    assert all(0 < (replica.ttl_ms or 0) <= 5000 for replica in found.replicas)
    listed = client("RESPKV", "PREFLIST", "{user}1")
    assert [entry[0].decode() for entry in listed] == found.preference_list
    assert [entry[2] for entry in listed] == [b"primary"] * 3 + [b"fallback"] * 2


def test_replicas_that_differ_are_named() -> None:
    world = World(5)
    client = world.client()
    client("SET", "a", "1")
    preference = whereabouts(client, "a").preference_list
    by_id = {process.address.node: process for process in world.processes}
    shard = by_id[preference[1]].node.store.shards[whereabouts(client, "a").partition]
    older = (int.from_bytes(shard[b"a"][:8]) - 1).to_bytes(8) + shard[b"a"][8:]
    shard[b"a"] = older
    states = [replica.state for replica in whereabouts(client, "a").replicas]
    assert states == ["in step", "stale", "in step"]
    del shard[b"a"]
    assert [replica.state for replica in whereabouts(client, "a").replicas] == ["in step", "missing", "in step"]
    nowhere = whereabouts(client, "nosuch")
    assert [(replica.state, replica.version) for replica in nowhere.replicas] == [("in step", None)] * 3


def test_a_fallback_that_stands_in_is_shown_with_its_copy() -> None:
    world = World(5)
    client = world.client()
    preference = whereabouts(client, "a").preference_list
    victim = next(index for index, address in enumerate(world.addresses) if address.node == preference[2])
    asker = next(index for index, address in enumerate(world.addresses) if address.node == preference[0])
    world.kill(victim)
    world.advance(2.0)
    world.client(asker)("SET", "a", "1")
    found = whereabouts(world.client(asker), "a")
    assert [(replica.role, replica.state) for replica in found.replicas] == [
        ("primary", "in step"),
        ("primary", "in step"),
        ("primary", "unreachable"),
        ("fallback", "in step"),
    ]


def test_a_connection_chooses_its_quorums() -> None:
    world = World(3)
    client = world.client()
    assert pairs(client("RESPKV", "QUORUM")) == {
        "n": 3,
        "r": 2,
        "w": 2,
        "pr": 0,
        "pw": 0,
        "sloppy": b"yes",
        "chosen": b"no",
    }
    assert client("RESPKV", "QUORUM", "R", "one", "w", "all", "PW", "2") == b"OK"
    told = pairs(client("RESPKV", "QUORUM"))
    assert (told["r"], told["w"], told["pw"], told["chosen"]) == (1, 3, 2, b"yes")
    assert pairs(world.client()("RESPKV", "QUORUM"))["w"] == 2
    client("SET", "a", "1")
    assert pairs(client("RESPKV", "LAST"))["needed"] == 3
    assert client("RESPKV", "QUORUM", "DEFAULT") == b"OK"
    assert pairs(client("RESPKV", "QUORUM"))["chosen"] == b"no"
    client("RESPKV", "QUORUM", "W", "3")
    client("RESET")
    assert pairs(client("RESPKV", "QUORUM"))["w"] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("R 4", "ERR read-quorum 4 is more than replication-factor 3"),
        ("R 1 PR 2", "ERR primary-read-quorum 2 is more than read-quorum 1"),
        ("R 0", "ERR R must be at least 1"),
        ("PR -1", "ERR PR must be at least 0"),
        ("R", "ERR syntax error"),
        ("X 1", "ERR syntax error"),
        ("R 1 R 2", "ERR syntax error"),
        ("R 1_0", "ERR R must be a number, one, quorum or all"),
        ("w abc", "ERR W must be a number, one, quorum or all"),
    ],
)
def test_impossible_quorums_are_refused(words: str, text: str) -> None:
    client = World(3).client()
    assert str(client("RESPKV", "QUORUM", *words.split())) == text
    assert pairs(client("RESPKV", "QUORUM"))["chosen"] == b"no"


def test_the_last_read_and_write_are_told() -> None:
    world = World(3)
    client = world.client()
    assert client("RESPKV", "LAST") is None
    client("SET", "a", "1")
    told = pairs(client("RESPKV", "LAST"))
    assert (told["kind"], told["needed"], told["answered"], told["primaries"], told["hinted"], told["keys"]) == (b"write", 2, 3, 3, 0, 1)
    assert told["stamp"] >> 16 == world.wall_ms
    client("GET", "a")
    told = pairs(client("RESPKV", "LAST"))
    assert (told["kind"], told["needed"], told["answered"], told["primaries"]) == (b"read", 2, 2, 2)
    client("MSET", "a", "1", "b", "2")
    assert pairs(client("RESPKV", "LAST"))["kind"] == b"write"
    kinds = set()
    for number in range(8):
        client("INCR", f"counter:{number}")
        kinds.add(pairs(client("RESPKV", "LAST"))["kind"])
    assert kinds == {b"write", b"passed on"}


def test_wait_counts_further_copies_of_the_last_write() -> None:
    world = World(3)
    client = world.client()
    client("SET", "a", "1")
    assert client("WAIT", "2", "1000") == 2
    world.kill(2)
    world.advance(2.0)
    client("SET", "a", "2")
    before = world.now
    assert client("WAIT", "2", "100") == 1
    assert 0.1 <= world.now - before < 0.2
    assert client("WAIT", "1", "0") == 1
    assert str(client("WAIT", "1", "-1")) == "ERR timeout is negative"


def test_the_ring() -> None:
    told = pairs(World(3).client()("RESPKV", "RING"))
    assert (told["epoch"], told["size"], len(told["members"])) == (1, 64, 3)
    assert sum(pairs(member)["partitions"] for member in told["members"]) == 64


def test_help_names_each_subcommand() -> None:
    text = b"\n".join(World(1).client()("RESPKV", "HELP")).decode()
    for name in ("PREFLIST", "QUORUM", "LAST", "HINTS", "RING", "STATUS", "KEY", "HELP"):
        assert f"\n{name}" in text
