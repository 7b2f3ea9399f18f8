"""Long values take their time: whoever carries them is not slow for it, and is not sent them a second time because of it."""

from __future__ import annotations

from respkv.transport.bounds import LONG_BYTES_PER_S, transfer_s
from tests.coordinator.lab import Lab, node_id, wire_key

SIZE = LONG_BYTES_PER_S // 4


class LongLab(Lab):
    """A lab whose values are long: of what happens, only the heads are kept."""

    def happened(self, line: str) -> list[str]:
        self.run(line)
        out, self.out = [text[:40].partition("=x")[0] for text in self.out], []
        return out

    def late(self) -> list[str]:
        """Who is said to be late from now on."""
        told: list[str] = []
        self.coordinator.on_late = lambda peer: told.append(peer[0])
        return told


def test_how_long_what_is_long_takes() -> None:
    assert transfer_s(1000) == 0.0
    assert transfer_s(SIZE) == 0.25


def test_nobody_stands_in_for_those_who_take_in_what_is_long_before_its_time_has_passed() -> None:
    lab = LongLab(w="3")
    late = lab.late()
    assert lab.happened(f"c1 set k {'x' * SIZE}") == ["log writes k", "-> b #1 write k", "-> c #1 write k"]
    assert lab.happened("wait 100") == []
    assert lab.happened("b ack 1") == []
    due = lab.coordinator.next_due()
    assert due is not None
    assert lab.turn.now < due < lab.turn.now + 0.25
    assert not late
    assert lab.happened("wait 250") == ["-> d #2 stand-in for c k"]
    assert late == ["c"]


def test_what_is_long_and_short_are_watched_apart() -> None:
    lab = LongLab(w="3")
    lab.happened(f"c1 set k {'x' * SIZE}")
    lab.happened("c2 set k5 v")
    assert lab.happened("wait 60") != []
    assert lab.happened("b ack 1 ; c ack 1") == ["c1 +OK"]
    lab.happened("wait 300")
    assert lab.coordinator.statistics.speculative_writes_total == 2


def test_nobody_else_is_asked_for_what_is_long_before_its_time_has_passed() -> None:
    lab = LongLab()
    lab.happened(f"hold k {'x' * SIZE}@5")
    assert lab.happened("c1 get k") == ["-> b #1 read k"]
    assert lab.happened("wait 100") == []
    assert lab.happened("wait 250") == ["-> c #1 read k"]


def test_what_is_long_does_not_make_a_slow_write_usual() -> None:
    lab = LongLab(w="3", sloppy="no")
    lab.happened(f"c1 set k {'x' * SIZE}")
    lab.happened("wait 500")
    assert lab.happened("b ack 1 ; c ack 1") == ["c1 +OK"]
    lab.happened("c1 set k v")
    lab.happened("wait 100")
    assert lab.happened("b newer 2 0:50") == []
    assert lab.coordinator.statistics.resends_total == 0


def test_a_long_write_that_is_late_is_told_to_be_under_way() -> None:
    lab = LongLab(w="3", sloppy="no")
    told = []
    lab.coordinator.on_long_hinted = lambda peer, sequence, pairs: told.append((peer[0], sequence, pairs[0]))
    lab.happened(f"c1 set k {'x' * SIZE}")
    lab.happened("b ack 1")
    lab.happened("wait 1000")
    assert told == [("c", 1, wire_key("k"))]
    lab.happened("c1 set k v")
    lab.happened("wait 1000")
    assert len(told) == 1


def test_a_long_repair_for_which_nobody_waits_does_not_go_where_much_is_on_its_way() -> None:
    lab = LongLab()
    lab.happened("read-repair async")
    lab.happened(f"hold k {'x' * SIZE}@5")
    lab.turn.backlog[node_id("b")] = SIZE
    assert lab.happened("c1 get k") == ["-> b #1 read k"]
    assert not [line for line in lab.happened("b records 1 v@4") if "repair" in line]
    del lab.turn.backlog[node_id("b")]
    lab.happened("c1 get k")
    assert "-> c #0 repair k" in lab.happened("c records 2 v@4")


def test_a_long_repair_for_which_somebody_waits_has_its_time() -> None:
    lab = LongLab()
    late = lab.late()
    lab.happened(f"hold k {'x' * SIZE}@5")
    lab.happened("c1 get k")
    assert lab.happened("b records 1 v@4") == ["-> b #2 repair k"]
    assert lab.happened("wait 100") == []
    assert not late
    assert lab.happened("wait 250") == ["-> c #2 repair k"]
