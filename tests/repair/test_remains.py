"""What may go of the past, and when."""

from __future__ import annotations

import pytest

from respkv.repair.remains import KEEP, REAP, SETTLE, is_ripe, plan, stamp_above
from respkv.versions import records, vectors
from respkv.versions.records import ABSENT

NOW_MS = 100_000
GRACE_MS = 5_000


def stamp(milliseconds: int) -> int:
    return milliseconds << 16


def string(value: str, at: int, *, actor: bytes = b"A" * 8, expires: int | None = None) -> bytes:
    return records.string(value.encode(), stamp=stamp(at), actor=actor, expire_at_ms=expires)


ONE, TWO = string("one", 10), string("two", 20, actor=b"B" * 8)
BOTH = vectors.merge(vectors.successor(ABSENT, ABSENT, ONE), vectors.successor(ABSENT, ABSENT, TWO))
RESOLVED = vectors.successor(BOTH, BOTH, string("last", 30))
DELETED = vectors.successor(BOTH, BOTH, records.tombstone(stamp=stamp(30), actor=b"A" * 8))
EXPIRED = string("v", 10, expires=NOW_MS - 1)
RECORDS = {
    "absent": (ABSENT, KEEP),
    "a value": (ONE, KEEP),
    "a deletion": (records.tombstone(stamp=1, actor=bytes(8)), REAP),
    "a value that will expire": (string("v", 10, expires=NOW_MS + 1), KEEP),
    "an expired value whose bytes are there": (EXPIRED, KEEP),
    "an expired value": (records.without_expired_value(EXPIRED, NOW_MS), REAP),
    "two siblings": (BOTH, SETTLE),
    "two siblings, shortened": (vectors.settled(BOTH), KEEP),
    "siblings that were resolved": (RESOLVED, SETTLE),
    "siblings that were deleted": (DELETED, REAP),
}


@pytest.mark.parametrize(("record", "expected"), RECORDS.values(), ids=RECORDS)
def test_what_is_to_become_of(record: bytes, expected: int) -> None:
    assert plan(record, wall_ms=NOW_MS) == expected


def test_what_expired_here_may_not_have_expired_there() -> None:
    cut = records.without_expired_value(EXPIRED, NOW_MS)
    assert plan(cut, wall_ms=NOW_MS - 2) == KEEP


def test_how_old_it_has_to_be() -> None:
    record = records.tombstone(stamp=stamp(NOW_MS), actor=bytes(8))
    ages = [GRACE_MS - 1, GRACE_MS]
    assert [is_ripe(record, clock=stamp(NOW_MS + age), wall_ms=NOW_MS, grace_ms=GRACE_MS) for age in ages] == [False, True]
    expired = records.without_expired_value(string("v", 1, expires=NOW_MS), NOW_MS)
    assert [is_ripe(expired, clock=stamp(NOW_MS), wall_ms=NOW_MS + age, grace_ms=GRACE_MS) for age in ages] == [False, True]
    # A later register counts as a write does.
    later = records.with_expiry(string("v", 1), stamp=stamp(NOW_MS), expire_at_ms=1)
    assert not is_ripe(records.without_expired_value(later, NOW_MS), clock=stamp(NOW_MS), wall_ms=NOW_MS, grace_ms=GRACE_MS)


def test_siblings_are_ripe_by_their_newest_write() -> None:
    assert not is_ripe(RESOLVED, clock=stamp(30 + GRACE_MS - 1), wall_ms=NOW_MS, grace_ms=GRACE_MS)
    assert is_ripe(RESOLVED, clock=stamp(30 + GRACE_MS), wall_ms=NOW_MS, grace_ms=GRACE_MS)


def test_what_comes_too_late() -> None:
    record = records.tombstone(stamp=7, actor=b"\xff" * 8)
    assert record < stamp_above(record)
    assert records.tombstone(stamp=8, actor=bytes(8)) > stamp_above(record)


def test_shortening_twice_is_shortening_once_and_what_is_replayed_comes_out_the_same() -> None:
    short = vectors.settled(RESOLVED)
    assert plan(short, wall_ms=NOW_MS) == KEEP
    assert vectors.merge(RESOLVED, short) == short
