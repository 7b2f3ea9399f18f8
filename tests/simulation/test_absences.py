"""Nodes that are away for too long are rebuilt; and the number of replicas changes while nodes die and come back."""

from __future__ import annotations

import pytest

from respkv.commands.published import RESIZE, stage_of
from respkv.config.cluster_value import mark_of, marked_nodes
from respkv.config.replication import DROPPING, PREPARING, SWITCHED
from respkv.simulation.copies import check_copies, check_replicas, held_record
from respkv.versions import records
from tests.simulation.scene import Scene

FIVE = {"replication-factor": "3", "sloppy-quorum": "no", "max-downtime": "30"}


def test_a_node_that_was_away_for_too_long_is_rebuilt_and_brings_nothing_back() -> None:
    scene = Scene(nodes=5, directives={**FIVE, "tombstone-grace": "5"})
    key, kept = scene.key_of(primary=4), scene.key_of(primary=0)
    assert scene.ask(0, f"SET {key} old", f"SET {kept} kept") == [b"OK", b"OK"]
    scene.wait_for_rest()
    scene.process(4).kill()
    scene.run(5.0)
    assert scene.ask(0, f"DEL {key}") == [1]
    scene.run(20.0)
    # The deletion is owed to the one that is away, as long as it may come back with what it has.
    others = [scene.process(index) for index in range(4)]
    assert any(held_record(process, key.encode()) for process in others)
    scene.run(40.0)
    me = scene.process(4).me
    assert all(mark_of(scene.node(index).cluster.value, me) for index in range(4))
    assert not any(node.hints.rows for _, node in scene.world.nodes())
    assert not any(held_record(process, key.encode()) for process in others)
    scene.process(4).restart()
    scene.run(0.5)
    scene.wait_for_rest()
    scene.run(3.0)
    assert [scene.ask(index, f"GET {key}", f"GET {kept}") for index in range(5)] == [[None, b"kept"]] * 5
    assert not marked_nodes(scene.node(0).cluster.value)
    assert scene.process(4).incarnation == 3
    assert [held_record(scene.process(index), key.encode()) for index in range(5)] == [b""] * 5
    assert check_replicas(scene.world) == []


@pytest.mark.parametrize("max_downtime_s", [30, 600])
def test_what_is_to_be_set_aside_is_not_copied_by_another_node_that_is_rebuilt(max_downtime_s: int) -> None:
    # It waited for the one that was away, and copied from it what everybody else had deleted and forgotten.
    scene = Scene(nodes=5, directives={**FIVE, "max-downtime": str(max_downtime_s), "tombstone-grace": "5"}, sync_s=(0.3, 0.5))
    key = scene.key_of(primary=4)
    _, lost, other = [process.index for process in scene.world.primaries(key.encode())]
    assert scene.ask(0, f"SET {key} old") == [b"OK"]
    scene.wait_for_rest()
    scene.process(4).kill()
    scene.run(10.0)
    if max_downtime_s > 60:
        # It has no reason to think so itself.
        assert scene.ask(other, f"RESPKV REBUILD {scene.process(4).me}") == [b"OK"]
    assert scene.ask(other, f"DEL {key}") == [1]
    scene.run(60.0)
    assert marked_nodes(scene.node(other).cluster.value) == {scene.process(4).me}
    assert not any(held_record(scene.process(index), key.encode()) for index in range(4))
    scene.process(lost).kill(wiped=True)
    scene.process(lost).restart()
    scene.run(3.0)
    assert scene.node(lost).rebuild.needed
    scene.process(4).restart()
    if max_downtime_s > 60:
        # It is asked before it has heard of it.
        cluster = scene.node(4).cluster
        adopt, cluster.adopt = cluster.adopt, lambda value: False  # type: ignore[method-assign]
        scene.run(1.0)
        cluster.adopt = adopt  # type: ignore[method-assign]
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(3.0)
    assert [scene.ask(index, f"GET {key}") for index in range(5)] == [[None]] * 5
    assert scene.process(4).incarnation == 3
    assert check_replicas(scene.world) == []


