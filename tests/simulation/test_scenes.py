"""What seeds have found, each as a scene of its own: the sentence says what went wrong before."""

from __future__ import annotations

from respkv.simulation.copies import check_copies, check_leftovers, check_replicas
from tests.simulation.scene import Scene

STRICT = {"sloppy-quorum": "no"}
ROUND_THE_CLOCK = {"request-timeout": "1000", "speculative-retry": "0"}


def both_ways(one: int, other: int) -> list[tuple[int, int]]:
    return [(one, other), (other, one)]


def test_the_second_of_two_sets_in_one_packet_wins_over_what_is_newer_by_the_clock() -> None:
    # The replica's clock is ahead, so its version wins over the first SET, which was sent again with a stamp above the second's.
    scene = Scene(nodes=3, directives=STRICT)
    scene.cut(*both_ways(0, 1), (2, 1))
    scene.skew(0, 1000.0)
    assert scene.ask(0, "SET k newer-by-the-clock") == [b"OK"]
    scene.mend(*both_ways(0, 1), (2, 1))
    assert scene.ask(1, "SET k first", "SET k second") == [b"OK", b"OK"]
    assert scene.ask(2, "GET k") == [b"second"]


def test_a_get_behind_a_set_in_one_packet_sees_it_although_another_version_has_a_later_stamp() -> None:
    # The GET was answered by a quorum in which the other version won, before the SET was sent again above it.
    scene = Scene(nodes=3, directives=STRICT)
    scene.cut(*both_ways(0, 1), (2, 1))
    scene.skew(0, 1000.0)
    assert scene.ask(0, "SET k newer-by-the-clock") == [b"OK"]
    scene.mend(*both_ways(0, 1), (2, 1))
    assert scene.ask(1, "SET k mine", "GET k") == [b"OK", b"mine"]


def test_read_repair_gives_a_stand_in_no_copy_to_keep() -> None:
    # It answered for a primary that was away, was repaired like one, and kept its copy for ever.
    scene = Scene(nodes=4)
    key = scene.key_of(primary=0, without=3)
    assert scene.ask(3, f"SET {key} v") == [b"OK"]
    scene.process(0).kill()
    scene.process(1).kill()
    scene.run(3.0)
    assert scene.ask(3, f"GET {key}") == [b"v"]
    scene.process(0).restart()
    scene.process(1).restart()
    scene.wait_for_rest()
    assert check_copies(scene.world) == []


def test_a_write_in_flight_outlives_the_log_that_a_freeze_drops() -> None:
    # The tail of the log that a restart sends to the other replicas went with the segments before the freeze.
    scene = Scene(nodes=3, directives={"write-quorum": "one", "read-quorum": "one", **ROUND_THE_CLOCK})
    scene.cut((0, 1), breaks=True)
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.node(0).freeze_soon()
    scene.run(0.3)
    assert scene.process(0).disk.log_start > 0
    scene.process(0).kill()
    scene.mend((0, 1), breaks=True)
    scene.process(0).restart()
    scene.wait_for_rest()
    assert check_replicas(scene.world) == []


def test_del_of_several_keys_tells_of_a_refusal_only_if_nothing_was_done() -> None:
    # One primary had deleted its key, another one refused, and "nothing was done" was the answer.
    scene = Scene(nodes=3, directives={**STRICT, "read-quorum": "one", "write-quorum": "all"})
    mine, theirs = scene.key_of(primary=0), scene.key_of(primary=1)
    assert scene.ask(0, f"SET {mine} 1", f"SET {theirs} 1") == [b"OK", b"OK"]
    # Node 1 has no link to node 2, and node 0 does not know.
    scene.cut((1, 2), breaks=True)
    scene.world.network.reset(scene.process(1), scene.process(2))
    scene.run(0.01)
    (reply,) = scene.ask(0, f"DEL {mine} {theirs}")
    assert str(reply).startswith("TIMEOUT done for some of the keys and refused for others: NOQUORUM")
    assert scene.ask(0, f"GET {mine}") == [None]


def test_a_command_that_waits_for_others_on_its_key_is_refused_in_time() -> None:
    # Each waited for those before it, and every one of those took its time to time out.
    scene = Scene(nodes=3, directives={"read-quorum": "all", "write-quorum": "one", **ROUND_THE_CLOCK})
    key = scene.key_of(primary=0)
    scene.process(2).stop(10.0)
    replies = [scene.send(0, f"INCR {key}") for _ in range(4)]
    scene.run(2.2)
    assert {str(reply[0]).split()[0] for reply in map(scene.replies, replies)} == {"TIMEOUT", "BUSY"}


def test_a_new_node_has_copied_what_it_lacks_within_a_moment() -> None:
    # It asked those who had no link to it yet, and waited five seconds for answers that were lost.
    scene = Scene(nodes=3)
    assert scene.ask(0, *(f"SET k{number} v" for number in range(50))) == [b"OK"] * 50
    scene.process(1).kill(wiped=True)
    scene.run(2.0)
    scene.process(1).restart()
    started = scene.world.schedule.now
    while scene.node(1).rebuild.needed:
        scene.run(0.05)
    assert scene.world.schedule.now - started < 2.0
    scene.wait_for_rest()
    assert check_replicas(scene.world) == []


