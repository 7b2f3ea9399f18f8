"""Deletions go once all replicas have them, and what was deleted does not come back."""

from __future__ import annotations

import msgspec

from respkv.repair.remains import REAPED_PARTITION
from respkv.server import turns
from respkv.simulation.copies import check_replicas, held_record
from respkv.transport import frames
from respkv.versions import records, vectors
from respkv.versions.records import ABSENT
from tests.simulation.scene import Scene

GRACE = {"tombstone-grace": "5"}
LONG_S = 25.0
"""Grace, rest, and some passes."""


def both_ways(one: int, other: int) -> list[tuple[int, int]]:
    return [(one, other), (other, one)]


def remains(scene: Scene) -> int:
    """How many keys the nodes hold of which nothing but the past is left."""
    return sum(sum(map(len, node.store.remains)) + sum(node.store.remains_dropped) for _, node in scene.world.nodes())


def is_gone(scene: Scene, key: str) -> bool:
    """Whether no node has anything of a key, in memory or on its disk."""
    found = [process.disk.row(node.store.partition(key.encode()), key.encode()) for process, node in scene.world.nodes()]
    return not any(found) and not any(held_record(process, key.encode()) for process in scene.world.processes)


def test_deleted_and_expired_keys_leave_memory_tables_and_dbsize() -> None:
    scene = Scene(nodes=5, directives=GRACE, memtable_bytes=1 << 13)
    for number in range(60):
        assert scene.ask(number % 5, f"SET k{number} v", f"SET e{number} v PX 500") == [b"OK", b"OK"]
    for number in range(0, 60, 2):
        assert scene.ask(number % 5, f"DEL k{number}") == [1]
    scene.run(3.0)
    assert remains(scene) == 3 * 90
    assert scene.ask(0, "DBSIZE") == [30]
    scene.run(LONG_S)
    assert remains(scene) == 0
    for node in [node for _, node in scene.world.nodes()]:
        node.freeze_soon()
    scene.run(3.0)
    assert scene.ask(1, "DBSIZE") == [30]
    assert all(is_gone(scene, f"e{number}") for number in range(60))
    assert all(is_gone(scene, f"k{number}") != bool(number % 2) for number in range(60))
    assert check_replicas(scene.world) == []
    reaped = [node.reaping.statistics.reaped_total for _, node in scene.world.nodes()]
    assert sum(reaped) == 3 * 90
    assert [node.store.trees.corrected_total for _, node in scene.world.nodes()] == [0] * 5
    assert [node.anti_entropy.statistics.keys_repaired_total for _, node in scene.world.nodes()] == [0] * 5


def test_nothing_goes_while_a_node_is_away_and_the_deleted_value_does_not_come_back_with_it() -> None:
    scene = Scene(nodes=3, directives={**GRACE, "sloppy-quorum": "no", "max-hints-size": "1", "speculative-retry": "0"})
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(1.0)
    scene.process(2).kill()
    scene.run(3.0)
    assert scene.ask(0, "DEL k") == [1]
    scene.run(60.0)
    assert remains(scene) == 2
    assert scene.node(0).reaping.unrest == "a node is away"
    scene.process(2).restart()
    scene.wait_for_rest()
    scene.run(LONG_S)
    assert is_gone(scene, "k")
    assert scene.ask(2, "GET k") == [None]


def test_a_key_for_which_a_hint_is_held_keeps_its_deletion() -> None:
    scene = Scene(nodes=4, directives=GRACE)
    key = scene.key_of(primary=0, without=3)
    scene.ask(0, f"SET {key} v", f"DEL {key}", "SET other v", "DEL other")
    scene.run(1.0)
    # For a node that never takes it.
    scene.node(3).hints.add("f" * 40, [key.encode(), records.tombstone(stamp=1, actor=bytes(8))], 0.0)
    scene.run(LONG_S)
    assert remains(scene) == 3
    scene.node(3).hints.drop("f" * 40, [key.encode()])
    scene.run(LONG_S)
    assert remains(scene) == 0


def test_a_copy_that_somebody_holds_for_another_node_keeps_the_deletion() -> None:
    scene = Scene(nodes=4, directives=GRACE)
    key = scene.key_of(primary=0, without=3)
    scene.ask(0, f"SET {key} v", f"DEL {key}")
    scene.run(1.0)
    guest = scene.node(3)
    partition = guest.store.partition(key.encode())
    guest.store.merge(partition, key.encode(), records.string(b"old", stamp=1, actor=bytes(8)))
    scene.run(LONG_S)
    assert remains(scene) == 3
    guest.store.forget(partition, key.encode())
    scene.run(LONG_S)
    assert remains(scene) == 0


