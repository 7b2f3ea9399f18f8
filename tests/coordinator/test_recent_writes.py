"""Since when a node has held what is young, and that nothing of it grows without a bound."""

from __future__ import annotations

import pytest

from respkv.coordinator import recent_writes
from respkv.coordinator.recent_writes import LINES_MIN, RecentWrites

A, B = b"actor--a", b"actor--b"


def version(stamp: int, actor: bytes = A) -> bytes:
    return stamp.to_bytes(8) + actor


def pairs(*versions: bytes) -> list[bytes]:
    return [word for found in versions for word in (b"k", found + b"\x01sv")]


def test_what_came_in_a_batch_of_one_coordinator() -> None:
    recent = RecentWrites()
    recent.note(pairs(version(10), version(11), version(14)), 1.0)
    recent.note(pairs(version(20, B)), 1.1)
    recent.note(pairs(version(21)), 1.2)
    expected = {version(10): 1.0, version(14): 1.0, version(20, B): 1.1, version(21): 1.2}
    assert {found: recent.came(found, 1.3) for found in expected} == expected
    for other in (version(9), version(15), version(22), version(20), version(19, B), version(10, b"nobody--")):
        assert recent.came(other, 1.3) is None


def test_batches_of_one_turn_overlap() -> None:
    recent = RecentWrites()
    recent.note(pairs(version(10), version(19)), 1.0)
    recent.note(pairs(version(11), version(12)), 1.0)
    recent.note(pairs(version(30)), 1.5)
    assert [recent.came(version(stamp), 1.6) for stamp in (10, 12, 19, 30, 20)] == [1.0, 1.0, 1.0, 1.5, None]


def test_versions_of_several_coordinators_and_those_behind_later_ones_are_known_one_by_one() -> None:
    recent = RecentWrites()
    recent.note(pairs(version(30)), 1.0)
    recent.note(pairs(version(10), version(40, B)), 1.1)
    recent.note(pairs(version(20)), 1.2)
    recent.note(pairs(version(20)), 1.3)
    found = [recent.came(each, 1.4) for each in (version(30), version(10), version(40, B), version(20), version(15))]
    assert found == [1.0, 1.1, 1.1, 1.2, None]


def test_what_comes_once_more_has_been_here_since_the_first_time() -> None:
    recent = RecentWrites()
    recent.note(pairs(version(10), version(14)), 1.0)
    recent.note(pairs(version(30)), 1.1)
    recent.note_copies(pairs(version(14)), 1.2, held=lambda _: b"")
    recent.note_copies(pairs(version(5)), 1.3, held=lambda _: b"")
    recent.note(pairs(version(31), version(5)), 1.9)
    recent.note_copies(pairs(version(5)), 2.0, held=lambda _: b"")
    assert [recent.came(version(stamp), 2.0) for stamp in (14, 5)] == [1.0, 1.3]


def test_copies_tell_nothing_of_what_lies_between_them_or_is_here_already() -> None:
    recent = RecentWrites()
    recent.note_copies(pairs(version(10), version(14)), 1.0, held=lambda _: version(14) + b"\x01sv")
    assert [recent.came(version(stamp), 1.0) for stamp in (10, 12, 14)] == [1.0, None, None]


def test_what_came_long_ago_is_forgotten() -> None:
    recent = RecentWrites()
    recent.note(pairs(version(1)), 1.0)
    recent.note(pairs(version(2), version(3, B)), 1.0)
    assert [recent.came(each, 2.0) for each in (version(1), version(2))] == [1.0, 1.0]
    assert [recent.came(each, 2.1) for each in (version(1), version(2))] == [None, None]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "VERSIONS_MAX", 10)
    recent = RecentWrites()
    for number in range(10 * LINES_MIN):
        recent.note(pairs(version(number)), float(number))
        recent.note(pairs(version(number, B), version(number)), number / 1000)
    assert len(recent._lines[A].came) <= LINES_MIN
    assert len(recent._single) + len(recent._before) <= 2 * 12 + 2
    recent.kept_s = 0.1
    recent.note(pairs(version(1, B), version(1)), 1e6)
    assert recent._lines == {}