def test_a_cluster_that_slept_as_a_whole_sets_nothing_aside() -> None:
    scene = Scene(nodes=5, directives=FIVE)
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(2.0)
    for index in range(5):
        scene.process(index).kill(power_lost=True)
    scene.run(100.0)
    for index in range(5):
        scene.process(index).restart()
    scene.run(2.0)
    scene.wait_for_rest()
    assert not any(marked_nodes(node.cluster.value) for _, node in scene.world.nodes())
    assert [scene.ask(index, "GET k") for index in range(5)] == [[b"v"]] * 5
    assert [scene.process(index).incarnation for index in range(5)] == [2] * 5


def test_a_minority_marks_nobody() -> None:
    scene = Scene(nodes=5, directives=FIVE)
    scene.cut(*[(left, right) for left in (0, 1) for right in (2, 3, 4)], *[(left, right) for left in (2, 3, 4) for right in (0, 1)])
    scene.run(60.0)
    ids = [scene.process(index).me for index in range(5)]
    for index in (0, 1):
        assert not marked_nodes(scene.node(index).cluster.value)
    # Of two that share partitions one at most is marked: what both acknowledged may be nowhere else.
    marked = marked_nodes(scene.node(2).cluster.value)
    assert len(marked) <= 1
    assert marked <= set(ids[:2])


def test_an_operator_has_a_node_rebuilt() -> None:
    scene = Scene(nodes=5, directives=FIVE)
    keys = [f"k{number}" for number in range(30)]
    assert scene.ask(0, *(f"SET {key} v" for key in keys)) == [b"OK"] * 30
    scene.wait_for_rest()
    assert scene.ask(0, f"RESPKV REBUILD {scene.process(3).me}") == [b"OK"]
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(5.0)
    assert scene.process(3).incarnation == 2
    assert not marked_nodes(scene.node(0).cluster.value)
    assert [scene.ask(3, f"GET {key}") for key in keys] == [[b"v"]] * 30
    assert check_replicas(scene.world) == []


def test_n_goes_up_and_down_with_a_node_away_and_restarts() -> None:
    scene = Scene(nodes=5, directives={"replication-factor": "1", "sloppy-quorum": "no"})
    keys = [f"k{number}" for number in range(60)]
    written: dict[str, bytes] = {}

    def write(text: str) -> None:
        for index, key in enumerate(keys):
            reader = next(number for number in (index % 5, 0, 1, 2, 3, 4) if scene.process(number).node is not None)
            if scene.ask(reader, f"SET {key} {text}") == [b"OK"]:
                written[key] = text.encode()

    write("first")
    for n, victim in ((3, 1), (5, 2), (2, 4)):
        assert scene.ask(0, f"CONFIG SET replication-factor {n}") == [b"OK"]
        scene.run(0.15)
        scene.process(victim).kill()
        write(f"{n}-away")
        scene.run(4.0)
        # The one that was told dies, too, before the other is back.
        scene.process(0).kill()
        scene.run(1.0)
        scene.process(0).restart()
        scene.process(victim).restart()
        scene.run(1.0)
        write(f"{n}-back")
        scene.wait_for_rest()
        scene.run(2.5)
        assert [node.coordinator.quorum.n for _, node in scene.world.nodes()] == [n] * 5
        for key, value in written.items():
            assert [scene.ask(index, f"GET {key}") for index in range(5)] == [[value]] * 5
        assert [scene.ask(index, "DBSIZE") for index in range(5)] == [[len(written)]] * 5
        assert check_replicas(scene.world) + check_copies(scene.world) == []
    assert set(written) == set(keys)