def test_a_replica_that_lacks_the_deletion_keeps_it_for_all() -> None:
    scene = Scene(nodes=3, directives={**GRACE, "anti-entropy-interval": "0"})
    scene.ask(0, "SET k v", "DEL k")
    scene.run(1.0)
    node = scene.node(2)
    node.store.forget(node.store.partition(b"k"), b"k")
    scene.run(LONG_S)
    assert remains(scene) == 2
    scene.ask(0, "RESPKV REPAIR")
    scene.run(LONG_S)
    assert is_gone(scene, "k")


def test_who_forgot_that_it_dropped_a_deletion_brings_it_back_and_all_drop_it_again() -> None:
    scene = Scene(nodes=3, directives={**GRACE, "anti-entropy-interval": "5", "appendfsync": "no"})
    scene.ask(0, "SET k v", "DEL k")
    before = [node.reaping.statistics.reaped_total for _, node in scene.world.nodes()]
    while scene.node(1).reaping.statistics.reaped_total == before[1]:
        scene.run(0.05)
    # The drop is not on its disk, the deletion is.
    process = scene.process(1)
    process.disk.log = [item for item in process.disk.log if item[0] != 5]
    process.kill()
    process.restart()
    scene.wait_for_rest()
    assert held_record(process, b"k")
    scene.run(LONG_S)
    assert is_gone(scene, "k")
    assert scene.ask(1, "GET k") == [None]


def test_an_old_write_that_comes_late_does_not_bring_a_value_back() -> None:
    scene = Scene(nodes=3, directives=GRACE)
    scene.ask(0, "SET k v")
    scene.run(1.0)
    node = scene.node(1)
    late = node.store.get(b"k")
    scene.ask(0, "DEL k")
    scene.run(LONG_S)
    assert is_gone(scene, "k")
    header = frames.pack_header(node.clock.last, node.cluster.ring.epoch, node.cluster.value_mark)
    section = frames.pack_section(frames.WRITE, 7, msgspec.msgpack.encode([b"k", late]))
    scene.process(1).deliver((turns.PEER_FRAME, scene.process(0).me, header + section))
    scene.run(1.0)
    assert is_gone(scene, "k")


def test_what_was_reaped_is_known_after_a_restart() -> None:
    scene = Scene(nodes=3, directives=GRACE, memtable_bytes=1 << 12)
    scene.ask(0, "SET k v", "DEL k")
    scene.run(LONG_S)
    below = [node.store.reaped_below for _, node in scene.world.nodes()]
    assert len(set(below)) == 1
    assert below[0]
    scene.process(1).kill()
    scene.process(1).restart()
    scene.wait_for_rest()
    assert scene.node(1).store.reaped_below == below[0]
    scene.node(1).freeze_soon()
    scene.run(3.0)
    assert scene.process(1).disk.row(REAPED_PARTITION, b"below") == below[0]
    scene.process(1).kill()
    scene.process(1).restart()
    scene.wait_for_rest()
    assert scene.node(1).store.reaped_below == below[0]
    assert is_gone(scene, "k")


def test_remains_that_only_the_tables_hold_are_found() -> None:
    scene = Scene(nodes=3, directives={**GRACE, "maxmemory": "2000"}, memtable_bytes=1 << 12)
    for number in range(100):
        scene.ask(0, f"SET k{number} {'v' * 40}")
    for number in range(0, 100, 2):
        scene.ask(1, f"DEL k{number}")
    for number in range(100):
        scene.ask(0, f"SET m{number} {'v' * 40}")
    scene.run(2.0)
    assert all(sum(node.store.remains_dropped) for _, node in scene.world.nodes())
    scene.run(60.0)
    for _, node in scene.world.nodes():
        node.freeze_soon()
    scene.run(5.0)
    assert all(is_gone(scene, f"k{number}") != bool(number % 2) for number in range(100))
    assert check_replicas(scene.world) == []
    assert scene.ask(2, "DBSIZE") == [150]


def test_siblings_that_were_resolved_become_plain_records() -> None:
    scene = Scene(nodes=3, directives={**GRACE, "conflict-resolution": "siblings"})
    node = scene.node(0)
    one = records.string(b"one", stamp=node.clock.next(), actor=b"A" * 8)
    two = records.string(b"two", stamp=node.clock.next(), actor=b"B" * 8)
    both = vectors.merge(vectors.successor(ABSENT, ABSENT, one), vectors.successor(ABSENT, ABSENT, two))
    last = vectors.successor(both, both, records.string(b"last", stamp=node.clock.next(), actor=b"A" * 8))
    assert last[16] == records.SIBLINGS
    for _, each in scene.world.nodes():
        each.store.merge(each.store.partition(b"k"), b"k", last)
    scene.run(LONG_S)
    held = [held_record(process, b"k") for process in scene.world.processes]
    assert held == [vectors.settled(last)] * 3
    assert held[0][16] == records.VALUE
    assert remains(scene) == 0
    assert [node.reaping.statistics.settled_total for _, node in scene.world.nodes()] == [1, 1, 1]
