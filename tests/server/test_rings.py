"""Nodes that disagree about the ring: a newer epoch is learnt, another ring of the same epoch is refused."""

from __future__ import annotations

import msgspec

from respkv.placement.ring import Ring
from tests.commands.harness import World


def turned(ring: Ring, *, epoch: int) -> Ring:
    """The same members, other owners."""
    return msgspec.structs.replace(ring, epoch=epoch, owners=(*ring.owners[1:], ring.owners[0]))


def test_two_rings_of_one_epoch_refuse_each_other_loudly() -> None:
    world = World(3, write_quorum="1", read_quorum="1")
    odd = world.nodes[2]
    odd.cluster.ring = turned(odd.cluster.ring, epoch=1)
    odd._on_cluster_change()
    world.run(3.0)
    assert odd.topology.usable() == {odd.me}
    for node in world.nodes[:2]:
        assert odd.me not in node.topology.usable()
    for index in range(3):
        assert world.connect(index).ask("SET k v") == b"+OK\r\n"
    world.run(3.0)
    # Neither side has taken the other's write.
    assert odd.store.get(b"k") != world.nodes[0].store.get(b"k") == world.nodes[1].store.get(b"k")
    loud = [sentence for level, sentence in world.events if level == "warning" and "neither serves the other" in sentence]
    assert len(loud) >= 2


def test_a_newer_epoch_is_learnt_and_kept() -> None:
    world = World(3)
    newer = turned(world.nodes[0].cluster.ring, epoch=2)
    world.nodes[0].cluster.ring = newer
    world.nodes[0]._on_cluster_change()
    world.run(2.0)
    assert all(node.cluster.ring == newer for node in world.nodes)
    assert world.connect(1).ask("SET k v", "GET k") == b"+OK\r\n$1\r\nv\r\n"


def test_an_older_epoch_is_not_taken_back() -> None:
    world = World(3)
    before = world.nodes[0].cluster.ring
    for node in world.nodes[:2]:
        node.cluster.ring = turned(before, epoch=5)
        node._on_cluster_change()
    world.run(2.0)
    world.nodes[0].cluster.on_ring(world.nodes[2].me, 0, before.encode())
    assert all(node.cluster.ring.epoch == 5 for node in world.nodes)