def test_a_node_that_loses_its_data_after_it_was_filled_is_filled_again_before_it_counts() -> None:
    scene = Scene(nodes=5, directives={**FIVE, "write-quorum": "all", "read-quorum": "one"})
    keys = [f"k{number}" for number in range(60)]
    assert scene.ask(0, *(f"SET {key} v" for key in keys)) == [b"OK"] * 60
    assert scene.ask(0, "CONFIG SET replication-factor 4") == [b"OK"]
    scene.process(4).stop(20.0)
    scene.run(8.0)
    node = scene.node(1)
    resize = node.cluster.value.resize
    assert resize is not None
    assert stage_of(node.membership.application_value(node.me, RESIZE), resize) == (PREPARING, True)
    # As after a start that found damage: the small files are left.
    for partition, shard in enumerate(node.store.shards):
        shard.clear()
        node.store.live[partition] = 0
    node.rebuild.begin("the test took its data away")
    scene.run(5.0)
    assert node.coordinator.quorum.n == 3
    while node.coordinator.quorum.n == 3 or node.rebuild.needed:
        scene.run(0.01)
    table = node.coordinator.table
    assert table is not None
    lists = [table.preference(node.store.partition(key.encode())) for key in keys]
    mine = [key for key, preference in zip(keys, lists, strict=True) if node.me in preference[:4]]
    assert len([key for key, preference in zip(keys, lists, strict=True) if node.me == preference[3]]) > 3
    assert [key for key in mine if not node.store.get(key.encode())] == []


@pytest.mark.parametrize("stage", [PREPARING, SWITCHED, DROPPING])
def test_a_node_that_loses_all_while_n_falls_is_rebuilt(stage: int) -> None:
    scene = Scene(nodes=5, directives=FIVE)
    keys = [f"k{number}" for number in range(60)]
    assert scene.ask(0, *(f"SET {key} v" for key in keys)) == [b"OK"] * 60
    assert scene.ask(0, "CONFIG SET replication-factor 2") == [b"OK"]
    while (resize := scene.node(0).cluster.value.resize) is not None and resize.stage < stage:
        scene.run(0.01)
    assert resize is not None
    scene.process(4).stop(5.0)
    scene.process(1).kill(wiped=True)
    scene.process(1).restart()
    scene.run(10.0)
    scene.wait_for_rest()
    scene.run(2.0)
    assert [node.coordinator.quorum.n for _, node in scene.world.nodes()] == [2] * 5
    assert [scene.ask(1, f"GET {key}") for key in keys] == [[b"v"]] * 60
    assert check_replicas(scene.world) + check_copies(scene.world) == []


def test_a_node_that_was_cut_off_for_too_long_starts_again_by_itself() -> None:
    scene = Scene(nodes=5, directives=FIVE)
    key = scene.key_of(primary=4)
    assert scene.ask(0, f"SET {key} old") == [b"OK"]
    scene.wait_for_rest()
    pairs = [pair for other in range(4) for pair in ((4, other), (other, 4))]
    scene.cut(*pairs)
    scene.run(8.0)
    assert scene.ask(0, f"DEL {key}") == [1]
    scene.run(40.0)
    for index in range(4):
        store = scene.node(index).store
        store.forget(store.partition(key.encode()), key.encode())
        scene.node(index).hints.forget_all()
    assert held_record(scene.process(4), key.encode())
    scene.mend(*pairs)
    # Whatever it offers before it knows is not taken.
    scene.run(2.0)
    scene.wait_for_rest()
    scene.run(3.0)
    assert scene.process(4).incarnation == 2
    assert [scene.ask(index, f"GET {key}") for index in range(5)] == [[None]] * 5
    assert [held_record(scene.process(index), key.encode()) for index in range(5)] == [b""] * 5


def test_nobody_is_marked_whose_writes_may_be_nowhere_else() -> None:
    scene = Scene(nodes=5, directives={**FIVE, "write-quorum": "one"})
    scene.process(4).kill()
    scene.run(60.0)
    assert not marked_nodes(scene.node(0).cluster.value)
    (refused,) = scene.ask(0, f"RESPKV REBUILD {scene.process(4).me}")
    assert str(refused).startswith("ERR of some keys 2 other replicas are left, and 3 are needed")


