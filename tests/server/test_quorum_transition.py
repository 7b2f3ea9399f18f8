"""While a change of the quorum is on its way the stricter of both rules is in force, and that ends."""

from __future__ import annotations

from respkv.config import cluster_value
from tests.commands.harness import World


def test_a_change_that_nobody_ended_is_ended_once_all_have_it() -> None:
    world = World(3)
    node = world.nodes[1]
    # A CONFIG SET whose node died behind its first half.
    begun = cluster_value.successor(
        node.cluster.value, {"write-quorum": "1", "read-quorum": "all"}, stamp=node.clock.next(), actor=bytes(8), members=3
    )
    node.cluster.adopt(begun)
    world.run(1.0)
    assert all(each.cluster.value == begun for each in world.nodes)
    assert {(each.coordinator.quorum.r, each.coordinator.quorum.w) for each in world.nodes} == {(3, 2)}
    world.run(10.0)
    assert all(each.cluster.value.transition == () for each in world.nodes)
    assert len({each.cluster.value_mark for each in world.nodes}) == 1
    assert {(each.coordinator.quorum.r, each.coordinator.quorum.w) for each in world.nodes} == {(3, 1)}


def test_config_set_ends_its_own() -> None:
    world = World(3)
    assert world.connect(0).ask("CONFIG SET write-quorum 1 read-quorum all") == b"+OK\r\n"
    assert all(each.cluster.value.transition == () for each in world.nodes)
    assert {(each.coordinator.quorum.r, each.coordinator.quorum.w) for each in world.nodes} == {(3, 1)}


def test_what_is_written_after_flushall_was_answered_stays() -> None:
    world = World(3)
    clients = [world.connect(index) for index in range(3)]
    for round_number in range(5):
        assert clients[0].ask("SET k old") == b"+OK\r\n"
        assert clients[round_number % 3].ask("FLUSHALL") == b"+OK\r\n"
        for client in clients:
            assert client.ask("GET k") == b"$-1\r\n"
        assert clients[(round_number + 1) % 3].ask("SET k new") == b"+OK\r\n"
        for client in clients:
            assert client.ask("GET k") == b"$3\r\nnew\r\n"
        # Nobody had records above the floor: they were forgotten at once.
        assert all(node.store.floor for node in world.nodes)


def test_flushall_takes_hints_along() -> None:
    world = World(3)
    world.crash(2)
    world.run(2.0)
    client = world.connect(0)
    for number in range(10):
        assert client.ask(f"SET key:{number} v") == b"+OK\r\n"
    assert sum(node.hints.count() for node in world.nodes[:2]) == 10
    assert client.ask("FLUSHALL") == b"+OK\r\n"
    world.run(1.0)
    assert sum(node.hints.count() for node in world.nodes[:2]) == 0
    assert client.ask("SET k v") == b"+OK\r\n"
    assert sum(node.hints.count() for node in world.nodes[:2]) == 1
