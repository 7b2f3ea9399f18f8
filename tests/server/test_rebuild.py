"""A node that lost data copies it from the others before it counts."""

from __future__ import annotations

from respkv.server.node import Node
from tests.commands.harness import World


def lose(node: Node) -> None:
    """What a node does that starts with an empty directory, but for the start."""
    for partition, shard in enumerate(node.store.shards):
        shard.clear()
        node.store.live[partition] = 0
    node.rebuild.begin("the test took its data away")


def fill(world: World, count: int) -> None:
    client = world.connect(0)
    for number in range(count):
        assert client.ask(f"SET key:{number} value:{number}") == b"+OK\r\n"
    world.run(1.0)


def held(node: Node) -> dict[bytes, bytes]:
    return {key: record for shard in node.store.shards for key, record in shard.items() if record}


def test_a_node_gets_back_all_that_it_holds_for_others() -> None:
    world = World(5)
    fill(world, 300)
    before = held(world.nodes[1])
    assert len(before) > 100
    lose(world.nodes[1])
    world.run(3.0)
    assert not world.nodes[1].rebuild.needed
    assert not world.nodes[1].topology.rebuilding
    assert held(world.nodes[1]) == before
    assert sum(world.nodes[1].store.live) == len(before)
    assert any("complete: " in sentence for _, sentence in world.events)


def test_until_then_it_answers_for_nobody() -> None:
    world = World(3, read_quorum="1")
    fill(world, 20)
    lose(world.nodes[1])
    # Whoever has not heard of it yet is refused, and asks another.
    readers = [world.connect(index) for index in range(3)]
    for number in range(20):
        for reader in readers:
            assert reader.ask(f"GET key:{number}") == b"$%d\r\nvalue:%d\r\n" % (len(f"value:{number}"), number)


def test_another_node_that_rebuilds_does_not_count_as_one_that_was_read() -> None:
    world = World(5, replication_factor="5", write_quorum="3", read_quorum="3")
    fill(world, 20)
    world.crash(2)
    lose(world.nodes[0])
    lose(world.nodes[1])
    world.run(5.0)
    # An acknowledged write may be on nodes 0, 1 and 2 alone: two whole nodes cannot tell.
    assert world.nodes[0].rebuild.needed
    assert world.nodes[1].rebuild.needed


def test_all_members_of_a_new_cluster_are_done_at_once() -> None:
    world = World(5)
    for node in world.nodes:
        node.rebuild.begin("new")
    world.run(2.0)
    assert not any(node.rebuild.needed for node in world.nodes)
    assert world.connect(3).ask("SET k v", "GET k") == b"+OK\r\n$1\r\nv\r\n"


def test_a_node_without_co_replicas_has_nobody_to_copy_from() -> None:
    world = World(1)
    world.nodes[0].rebuild.begin("new")
    world.run(1.0)
    assert not world.nodes[0].rebuild.needed


def test_long_records_are_no_sign_that_another_node_has_clients_of_its_own() -> None:
    """They take their time on the way. A second each, as the floor of the pace would have it, is what only clients are worth."""
    world = World(3)
    client = world.connect(0)
    for number in range(20):
        assert client.ask(f"SET key:{number} {'x' * 1_000_000}") == b"+OK\r\n"
    world.run(3.0)
    before = held(world.nodes[1])
    world.slow_s = {(0, 1): 0.03, (2, 1): 0.03}
    lose(world.nodes[1])
    world.run(6.0)
    assert not world.nodes[1].rebuild.needed
    assert held(world.nodes[1]) == before