def with_remains_of_damage(scene: Scene, index: int, key: str) -> None:
    """A node finds a value that was deleted, and forgotten by all, when its log is read after it was damaged."""
    node = scene.node(index)
    old = records.string(b"old", stamp=(node.context.turn.wall_ms - 60_000) << 16, actor=b"long ago")
    node.store.merge(node.store.partition(key.encode()), key.encode(), old)
    node.rebuild.begin("the log is damaged", is_damaged=True)


def test_what_damage_has_left_brings_nothing_back() -> None:
    scene = Scene(nodes=5, directives=FIVE)
    key, kept = scene.key_of(primary=4), scene.key_of(primary=0)
    assert scene.ask(0, f"SET {kept} kept") == [b"OK"]
    scene.wait_for_rest()
    with_remains_of_damage(scene, 4, key)
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(90.0)
    assert [scene.ask(index, f"GET {key}", f"GET {kept}") for index in range(5)] == [[None, b"kept"]] * 5
    assert not marked_nodes(scene.node(0).cluster.value)
    assert check_replicas(scene.world) == []


def test_what_damage_has_left_is_not_copied_by_another_node_where_others_have_all() -> None:
    scene = Scene(nodes=5, directives={**FIVE, "write-quorum": "all", "read-quorum": "one"})
    key, kept = scene.key_of(primary=4), scene.key_of(primary=0)
    lost = scene.world.primaries(key.encode())[1]
    assert scene.ask(0, f"SET {kept} kept") == [b"OK"]
    scene.wait_for_rest()
    lost.kill(wiped=True)
    with_remains_of_damage(scene, 4, key)
    lost.restart()
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(90.0)
    assert [scene.ask(index, f"GET {key}", f"GET {kept}") for index in range(5)] == [[None, b"kept"]] * 5
    assert check_replicas(scene.world) == []


@pytest.mark.parametrize("more", [{}, {"write-quorum": "one"}])
def test_what_damage_has_left_is_kept_where_it_may_be_all_there_is(more: dict[str, str]) -> None:
    """All are damaged at once, or what was acknowledged need not be anywhere else."""
    scene = Scene(nodes=3, directives={**FIVE, **more})
    for index in range(3) if not more else [1]:
        with_remains_of_damage(scene, index, "k")
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(90.0)
    assert not marked_nodes(scene.node(0).cluster.value)
    assert [scene.process(index).incarnation for index in range(3)] == [1] * 3
    assert [scene.ask(index, "GET k") for index in range(3)] == [[b"old"]] * 3


def test_nobody_is_marked_while_a_co_replica_lacks_data() -> None:
    """What both acknowledged may be on the disk of the one that is away, and nowhere else."""
    scene = Scene(nodes=3, directives=FIVE)
    scene.cut((0, 2), (2, 0))
    assert scene.ask(1, "SET k v") == [b"OK"]
    scene.wait_for_rest()
    store = scene.node(2).store
    store.forget(store.partition(b"k"), b"k")
    scene.process(1).kill()
    scene.process(0).kill(wiped=True)
    scene.mend((0, 2), (2, 0))
    scene.process(0).restart()
    scene.run(60.0)
    assert not marked_nodes(scene.node(0).cluster.value) | marked_nodes(scene.node(2).cluster.value)
    (refused,) = scene.ask(2, f"RESPKV REBUILD {scene.process(1).me}")
    assert str(refused).startswith("ERR of some keys 1 other replicas are left, and 2 are needed")
    scene.process(1).restart()
    scene.run(3.0)
    scene.wait_for_rest()
    assert [scene.ask(index, "GET k") for index in range(3)] == [[b"v"]] * 3


