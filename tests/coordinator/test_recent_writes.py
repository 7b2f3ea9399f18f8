"""Since when a node has held what is young, and that nothing of it grows without a bound."""

from __future__ import annotations

import pytest

from respkv.coordinator import recent_writes
from respkv.coordinator.recent_writes import RecentWrites


def test_the_newest_version_that_came_counts_and_what_was_outdone_does_not() -> None:
    recent = RecentWrites()
    recent.note([b"k", b"1", b"m", b"1"], (), 1.0)
    recent.note([b"k", b"2", b"m", b"0"], (1,), 1.2)
    assert recent.came([b"k", b"m", b"other"], 1.3) == [1.2, 1.0, None]
    recent.note([b"m", b"2"], (), 1.4)
    assert recent.came([b"k", b"m"], 1.5) == [1.2, 1.4]


def test_what_came_long_ago_is_forgotten() -> None:
    recent = RecentWrites()
    recent.note([b"asked", b"1"], (), 1.0)
    assert recent.came([b"asked"], 1.5) == [1.0]
    recent.note([b"not asked", b"1"], (), 1.6)
    recent.note([b"k", b"1"], (), 3.0)
    assert recent.came([b"asked", b"not asked", b"k"], 3.0) == [1.0, None, 3.0]
    assert recent.came([b"asked", b"k"], 4.5) == [None, 3.0]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "KEYS_MAX", 10)
    recent = RecentWrites()
    for number in range(30):
        recent.note([b"%d" % number, b""], (), 1.0)
    assert sum(at is not None for at in recent.came([b"%d" % number for number in range(30)], 1.0)) == 10
