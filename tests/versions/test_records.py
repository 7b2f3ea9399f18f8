"""Records: merging is `max`, so the order of the bytes is the order of the versions."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from respkv.versions import records
from respkv.versions.records import ABSENT, FOREVER

STAMPS = st.one_of(st.integers(1, 5), st.integers(1, 2**64 - 1))
ACTORS = st.sampled_from([b"actor-aa", b"actor-bb", bytes(8), b"\xff" * 8])
MOMENTS = st.one_of(st.integers(0, 20), st.just(FOREVER))
VALUES = st.binary(max_size=12)


def merge(left: bytes, right: bytes) -> bytes:
    return max(left, right)


@st.composite
def stored(draw: st.DrawFn) -> bytes:
    """Any record that a node may hold, expired and cut ones among them."""
    form = draw(st.sampled_from(["absent", "tombstone", "plain", "expiring", "expired"]))
    stamp, actor = draw(STAMPS), draw(ACTORS)
    if form == "absent":
        return ABSENT
    if form == "tombstone":
        return records.tombstone(stamp=stamp, actor=actor)
    record = records.string(draw(VALUES), stamp=stamp, actor=actor)
    if form == "plain":
        return record
    record = records.with_expiry(record, stamp=draw(STAMPS), expire_at_ms=draw(MOMENTS))
    return records.without_expired_value(record, draw(st.integers(0, 20))) if form == "expired" else record


@given(stored(), stored(), stored())
def test_merging_is_a_semilattice(left: bytes, middle: bytes, right: bytes) -> None:
    merged = max(left, middle, right)
    assert max(left, left) == left
    for order in permutations((left, middle, right)):
        assert merge(merge(order[0], order[1]), order[2]) == merged
        assert merge(order[0], merge(order[1], order[2])) == merged
    assert max(left, ABSENT) == left


@given(stored(), stored())
def test_a_later_stamp_wins_whatever_is_written(left: bytes, right: bytes) -> None:
    assume(records.stamp_of(left) < records.stamp_of(right))
    assert max(left, right) == right


@given(STAMPS, VALUES, VALUES)
def test_of_one_stamp_the_actor_decides(stamp: int, value: bytes, other: bytes) -> None:
    low = records.string(value, stamp=stamp, actor=b"actor-aa")
    high = records.string(other, stamp=stamp, actor=b"actor-bb")
    assert max(low, high) == high
    assert max(records.tombstone(stamp=stamp, actor=b"actor-bb"), low)[8:16] == b"actor-bb"


@given(STAMPS, VALUES, VALUES)
def test_equal_versions_with_different_values_are_still_ordered(stamp: int, value: bytes, other: bytes) -> None:
    left, right = (records.string(each, stamp=stamp, actor=b"actor-aa") for each in (value, other))
    assert max(left, right) == max(right, left)
    assert (left == right) == (value == other)


@given(stored(), st.integers(0, 25), st.integers(0, 25))
def test_time_only_takes(record: bytes, now_ms: int, later_ms: int) -> None:
    earlier, later = sorted((now_ms, later_ms))
    if records.value_of(record, earlier) is None:
        assert records.value_of(record, later) is None
    assert records.is_visible(record, now_ms) == (records.value_of(record, now_ms) is not None)


@given(stored(), st.integers(0, 25))
def test_dropping_expired_bytes_changes_nothing_that_a_client_sees(record: bytes, now_ms: int) -> None:
    cut = records.without_expired_value(record, now_ms)
    assert records.value_of(cut, now_ms) == records.value_of(record, now_ms)
    assert records.stamp_of(cut) == records.stamp_of(record)
    assert cut <= record
    if cut != record:
        assert len(cut) == records.EXPIRED_BYTES
        assert not records.holds_value(cut)
        # A copy that has not noticed yet brings the bytes back, and nobody sees them.
        assert records.value_of(max(cut, record), now_ms) is None


@given(VALUES, STAMPS, STAMPS, STAMPS, MOMENTS)
@example(b"v", 5, 6, 7, FOREVER)
def test_an_expiry_never_revives_another_version(value: bytes, stamp: int, later: int, expiry_stamp: int, when: int) -> None:
    assume(stamp < later)
    old = records.with_expiry(records.string(value, stamp=stamp, actor=b"actor-aa"), stamp=expiry_stamp, expire_at_ms=when)
    deleted = records.tombstone(stamp=later, actor=b"actor-aa")
    assert max(old, deleted) == deleted
    newer = records.string(b"new", stamp=later, actor=b"actor-aa")
    assert records.value_of(max(old, newer), 0) == b"new"


@given(VALUES, STAMPS, STAMPS, STAMPS, MOMENTS, MOMENTS)
def test_of_two_expiries_of_a_version_the_later_wins_and_the_longest_among_concurrent_ones(
    value: bytes, stamp: int, left_stamp: int, right_stamp: int, left_ms: int, right_ms: int
) -> None:
    version = records.string(value, stamp=stamp, actor=b"actor-aa")
    left = records.with_expiry(version, stamp=left_stamp, expire_at_ms=left_ms)
    right = records.with_expiry(version, stamp=right_stamp, expire_at_ms=right_ms)
    merged = max(left, right)
    expected = max((left_stamp, left_ms), (right_stamp, right_ms))[1]
    assert records.expiry_of(merged) == (None if expected == FOREVER else expected)
    assert max(version, left) == left


@given(VALUES, STAMPS, MOMENTS.filter(lambda moment: moment != FOREVER))
def test_persist_is_an_expiry_as_well(value: bytes, stamp: int, when: int) -> None:
    expiring = records.string(value, stamp=stamp, actor=b"actor-aa", expire_at_ms=when)
    persisted = records.with_expiry(expiring, stamp=min(stamp + 1, 2**64 - 1), expire_at_ms=FOREVER)
    assert records.expiry_of(max(expiring, persisted)) is None
    assert records.value_of(max(expiring, persisted), 2**63) == value


@given(stored().filter(bool), st.integers(1, 2**64 - 1))
def test_what_is_stamped_anew_is_the_same_content_in_a_later_version(record: bytes, above: int) -> None:
    stamp = max(records.newest_stamp_of(record), above)
    later = records.restamped(record, stamp)
    assert later >= record or stamp == records.stamp_of(record)
    assert records.stamp_of(later) == stamp
    assert records.newest_stamp_of(later) == stamp
    assert records.value_of(later, 0) == records.value_of(record, 0)
    assert records.expiry_of(later) == records.expiry_of(record)
    assert later[8:16] == record[8:16]


@given(stored(), st.integers(0, 25))
def test_what_nodes_make_is_well_formed(record: bytes, now_ms: int) -> None:
    assert records.is_well_formed(record) == bool(record)
    assert records.newest_stamp_of(record) >= records.stamp_of(record)
    if records.is_visible(record, now_ms):
        assert records.holds_value(record)
        assert records.type_name(record) == "string"
    assert records.describe(record)


@pytest.mark.parametrize(
    "record",
    [b"", b"x", b"x" * 17, b"x" * 16 + b"\x00s!", b"x" * 16 + b"\x02s", b"x" * 16 + b"\x02s" + b"x" * 15, b"x" * 16 + b"\x03s" + b"x" * 40],
)
def test_what_no_node_makes_is_not(record: bytes) -> None:
    assert not records.is_well_formed(record)


def test_the_ready_made_tail_is_that_of_a_plain_string() -> None:
    record = records.string(b"v", stamp=7, actor=b"actor-aa")
    assert record == records.pack_stamp(7) + records.string_tail(b"actor-aa") + b"v"
