"""FLUSHALL goes through memory over many turns; what lies below its floor is hidden at once."""

from __future__ import annotations

import pytest

from respkv.config import cluster_value
from respkv.server.node import Node
from respkv.versions.records import ABSENT, pack_stamp, string, tombstone
from respkv.versions.vectors import merge, successor
from tests.commands.node_alone import World


def flush_late(node: Node, floor: int) -> None:
    """A node learns of a FLUSHALL whose floor lies below what it has written since."""
    node.cluster.adopt(cluster_value.flushed(node.cluster.value, floor, stamp=node.clock.next(), actor=bytes(8)))


def late_floor(world: World) -> int:
    """A stamp between what was written so far and what is written from now on."""
    world.advance(0.01)
    return world.processes[0].node.clock.next()


def test_a_late_floor_does_not_stop_the_node_for_all_its_records() -> None:
    world = World(1)
    client = world.client()
    (process,) = world.processes
    node, store = process.node, process.node.store
    old = [b"old:%d" % number for number in range(30_000)]
    for first in range(0, len(old), 1000):
        client("MSET", *[word for key in old[first : first + 1000] for word in (key, "v")])
    floor = late_floor(world)
    client("MSET", "kept:1", "v", "kept:2", "v", old[0], "newer")
    flush_late(node, floor)
    assert sum(map(len, store.shards)) == 30_002
    process.turn()
    assert 20_000 < sum(map(len, store.shards)) < 30_000
    # Meanwhile nobody sees an old record, and counts lack only what is not swept yet.
    assert client("GET", old[0]) == b"newer"
    assert client("GET", old[1]) is None
    world.settle()
    assert not node.store.bury()
    assert sorted(key for shard in store.shards for key in shard) == sorted([b"kept:1", b"kept:2", old[0]])
    assert client("DBSIZE") == 3


def test_what_is_written_after_a_late_floor_is_counted_at_once() -> None:
    world = World(1)
    client = world.client()
    (process,) = world.processes
    for number in range(100):
        client("SET", f"key:{number}", "v")
    floor = late_floor(world)
    client("SET", "between", "v")
    flush_late(process.node, floor)
    store = process.node.store
    for number in range(50):
        key = b"key:%d" % number
        process.node.store.merge_pairs([key, pack_stamp(floor + 100) + b"actor-aa\x01sv"])
    assert sum(store.live) == 50
    store.forget(store.partition(b"key:0"), b"key:0")
    assert sum(store.live) == 49
    process.turn()
    world.settle()
    # With the one that was written between.
    assert client("DBSIZE") == 50


@pytest.mark.parametrize("again", [False, True])
def test_what_only_the_tables_hold_above_a_late_floor_is_counted(again: bool) -> None:  # noqa: FBT001
    world = World(1)
    client = world.client()
    (process,) = world.processes
    node = process.node
    for number in range(300):
        client("SET", f"key:{number}", "v")
    floor = late_floor(world)
    for number in range(100):
        client("SET", f"key:{number}", "newer")
    last = late_floor(world)
    for number in range(20):
        client("SET", f"key:{number}", "newest")
    process.flush_to_tables()
    assert not node.store.resident
    flush_late(node, floor)
    if again:
        # Another one comes while the first is on its way.
        process.turn()
        flush_late(node, last)
    client("SET", "key:0", "in memory")
    client("DEL", "key:1")
    client("SET", "key:2", "v", "PX", "1")
    client("GET", "key:3")
    client("SET", "key:299", "new")
    world.advance(1.0)
    left = 20 if again else 100
    # One was deleted, one has expired, one came.
    assert client("DBSIZE") == left - 1
    assert sum(client("EXISTS", f"key:{number}") for number in range(300)) == left - 1
    assert node.store.counting is None


def test_nothing_leaves_a_partition_while_it_is_counted() -> None:
    world = World(1)
    client = world.client()
    (process,) = world.processes
    client("SET", "k", "v")
    process.flush_to_tables()
    client("GET", "k")
    store = process.node.store
    store.counting = store.partition(b"k")
    assert store.evict(0, keep={}, partitions_max=len(store.shards)) == 0
    store.counting = None
    assert store.evict(0, keep={}, partitions_max=len(store.shards)) == 1


def test_siblings_below_a_late_floor_that_only_the_tables_hold_are_not_counted() -> None:
    world = World(1)
    (process,) = world.processes
    node = process.node
    floor = late_floor(world)
    below = string(b"v", stamp=floor - 10, actor=b"actor-aa")
    # A deletion that had not seen it came after the floor.
    deleted = successor(ABSENT, ABSENT, tombstone(stamp=floor + 10, actor=b"actor-bb"))
    node.store.merge_pairs([b"key", merge(successor(ABSENT, ABSENT, below), deleted)])
    process.flush_to_tables()
    flush_late(node, floor)
    world.advance(1.0)
    assert sum(node.store.live) == 0
