"""Marks in the log: what lies behind the last confirmed one is sent again after a crash."""

from __future__ import annotations

from respkv.repair.confirmation import INTERVAL_S, LOG_CONFIRMED, LOG_MARK, Confirmation


def test_a_mark_is_confirmed_when_all_that_began_before_it_is() -> None:
    marks = Confirmation(0.0)
    marks.wrote()
    assert marks.tick(now=0.5, turn_number=5, oldest_in_flight=None) == []
    assert marks.tick(now=1.0, turn_number=10, oldest_in_flight=7) == [(LOG_MARK, (1).to_bytes(8))]
    marks.wrote()
    # What began in turn 7 is still on its way.
    assert marks.tick(now=2.0, turn_number=20, oldest_in_flight=7) == [(LOG_MARK, (2).to_bytes(8))]
    # What began in the very turn of a mark was not covered by it.
    assert marks.tick(now=3.0, turn_number=30, oldest_in_flight=10) == []
    assert marks.tick(now=4.0, turn_number=40, oldest_in_flight=11) == [(LOG_CONFIRMED, (1).to_bytes(8))]
    assert marks.tick(now=5.0, turn_number=50, oldest_in_flight=None) == [(LOG_CONFIRMED, (2).to_bytes(8))]


def test_the_last_of_several_says_it_for_all() -> None:
    marks = Confirmation(0.0)
    for second in range(1, 4):
        marks.wrote()
        marks.tick(now=second * INTERVAL_S, turn_number=second, oldest_in_flight=0)
    assert marks.tick(now=9.0, turn_number=9, oldest_in_flight=None) == [(LOG_CONFIRMED, (3).to_bytes(8))]


def test_an_idle_node_writes_no_marks() -> None:
    marks = Confirmation(0.0)
    assert all(marks.tick(now=float(second), turn_number=second, oldest_in_flight=None) == [] for second in range(20))
