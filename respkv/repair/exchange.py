"""Compare two replicas down to the keys that differ: roots, leaves, keys, and then only the records of those. Pure.

The one that begins (A) asks, its co-replica (B) answers:

    tree-roots    the digest of A's roots    ->  nothing if B has the same, else B's roots
    tree-leaves   partitions that differ     ->  the leaves of each
    tree-keys     leaves that differ         ->  the keys of each, with stamp and hash
    tree-meet     keys that differ, with A's records where they may be the later ones
                                             ->  the records that A lacks

Rule 1: what is on its way is no difference. A key is settled only if both sides still hold what was compared, and one that
was written a moment ago is looked at again later: a busy cluster does not send its hot keys about for nothing.
Rule 2: records are merged by who receives them, never assigned; so any step may be lost, repeated, or overtaken.
Rule 3: every answer has a bound. What found no room is asked for again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from xxhash import xxh64_intdigest

from respkv.errors import PeerProtocolError
from respkv.storage.hash_trees import item_hash
from respkv.versions.records import ABSENT, SIBLINGS, newest_stamp_of

PIECE_BYTES_MAX = 128 * 1024
"""Of keys or records in one message; a single record may be longer."""
PIECE_KEYS_MAX = 50
YOUNG_MS = 1000
"""What was written later than this, by the clock of the stamps, may still be on its way."""
MARK_BYTES = 16
"""A stamp and a hash, for each key of a listing."""

_MARK = struct.Struct("<QQ")


class RootsRequest(msgspec.Struct, array_like=True):
    """A compares all partitions that both hold, or one of them."""

    epoch: int
    n: int
    digest: int
    partition: int | None = None


class Listing(msgspec.Struct, array_like=True):
    """The keys of one leaf."""

    keys: list[bytes]
    marks: bytes
    """Stamp and hash of each."""


class Entry(msgspec.Struct, array_like=True):
    """A key that differs, on its way from A to B."""

    key: bytes
    record: bytes
    """What A holds, or nothing where B's is the later one."""
    expected: int
    """The hash of what B is to hold: if it no longer does, the key is left alone."""


class Met(msgspec.Struct, array_like=True):
    """B's answer to a list of entries."""

    pairs: list[bytes]
    """[key, record, ...] that A lacks."""
    settled: int
    """How many of the entries, from the first on, it has dealt with."""
    taken: int
    """How many of A's records changed what B holds."""


@dataclass(frozen=True, slots=True)
class Item:
    """A key as one side holds it."""

    key: bytes
    stamp: int
    hash: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A key of which A and B hold different versions. A hash of 0: it is absent."""

    key: bytes
    mine: int
    theirs: int
    their_stamp: int
    """The highest one in B's record; 0 where A's record is to be sent in any case."""
    newest_stamp: int

    def is_young(self, clock: int) -> bool:
        """Whether one of the versions may be so new that it is still on its way to the other side."""
        return (clock >> 16) - (self.newest_stamp >> 16) < YOUNG_MS


# --- roots and leaves


def pack_hashes(hashes: Iterable[int]) -> bytes:
    """Hashes as bytes, eight each."""
    found = list(hashes)
    return struct.pack(f"<{len(found)}Q", *found)


def unpack_hashes(data: bytes) -> tuple[int, ...]:
    """The hashes of such bytes. Raises PeerProtocolError for others."""
    if len(data) % 8:
        msg = "hashes of odd length"
        raise PeerProtocolError(msg)
    return struct.unpack(f"<{len(data) // 8}Q", data)


def digest(roots: bytes) -> int:
    """One hash for the roots of many partitions."""
    return xxh64_intdigest(roots)


def differing(mine: Sequence[int], theirs: Sequence[int]) -> list[int]:
    """Where two rows of hashes differ. A row that is empty is one of zeros."""
    if not mine or not theirs:
        return [number for number, found in enumerate(mine or theirs) if found]
    if len(mine) != len(theirs):
        msg = f"{len(theirs)} hashes instead of {len(mine)}"
        raise PeerProtocolError(msg)
    return [number for number, (left, right) in enumerate(zip(mine, theirs, strict=True)) if left != right]


# --- keys


def item_of(key: bytes, record: bytes) -> Item:
    """A key with its stamp and hash; what is absent has neither."""
    if not record:
        return Item(key, 0, 0)
    return Item(key, newest_stamp_of(record), item_hash(xxh64_intdigest(key), record))


def listing_of(rows: Iterable[tuple[bytes, bytes]]) -> Listing:
    """Tell the keys of a leaf."""
    keys: list[bytes] = []
    marks: list[bytes] = []
    for key, record in rows:
        item = item_of(key, record)
        keys.append(key)
        marks.append(_MARK.pack(item.stamp, item.hash))
    return Listing(keys, b"".join(marks))


def items_of(listing: Listing) -> Iterator[Item]:
    """The keys of a leaf, as they were told."""
    if len(listing.marks) != MARK_BYTES * len(listing.keys):
        msg = "a listing whose keys and hashes do not match"
        raise PeerProtocolError(msg)
    for key, (stamp, found) in zip(listing.keys, _MARK.iter_unpack(listing.marks), strict=True):
        yield Item(key, stamp, found)


def differences(rows: Iterable[tuple[bytes, bytes]], listing: Listing) -> list[Difference]:
    """The keys of a leaf that A (rows) and B (listing) do not hold in the same version."""
    theirs = {item.key: item for item in items_of(listing)}
    found = []
    for key, record in rows:
        mine, other = item_of(key, record), theirs.pop(key, None)
        if other is None:
            found.append(Difference(key, mine.hash, 0, 0, mine.stamp))
        elif other.hash != mine.hash:
            found.append(Difference(key, mine.hash, other.hash, other.stamp, max(mine.stamp, other.stamp)))
    found += [Difference(item.key, 0, item.hash, item.stamp, item.stamp) for item in theirs.values()]
    return found


# --- records


def entry_of(difference: Difference, record: bytes) -> Entry | None:
    """What A tells B of a key, or None if A no longer holds what was compared. `record` is what A holds now."""
    if item_of(difference.key, record).hash != difference.mine:
        return None
    # Of two plain records the one with the lower stamp is hardly ever of use to the other side: see `still_differs`.
    is_of_use = record and (record[16] == SIBLINGS or newest_stamp_of(record) >= difference.their_stamp)
    return Entry(difference.key, record if is_of_use else ABSENT, difference.theirs)


def still_differs(key: bytes, record: bytes, told: bytes) -> Difference | None:
    """What is left to be settled once A has merged what B told of a key: nothing, unless A holds what B lacks and was not sent.

    Of siblings, or of a later version than B's: an expiry that was set later on an earlier version hides that.
    """
    if not record or (record[16] != SIBLINGS and newest_stamp_of(record) >= newest_stamp_of(told)):
        return None
    mine, theirs = item_of(key, record), item_of(key, told)
    if mine.hash == theirs.hash:
        return None
    return Difference(key, mine.hash, theirs.hash, 0, max(mine.stamp, theirs.stamp))