def test_each_side_of_a_cut_does_not_have_a_node_of_the_other_side_rebuilt() -> None:
    """Both who had acknowledged a write set it aside, and the third replica had missed it."""
    scene = Scene(nodes=3, directives=FIVE)
    scene.process(2).kill()
    scene.run(5.0)
    assert scene.ask(0, "SET k v") == [b"OK"]
    cut = [(0, 1), (1, 0), (0, 2), (2, 0)]
    scene.cut(*cut, (1, 2), (2, 1))
    scene.process(2).restart()
    scene.run(10.0)
    refused = scene.ask(0, f"RESPKV REBUILD {scene.process(1).me}") + scene.ask(1, f"RESPKV REBUILD {scene.process(0).me}")
    scene.mend(*cut, (1, 2), (2, 1))
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(5.0)
    assert [scene.ask(index, "GET k") for index in range(3)] == [[b"v"]] * 3
    assert all(str(reply).startswith("ERR this node does not see more than half of the members") for reply in refused)


def test_of_two_nodes_that_are_to_be_rebuilt_at_the_same_moment_one_is() -> None:
    """Two nodes that had not heard of each other's mark let both set aside what they had acknowledged."""
    scene = Scene(nodes=3, directives=FIVE)
    replies: list[bytes] = []
    for asked, other in ((0, 1), (1, 0)):
        node = scene.node(asked)
        node.operations.start(node.downtime.mark(scene.process(other).me), on_done=replies.append)
    scene.run(3.0)
    assert sorted(reply[:4] for reply in replies) == [b"+OK\r", b"-ERR"], replies
    scene.wait_for_rest()
    scene.run(5.0)
    assert sorted(scene.process(index).incarnation for index in range(3)) == [1, 1, 2]


def test_a_node_is_marked_once() -> None:
    """A second mark would have it set aside what it has just copied, and with it lose what was set aside before."""
    scene = Scene(nodes=5, directives=FIVE)
    assert scene.ask(0, f"RESPKV REBUILD {scene.process(3).me}") == [b"OK"]
    (refused,) = scene.ask(0, f"RESPKV REBUILD {scene.process(3).me}")
    assert str(refused).startswith("ERR it is marked already")
    scene.run(3.0)
    scene.wait_for_rest()
    scene.run(5.0)
    assert scene.process(3).incarnation == 2
    assert scene.ask(0, f"RESPKV REBUILD {scene.process(3).me}") == [b"OK"]


def test_how_long_others_have_been_away_outlives_a_restart() -> None:
    scene = Scene(nodes=5, directives={**FIVE, "max-downtime": "100"})
    scene.process(4).kill()
    scene.run(70.0)
    for index in range(4):
        scene.process(index).kill()
        scene.process(index).restart()
        scene.run(5.0)
    scene.run(40.0)
    assert marked_nodes(scene.node(0).cluster.value) == {scene.process(4).me}


def test_a_node_that_is_marked_while_it_rebuilds_begins_anew() -> None:
    # It asked to be woken at once, again and again, until the mark was on its disk.
    scene = Scene(nodes=5, directives=FIVE, sync_s=(0.3, 0.5))
    keys = [f"k{number}" for number in range(30)]
    assert scene.ask(0, *(f"SET {key} v" for key in keys)) == [b"OK"] * 30
    scene.wait_for_rest()
    scene.process(3).kill(wiped=True)
    scene.run(0.1)
    scene.process(3).restart()
    # It has nobody to copy from yet.
    scene.cut(*[(3, other) for other in (1, 2, 4)])
    scene.run(2.0)
    assert scene.node(3).rebuild.needed
    scene.send(0, f"RESPKV REBUILD {scene.process(3).me}")
    scene.run(2.0)
    scene.mend(*[(3, other) for other in (1, 2, 4)])
    scene.run(5.0)
    scene.wait_for_rest()
    scene.run(3.0)
    assert scene.process(3).incarnation == 3
    assert not marked_nodes(scene.node(0).cluster.value)
    assert [scene.ask(3, f"GET {key}") for key in keys] == [[b"v"]] * 30


