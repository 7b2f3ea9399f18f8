"""What two replicas tell each other of what differs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import PeerProtocolError
from respkv.repair.exchange import (
    YOUNG_MS,
    Difference,
    Listing,
    differences,
    differing,
    digest,
    entry_of,
    item_of,
    items_of,
    listing_of,
    pack_hashes,
    still_differs,
    unpack_hashes,
)
from respkv.versions import records, vectors

ACTOR = bytes(8)
OTHER = b"other..."


def string(value: str, stamp: int, actor: bytes = ACTOR) -> bytes:
    return records.string(value.encode(), stamp=stamp, actor=actor)


def rows(**held: bytes) -> list[tuple[bytes, bytes]]:
    return [(key.encode(), record) for key, record in held.items()]


def told(found: list[Difference]) -> dict[str, tuple[bool, bool]]:
    """Of each key whether A and B hold it."""
    return {each.key.decode(): (bool(each.mine), bool(each.theirs)) for each in found}


def test_where_rows_of_hashes_differ() -> None:
    assert differing([1, 2, 3], [1, 2, 3]) == []
    assert differing([1, 2, 3], [1, 5, 4]) == [1, 2]
    assert differing([], [0, 7]) == differing([0, 7], []) == [1]
    assert unpack_hashes(pack_hashes([1, 2**64 - 1])) == (1, 2**64 - 1)
    assert digest(pack_hashes([1, 2])) != digest(pack_hashes([2, 1]))


@pytest.mark.parametrize("hashes", [[1], [1, 2, 3]])
def test_another_number_of_hashes_is_an_error(hashes: list[int]) -> None:
    with pytest.raises(PeerProtocolError):
        differing([1, 2], hashes)


def test_bytes_that_are_no_hashes() -> None:
    with pytest.raises(PeerProtocolError):
        unpack_hashes(b"123")
    with pytest.raises(PeerProtocolError):
        list(items_of(Listing([b"k"], b"")))


def test_the_keys_of_a_leaf_that_differ() -> None:
    mine = rows(same=string("v", 5), newer=string("b", 7), older=string("a", 5), mine=string("v", 5))
    theirs = rows(same=string("v", 5), newer=string("a", 5), older=string("b", 7), theirs=string("v", 5))
    found = differences(mine, listing_of(theirs))
    assert told(found) == {"newer": (True, True), "older": (True, True), "mine": (True, False), "theirs": (False, True)}


def test_a_record_is_told_unless_the_other_side_has_a_later_one() -> None:
    mine = rows(newer=string("b", 7), older=string("a", 5), mine=string("v", 5))
    theirs = rows(newer=string("a", 5), older=string("b", 7), theirs=string("v", 5))
    held = dict(mine)
    entries = {}
    for each in differences(mine, listing_of(theirs)):
        entry = entry_of(each, held.get(each.key, b""))
        assert entry is not None
        entries[entry.key.decode()] = (entry.record, bool(entry.expected))
    assert entries == {
        "newer": (string("b", 7), True),
        "older": (b"", True),
        "mine": (string("v", 5), False),
        "theirs": (b"", True),
    }


def test_a_key_that_was_written_meanwhile_is_left_alone() -> None:
    (found,) = differences(rows(k=string("a", 5)), listing_of(rows(k=string("b", 6))))
    assert entry_of(found, string("c", 9)) is None
    assert entry_of(found, b"") is None
    assert entry_of(found, string("a", 5)) is not None


def test_what_was_just_written_may_be_on_its_way() -> None:
    (found,) = differences(rows(k=string("a", 100 << 16)), listing_of(rows(k=string("b", 900 << 16))))
    assert found.is_young((900 + YOUNG_MS - 1) << 16)
    assert not found.is_young((900 + YOUNG_MS) << 16)


def test_an_expired_value_whose_bytes_one_side_dropped_is_no_difference() -> None:
    record = records.string(b"v", stamp=5, actor=ACTOR, expire_at_ms=10)
    assert differences(rows(k=record), listing_of(rows(k=records.without_expired_value(record, 11)))) == []


def test_siblings_are_told_always_and_settled_in_two_rounds() -> None:
    one = vectors.successor(b"", b"", string("one", 5))
    two = vectors.successor(b"", b"", string("two", 9, OTHER))
    joined = vectors.merge(vectors.merge(one, two), one)
    assert joined[16] == records.SIBLINGS
    (found,) = differences(rows(k=joined), listing_of(rows(k=two)))
    entry = entry_of(found, joined)
    assert entry is not None
    assert entry.record == joined
    # A took what B told, and knows more than B: B is told.
    left = still_differs(b"k", joined, two)
    assert left is not None
    assert (left.mine, left.theirs) == (item_of(b"k", joined).hash, item_of(b"k", two).hash)
    assert still_differs(b"k", joined, joined) is None
    # What A refused, or holds in a later plain version, is not told once more: nothing would come of it.
    assert still_differs(b"k", b"", two) is None
    assert still_differs(b"k", string("v", 99), string("v", 98)) is None


PLAIN = st.builds(string, st.sampled_from("ab"), st.integers(1, 4), st.sampled_from([ACTOR, OTHER]))
EXPIRING = st.builds(
    lambda record, later, at: records.with_expiry(record, stamp=records.stamp_of(record) + later, expire_at_ms=at),
    PLAIN,
    st.integers(0, 5),
    st.integers(1, 3),
)
RECORDS = PLAIN | EXPIRING
HELD = st.dictionaries(st.sampled_from(["k", "l", "m", "n"]), RECORDS)


@given(HELD, HELD)
def test_both_sides_are_equal_afterwards(mine: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    a, b = dict(rows(**mine)), dict(rows(**theirs))
    found = differences(a.items(), listing_of(b.items()))
    for each in found:
        entry = entry_of(each, a.get(each.key, b""))
        assert entry is not None
        assert item_of(entry.key, b.get(entry.key, b"")).hash == entry.expected
        if entry.record:
            b[entry.key] = vectors.merge(b.get(entry.key, b""), entry.record)
        told = b.get(entry.key, b"")
        a[entry.key] = vectors.merge(a.get(entry.key, b""), told)
        left = still_differs(entry.key, a[entry.key], told)
        # Of a version whose expiry is later than a later version: once more, and then no more.
        found += [left] if left is not None else []
        assert len(found) <= 2 * len(a.keys() | b.keys())
    # Two values of one version differ in nothing that is compared: an actor never makes them.
    assert {key: records.identity(record) for key, record in a.items()} == {key: records.identity(record) for key, record in b.items()}
