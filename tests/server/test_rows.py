from __future__ import annotations

import pytest
from xxhash import xxh64_intdigest

from respkv.placement.slots import key_slot
from respkv.storage.store import ABSENT_KEYS_MAX
from tests.commands.node_alone import World

Rows = list[tuple[bytes, bytes]]


def walk(world: World, partition: int, *, limit: int) -> Rows:
    """All rows of a partition of the first node, read piece by piece."""
    reader = world.processes[0].node.rows
    met: Rows = []
    position: int | None = 0
    while position is not None:
        answers: list[tuple[Rows, int | None]] = []
        reader.read(partition, position, limit, lambda rows, following, answers=answers: answers.append((rows, following)))  # type: ignore[misc]
        world.processes[0].turn()
        world.settle()
        ((rows, following),) = answers
        assert following is None or following > position
        met += rows
        position = following
    return met


def filled(count: int) -> tuple[World, int, dict[bytes, bytes]]:
    """A node with keys of one partition, some of them deleted."""
    world = World(1)
    client = world.client()
    names = [b"{tag}%d" % number for number in range(count)]
    for name in names:
        client("SET", name, "value")
    client("DEL", *names[: count // 10])
    store = world.processes[0].node.store
    partition = store.partition(names[0])
    return world, partition, dict(store.shards[partition])


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_rows_come_in_order_of_hashes_tombstones_among_them(limit: int) -> None:
    world, partition, records = filled(100)
    rows = walk(world, partition, limit=limit)
    assert dict(rows) == records
    assert [key for key, _ in rows] == sorted(records, key=lambda key: (xxh64_intdigest(key), key))
    assert walk(world, partition + 1, limit=limit) == []


@pytest.mark.parametrize("limit", [3, 1000])
def test_memory_stands_over_the_tables(limit: int) -> None:
    world, partition, _ = filled(100)
    process = world.processes[0]
    process.flush_to_tables()
    client = world.client()
    client("SET", "{tag}50", "newer")
    client("SET", "{tag}new", "value")
    client("DEL", "{tag}60")
    records = dict(walk(world, partition, limit=limit))
    assert len(records) == 101
    assert records[b"{tag}50"].endswith(b"newer")
    assert records[b"{tag}new"].endswith(b"value")
    assert records[b"{tag}60"][16] == 0


def test_what_leaves_memory_while_the_tables_are_read_is_not_missed() -> None:
    world, partition, records = filled(50)
    process = world.processes[0]
    process.flush_to_tables()
    client = world.client()
    client("SET", "{tag}late", "value")
    answers: list[tuple[Rows, int | None]] = []
    process.node.rows.read(partition, 0, 1000, lambda rows, following: answers.append((rows, following)))
    # The tables are read as they were, then the key reaches them and leaves memory, then their answer comes.
    process.turn()
    process.flush_to_tables()
    world.settle()
    ((rows, following),) = answers
    assert following is None
    assert set(dict(rows)) == {*records, b"{tag}late"}


def test_orders_that_nobody_uses_are_let_go() -> None:
    world, partition, _ = filled(20)
    reader = world.processes[0].node.rows
    walk(world, partition, limit=10)
    assert reader.orders_count() == 1
    world.advance(20.0)
    assert reader.orders_count() == 0
    assert key_slot(b"tag") >> 8 == partition


def test_a_node_without_a_bound_does_not_remember_every_key_that_it_was_asked_for_in_vain() -> None:
    world, _, _ = filled(10)
    process = world.processes[0]
    process.flush_to_tables()
    client = world.client()
    client("CONFIG", "SET", "maxmemory", "0")
    for first in range(0, ABSENT_KEYS_MAX + 4000, 2000):
        client("MGET", *[f"missing:{number}" for number in range(first, first + 2000)])
    store = process.node.store
    assert sum(map(len, store.shards)) <= ABSENT_KEYS_MAX
    assert client("GET", "{tag}5") == b"value"