def test_a_node_on_hold_goes_on_when_nobody_is_ever_to_be_rebuilt() -> None:
    scene = Scene(nodes=2, directives={"max-downtime": "30"})
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(2.0)
    for index in range(2):
        scene.process(index).kill()
    scene.run(100.0)
    scene.process(0).restart()
    scene.run(10.0)
    assert scene.node(0).rebuild.is_held
    scene.send(0, "CONFIG SET max-downtime 0")
    scene.run(10.0)
    assert not scene.node(0).rebuild.is_held


@pytest.mark.parametrize("protocol", ["gossip", "broadcast"])
def test_one_broken_path_marks_nobody(protocol: str) -> None:
    # Who marks could not reach it, everybody else did: a healthy replica set aside all that it held, again and again.
    scene = Scene(nodes=3, directives={"max-downtime": "20", "membership-protocol": protocol})
    leader, other, third = sorted(range(3), key=lambda index: scene.process(index).me)
    assert scene.ask(third, "SET k v") == [b"OK"]
    scene.cut((leader, other), (other, leader))
    scene.run(60.0)
    assert scene.ask(other, "GET k", "SET k w") == [b"v", b"OK"]
    assert not any(marked_nodes(node.cluster.value) for _, node in scene.world.nodes())
    # Nor does the time count once nobody reaches it.
    scene.process(other).kill()
    scene.run(15.0)
    assert not any(marked_nodes(node.cluster.value) for _, node in scene.world.nodes())
    scene.run(20.0)
    assert [len(marked_nodes(node.cluster.value)) for _, node in scene.world.nodes()] == [1, 1]


@pytest.mark.parametrize("restarts", [False, True])
def test_copies_of_a_change_of_n_that_another_change_has_overruled_are_dropped(*, restarts: bool) -> None:
    """They stayed for ever, and with them every deletion of their keys."""
    scene = Scene(nodes=5, directives={"replication-factor": "3", "tombstone-grace": "5"})
    keys = [f"k{number}" for number in range(60)]
    cut = [(left, right) for left in (0, 1, 2) for right in (3, 4)]
    cut += [(right, left) for left, right in cut]
    scene.cut(*cut)
    scene.run(10.0)
    assert scene.ask(0, "CONFIG SET replication-factor 4") == [b"OK"]
    assert scene.ask(0, *(f"SET {key} v" for key in keys)) == [b"OK"] * len(keys)
    assert scene.ask(3, "CONFIG SET max-siblings 50") == [b"OK"]
    scene.mend(*cut)
    scene.run(3.0)
    for process in scene.world.processes[: 3 if restarts else 0]:
        process.kill()
        process.restart()
        scene.run(3.0)
    scene.wait_for_rest()
    assert [node.coordinator.quorum.n for _, node in scene.world.nodes()] == [3] * 5
    scene.run(30.0)
    assert check_replicas(scene.world) + check_copies(scene.world) == []
    assert scene.ask(4, *(f"DEL {key}" for key in keys)) == [1] * len(keys)
    scene.run(30.0)
    assert [sum(map(len, node.store.remains)) for _, node in scene.world.nodes()] == [0] * 5


def test_a_copy_for_which_there_was_no_room_for_a_row_is_not_put_into_the_log_again() -> None:
    scene = Scene(nodes=4, directives={"max-hints-size": "1", "write-quorum": "all", "anti-entropy-interval": "0"})
    key = scene.key_of(primary=0, without=3)
    scene.process(1).kill()
    scene.run(3.0)
    # One who is asked does not answer, so the write is in flight when memory goes to the tables, and its log with it.
    scene.cut((3, 2))
    scene.send(3, f"SET {key} v")
    scene.run(0.1)
    assert not held_record(scene.process(3), key.encode())
    scene.node(3).freeze_soon()
    scene.run(0.3)
    assert len(scene.node(3).coordinator.writes) == 1
    assert not any(key.encode() in body for _, body in scene.process(3).disk.log)