def test_a_key_that_leaves_memory_while_its_neighbours_are_loaded_is_still_read() -> None:
    # MGET had found it in memory, waited for the others alone, and answered nil.
    scene = Scene(nodes=3, directives={"maxmemory": "2000", "read-quorum": "one", "write-quorum": "all"}, read_s=(0.05, 0.05))
    keys = [f"k{number}" for number in range(40)]
    assert scene.ask(0, *(f"SET {key} {'x' * 100}" for key in keys)) == [b"OK"] * 40
    scene.node(0).freeze_soon()
    scene.run(1.0)
    assert not scene.node(0).store.resident
    for number in range(20):
        warm, cold = keys[number], keys[number + 20]
        assert scene.ask(0, f"GET {warm}") == [b"x" * 100]
        # These are loaded while MGET waits, and push out what nobody waits for.
        others = scene.send(0, *(f"GET {key}" for key in keys if key not in {warm, cold}))
        scene.run(0.02)
        assert scene.ask(0, f"MGET {warm} {cold}") == [[b"x" * 100, b"x" * 100]]
        scene.run(0.2)
        assert set(scene.replies(others)) == {b"x" * 100}


def test_a_guest_copy_does_not_outlive_its_hint_row_in_a_power_cut() -> None:
    # The row's end was in the log, the copy's was behind it and lost.
    scene = Scene(nodes=4)
    key = scene.key_of(primary=0, without=3)
    for survivors in (1, 2, 3):
        scene.process(0).kill()
        scene.run(3.0)
        assert scene.ask(3, f"SET {key} v{survivors}") == [b"OK"]
        scene.process(0).restart()
        scene.wait_for_rest()
        kinds = [kind for kind, _ in scene.process(3).disk.log]
        assert kinds.index(5) < kinds.index(3), "the copy's end comes first"
        assert check_copies(scene.world) == []


def test_one_stand_in_keeps_hints_for_all_primaries_when_no_other_is_left() -> None:
    # It kept one for the first primary alone: the others never got the record.
    scene = Scene(nodes=5, directives={"write-quorum": "one", "read-quorum": "one"})
    key = scene.key_of(primary=1, without=4)
    for index in range(4):
        scene.process(index).kill()
    scene.run(4.0)
    assert scene.ask(4, f"SET {key} v") == [b"OK"]
    for index in range(4):
        scene.process(index).restart()
    scene.wait_for_rest()
    assert check_replicas(scene.world) == []
    assert check_copies(scene.world) == []


def test_a_node_that_was_cut_off_counts_what_it_wrote_since_flushall_wherever_it_is() -> None:
    # What had left memory before it learnt of the floor was not counted any more.
    scene = Scene(nodes=3, directives={"maxmemory": "4000", "read-quorum": "one", "write-quorum": "one"})
    assert scene.ask(0, *(f"SET old{number} {'x' * 50}" for number in range(50))) == [b"OK"] * 50
    scene.cut(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(8.0)
    assert scene.ask(0, "FLUSHALL") == [b"OK"]
    scene.run(1.0)
    assert scene.ask(2, *(f"SET new{number} {'x' * 50}" for number in range(50))) == [b"OK"] * 50
    scene.node(2).freeze_soon()
    scene.run(1.0)
    store = scene.node(2).store
    assert not store.resident
    assert sum(len(shard) for shard in store.shards) < 50
    scene.mend(*both_ways(0, 2), *both_ways(1, 2))
    scene.wait_for_rest()
    assert check_leftovers(scene.world) == []
    assert scene.ask(2, "DBSIZE") == [50]


def test_a_stand_in_copy_of_a_cold_key_outlives_a_freeze_before_its_key_was_loaded() -> None:
    # It was in the log before it was merged: the freeze dropped it from the one and did not find it in the other.
    scene = Scene(nodes=4, directives={"maxmemory": "100mb", "anti-entropy-interval": "0"}, read_s=(0.02, 0.02))
    key = next(f"k{number}" for number in range(10_000) if scene.process(0) not in scene.world.primaries(b"k%d" % number))
    owners = [process.index for process in scene.world.primaries(key.encode())]
    cuts = [pair for owner in owners[1:] for pair in both_ways(0, owner)]
    scene.node(0).store.resident = False
    scene.cut(*cuts)
    writer = scene.send(0, f"SET {key} acknowledged")
    while not scene.node(0).hints.rows:
        scene.run(0.0002)
    scene.node(0).freeze_soon()
    while scene.replies(writer) == [None]:
        scene.run(0.001)
    assert scene.replies(writer) == [b"OK"]
    scene.run(0.3)
    scene.process(0).kill()
    scene.run(0.1)
    scene.process(0).restart()
    scene.process(owners[0]).kill(power_lost=True)
    scene.mend(*cuts)
    scene.run(15.0)
    assert scene.node(0).hints.statistics.dropped["forgotten"] == 0
    assert scene.ask(owners[1], f"GET {key}") == [b"acknowledged"]
