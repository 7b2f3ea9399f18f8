"""What this node stores itself while it coordinates, of keys that have left memory: nothing is logged for good before it is merged.

A freeze that falls in between drops what was logged by then, and takes to the tables what was merged by then.
"""

from __future__ import annotations

from tests.coordinator.lab import Lab, version, wire_key


def cold_lab(letters: str, **options: str) -> Lab:
    """A node whose memory holds nothing of what its tables have."""
    lab = Lab(letters, **options)
    lab.store.resident = False
    lab.store.bound(1)
    return lab


def told(lab: Lab, line: str) -> list[str]:
    """What one turn brings."""
    lab.out.clear()
    lab.run(line)
    return lab.out


def load(lab: Lab, text: str, line: str) -> list[str]:
    """What it brings that the tables have told, and the turn in which they do."""
    lab.out.clear()
    lab.parking.loaded(1, [version(text)])
    lab.run(line)
    return lab.out


def drop_from_memory(lab: Lab, key: str) -> None:
    """A freeze takes it to the tables, and memory is full."""
    lab.store.bound(1)
    list(lab.store.freeze(1, []).batches())
    lab.store.flushed(1)
    lab.store.evict(0, keep=lab.parking.keys, partitions_max=16)
    assert lab.store.cold([wire_key(key)])


def test_this_node_counts_as_a_stand_in_once_the_copy_is_merged_and_logged() -> None:
    lab = cold_lab("abcd")
    lab.run("c1 set k1 v")
    assert told(lab, "b ack 1 ; c closes") == ["log hints c k1=v@101", "load 1 k1"]
    assert load(lab, "-", "state") == ["c1 +OK", "reads=0 writes=1 waiting=0 hints=c:k1", "log hints c k1=v@101"]


def test_a_hint_beside_the_quorum_is_logged_with_its_record() -> None:
    lab = cold_lab("abcd", w="1")
    lab.run("c1 set k1 v")
    lab.run("b ack 1 ; d ack 1")
    assert told(lab, "wait 1000") == ["log hints c k1=v@101", "load 1 k1"]
    assert load(lab, "-", "held k1") == ["held k1=v@101", "log hints c k1=v@101"]


def test_a_read_repair_of_this_node_counts_once_it_is_merged_and_logged() -> None:
    lab = Lab("abc", sloppy="no")
    lab.run("hold k v@5")
    lab.run("c1 get k")
    drop_from_memory(lab, "k")
    assert told(lab, "b records 1 w@6") == ["load 1 k"]
    assert load(lab, "v@5", "held k") == ["c1 $1 w", "held k=w@6", "log writes k=w@6"]


def test_a_read_repair_that_nobody_waits_for_is_logged_when_it_is_merged() -> None:
    lab = Lab("abc")
    lab.run("read-repair async")
    lab.run("hold k v@5")
    lab.run("c1 get k")
    drop_from_memory(lab, "k")
    assert told(lab, "b records 1 w@6") == ["c1 $1 w", "load 1 k"]
    assert load(lab, "v@5", "held k") == ["held k=w@6", "log writes k=w@6"]


def test_what_is_sent_again_under_a_later_stamp_is_logged_and_sent_when_it_is_merged() -> None:
    lab = Lab("abc")
    lab.run("c1 set k v")
    drop_from_memory(lab, "k")
    assert told(lab, "b newer 1 0") == ["load 1 k"]
    assert load(lab, "v@101", "held k") == ["held k=v@112", "log writes k=v@112", "-> b #2 write k=v@112", "-> c #2 write k=v@112"]
    assert told(lab, "b ack 2") == ["c1 +OK"]
