from __future__ import annotations

from itertools import pairwise

import pytest

from respkv.placement.slots import key_slot
from tests.commands.node_alone import Caller, World


def lines(client: Caller) -> list[list[str]]:
    text = client("CLUSTER", "NODES").decode()
    assert text.endswith("\n")
    return [line.split(" ") for line in text.splitlines()]


def slots_of(words: list[str]) -> set[int]:
    ranges = [word.partition("-") for word in words[8:]]
    return {slot for first, _, last in ranges for slot in range(int(first), int(last or first) + 1)}


@pytest.mark.parametrize("count", [1, 3, 5])
def test_every_slot_has_one_master(count: int) -> None:
    world = World(count, ring_size=256)
    nodes = lines(world.client())
    assert len(nodes) == count
    covered = [slot for words in nodes for slot in slots_of(words)]
    assert sorted(covered) == list(range(16384))
    assert all(words[2].endswith("master") and words[7] == "connected" for words in nodes)


def test_all_nodes_tell_the_same_but_for_myself() -> None:
    world = World(5)
    told = [world.client(index)("CLUSTER", "NODES") for index in range(5)]
    assert len({text.replace(b"myself,", b"") for text in told}) == 1
    assert [text.count(b"myself,") for text in told] == [1] * 5
    assert len({world.client(index)("CLUSTER", "MYID") for index in range(5)}) == 5
    assert len({repr(world.client(index)("CLUSTER", "SLOTS")) for index in range(5)}) == 1


def test_in_slots_each_node_is_first_met_as_a_master() -> None:
    entries = World(5).client()("CLUSTER", "SLOTS")
    roles: dict[bytes, str] = {}
    for first, last, master, *replicas in entries:
        assert 0 <= first <= last < 16384
        assert master[3] == []
        roles.setdefault(master[2], "master")
        for replica in replicas:
            roles.setdefault(replica[2], "replica")
    assert list(roles.values()) == ["master"] * 5
    assert sum(last - first + 1 for first, last, *_ in entries) == 16384
    assert sum(len(entry) == 5 for entry in entries) > len(entries) // 2


def test_neighbouring_partitions_of_one_master_are_one_range() -> None:
    assert lines(World(1).client())[0][8:] == ["0-16383"]
    ranges = sorted(tuple(map(int, word.split("-"))) for words in lines(World(3).client()) for word in words[8:])
    masters = {slot: words[0] for words in lines(World(3).client()) for slot in slots_of(words)}
    assert all(masters[left[1]] != masters[right[0]] for left, right in pairwise(ranges))


def test_shards_have_all_slots_and_all_nodes() -> None:
    world = World(3)
    world.kill(1)
    world.advance(2.0)
    client = world.client(0)
    client("HELLO", "3")
    shards = client("CLUSTER", "SHARDS")
    assert [node[b"health"] for shard in shards for node in shard[b"nodes"]].count(b"fail") == 1
    assert {tuple(node) for shard in shards for node in shard[b"nodes"]} == {
        (b"id", b"port", b"ip", b"endpoint", b"role", b"replication-offset", b"health")
    }
    pairs = [shard[b"slots"][place : place + 2] for shard in shards for place in range(0, len(shard[b"slots"]), 2)]
    assert sum(last - first + 1 for first, last in pairs) == 16384


def test_when_a_node_dies_the_next_live_ones_are_shown_as_masters() -> None:
    world = World(5)
    world.kill(4)
    world.advance(2.0)
    nodes = lines(world.client(0))
    dead = next(words for words in nodes if words[1].startswith("127.0.0.1:7005@"))
    assert dead[2:8] == ["master,fail", "-", "0", "0", "1", "disconnected"]
    assert len(dead) == 8
    assert sorted(slot for words in nodes for slot in slots_of(words)) == list(range(16384))
    assert b"cluster_state:ok" in world.client(0)("CLUSTER", "INFO")
    assert world.client(1)("CLUSTER", "COUNT-FAILURE-REPORTS", dead[0]) == 1


def test_without_a_live_node_for_some_slots_the_state_is_fail() -> None:
    world = World(2, replication_factor="1", sloppy_quorum="no")
    world.kill(1)
    world.advance(2.0)
    told = dict(line.split(":") for line in world.client(0)("CLUSTER", "INFO").decode().split("\r\n") if line)
    assert int(told["cluster_slots_ok"]) < 16384
    assert int(told["cluster_slots_ok"]) + int(told["cluster_slots_pfail"]) + int(told["cluster_slots_fail"]) == 16384


def test_keys_of_a_slot() -> None:
    world = World(3)
    client = world.client(1)
    for number in range(20):
        client("SET", "{tag}%d" % number, "x")  # noqa: UP031
    client("SET", "other", "x")
    slot = client("CLUSTER", "KEYSLOT", "{tag}anything")
    assert slot == key_slot(b"tag")
    assert client("CLUSTER", "COUNTKEYSINSLOT", slot) == 20
    assert len(set(client("CLUSTER", "GETKEYSINSLOT", slot, 7))) == 7
    assert len(client("CLUSTER", "GETKEYSINSLOT", slot, 100)) == 20
    assert client("CLUSTER", "GETKEYSINSLOT", slot, 0) == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("COUNTKEYSINSLOT 16384", "ERR Invalid slot"),
        ("COUNTKEYSINSLOT x", "ERR value is not an integer or out of range"),
        ("GETKEYSINSLOT 1 -1", "ERR Invalid slot or number of keys"),
        ("REPLICAS abc", "ERR Unknown node abc"),
        ("COUNT-FAILURE-REPORTS abc", "ERR Unknown node abc"),
        (
            "SETSLOT 1 NODE x",
            "ERR CLUSTER SETSLOT is not supported: which nodes keep a slot follows from the members of the ring, see RESPKV RING",
        ),
        ("NOSUCH", "ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP."),
        ("NODES x", "ERR wrong number of arguments for 'cluster|nodes' command"),
    ],
)
def test_refusals(line: str, text: str) -> None:
    assert str(World(1).client()("CLUSTER", *line.split())) == text


def test_what_redis_clusters_tools_ask_by_hand_is_refused_in_a_sentence() -> None:
    client = World(1).client()
    for line in ("ADDSLOTS 1", "MEET 127.0.0.1 7000", "FORGET x", "RESET", "FAILOVER", "REPLICATE x", "FLUSHSLOTS", "DELSLOTS 1"):
        reply = str(client("CLUSTER", *line.split()))
        assert reply.startswith(f"ERR CLUSTER {line.split()[0]} is not supported: ")
    assert client("CLUSTER", "SAVECONFIG") == b"OK"


def test_links_are_those_to_the_other_nodes() -> None:
    links = World(3).client()("CLUSTER", "LINKS")
    assert len(links) == 2
    assert links[0][::2] == [b"direction", b"node", b"create-time", b"events", b"send-buffer-allocated", b"send-buffer-used"]
