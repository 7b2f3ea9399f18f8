"""`replication-factor` changes on a ring that holds data: new replicas are filled before they count, old ones lose nothing."""

from __future__ import annotations

import pytest

from respkv.server.node import Node
from respkv.versions.records import ABSENT
from tests.commands.harness import World


def fill(world: World, count: int, *, first: int = 0) -> None:
    client = world.connect(0)
    for number in range(first, first + count):
        assert client.ask(f"SET key:{number} value:{number}") == b"+OK\r\n"


def change(world: World, n: int, *more: str, index: int = 0) -> None:
    assert world.connect(index).ask(f"CONFIG SET replication-factor {n} {' '.join(more)}".strip()) == b"+OK\r\n"


def settle(world: World, *, within_s: float = 60.0) -> None:
    assert world.run_until(lambda: all(node.cluster.value.resize is None for node in world.nodes), within_s=within_s)
    world.run(2.0)


def held(node: Node) -> dict[bytes, bytes]:
    return {key: record for shard in node.store.shards for key, record in shard.items() if record}


def check(world: World, n: int, count: int) -> None:
    """Each key is on exactly the first N of its preference list, alike, and every node answers for all of them."""
    copies = [held(node) for node in world.nodes]
    for number in range(count):
        key = b"key:%d" % number
        table = world.nodes[0].coordinator.table
        assert table is not None
        owners = table.preference(world.nodes[0].store.partition(key))[:n]
        records = {node.me: copies[index].get(key, ABSENT) for index, node in enumerate(world.nodes)}
        assert {me for me, record in records.items() if record} == set(owners), key
        assert len({records[owner] for owner in owners}) == 1
    for index, node in enumerate(world.nodes):
        assert sum(node.store.live) == sum(b"value" in record for record in copies[index].values())
        client = world.connect(index)
        assert client.ask("DBSIZE") == b":%d\r\n" % count
        assert len(set(client.ask("KEYS *").split(b"\r\n")[2::2])) == count
        assert node.coordinator.quorum.n == n


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 5), (5, 2), (2, 1), (1, 5)])
def test_copies_are_where_the_new_n_wants_them(before: int, after: int) -> None:
    world = World(5, replication_factor=str(before))
    fill(world, 120)
    change(world, after)
    settle(world)
    check(world, after, 120)


def test_while_it_lasts_reads_ask_the_old_n_and_counts_are_right() -> None:
    world = World(5, replication_factor="3")
    fill(world, 100)
    world.crash(4)
    world.run(5.0)
    change(world, 5)
    world.run(5.0)
    # The one that is away holds it up: the others have copied, and do not count.
    for index in range(4):
        node, client = world.nodes[index], world.connect(index)
        assert node.cluster.value.resize is not None
        assert node.coordinator.quorum.n == 3
        assert client.ask("DBSIZE") == b":100\r\n"
        assert all(client.ask(f"GET key:{number}") == b"$%d\r\nvalue:%d\r\n" % (len(f"value:{number}"), number) for number in range(100))
        assert client.ask("CONFIG SET replication-factor 4").startswith(b"-BUSY an earlier change of replication-factor")
    assert len(held(world.nodes[0])) == 100
    fill(world, 50, first=100)
    assert world.connect(1).ask("DBSIZE") == b":150\r\n"


def test_a_change_is_taken_back() -> None:
    world = World(5, replication_factor="3")
    fill(world, 100)
    world.crash(4)
    world.run(5.0)
    change(world, 5)
    world.run(3.0)
    assert len(held(world.nodes[0])) == 100
    change(world, 3, index=1)
    world.run(3.0)
    # Copies are dropped when nobody sends any more: the one that is away might.
    live = [node for node in world.nodes if node is not world.nodes[4]]
    assert all(node.cluster.value.resize is not None and node.coordinator.quorum.n == 3 for node in live)
    assert world.connect(0).ask("DBSIZE") == b":100\r\n"


def test_writes_while_n_rises_meet_both_rules() -> None:
    world = World(5, replication_factor="1")
    fill(world, 30)
    world.crash(4)
    world.run(5.0)
    change(world, 3, "sloppy-quorum", "no")
    client = world.connect(0)
    answers = [client.ask(f"SET new:{number} x") for number in range(60)]
    written = [number for number, answer in enumerate(answers) if answer == b"+OK\r\n"]
    assert written
    table = world.nodes[0].coordinator.table
    assert table is not None
    for number in range(60):
        key = b"new:%d" % number
        owners = table.preference(world.nodes[0].store.partition(key))[:3]
        holders = sum(bool(node.store.get(key)) for node in world.nodes if node.me in owners)
        first_is_up = owners[0] != world.nodes[4].me
        assert (number in written) is first_is_up
        assert holders >= 2 or not first_is_up


def test_impossible_quorums_are_refused_before_any_effect() -> None:
    world = World(5, replication_factor="3", write_quorum="3")
    fill(world, 10)
    assert b"write-quorum 3 is more than replication-factor 2" in world.connect(0).ask("CONFIG SET replication-factor 2")
    assert world.nodes[0].cluster.value.resize is None
    change(world, 2, "write-quorum", "2")
    settle(world)
    check(world, 2, 10)


def test_deletions_move_along() -> None:
    world = World(5, replication_factor="3")
    fill(world, 60)
    assert world.connect(0).ask("DEL " + " ".join(f"key:{number}" for number in range(30))) == b":30\r\n"
    change(world, 5)
    settle(world)
    change(world, 1)
    settle(world)
    client = world.connect(2)
    assert client.ask("DBSIZE") == b":30\r\n"
    assert [client.ask(f"GET key:{number}") for number in range(30)] == [b"$-1\r\n"] * 30


def test_tables_give_up_what_is_dropped() -> None:
    world = World(5, replication_factor="3", maxmemory="1mb")
    fill(world, 100)
    world.run(2.0)
    world.cool()
    change(world, 1)
    settle(world)
    client = world.connect(1)
    assert client.ask("DBSIZE") == b":100\r\n"
    assert sum(sum(node.store.live) for node in world.nodes) == 100
    assert all(client.ask(f"GET key:{number}") == b"$%d\r\nvalue:%d\r\n" % (len(f"value:{number}"), number) for number in range(100))
