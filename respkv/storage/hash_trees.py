"""One hash tree a partition, from which two replicas learn cheaply whether and where they differ. Pure.

A leaf is the XOR of one 64-bit hash for each of its keys, of the key and of which version it has; it covers a range of the
partition's order, which is that of xxh64(key), as in the tables. A root is the XOR of its leaves.

Rule 1: a tree is never built by scanning. XOR takes back what it put in, so a write costs one step whatever it replaces: and of
many writes to one key only the version before the first and the one after the last matter. `Store.changed` names the first.
Rule 2: equal content means equal trees, on any node, whatever the way there. Who expired a value's bytes does not matter.
Rule 3: a leaf that a reading of its keys proves wrong is set right. A partition of which nobody can say is `spoilt` until it was read.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from respkv.placement.slots import key_slot
from respkv.versions.records import VERSION_BYTES, identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from respkv.storage.store import Store

LEAVES_BITS = 17
"""Leaves of all partitions together: 1 MiB ..."""
LEAF_BITS_MIN, LEAF_BITS_MAX = 6, 10
"""... but of one partition neither too few to part its keys, nor more than fit into a frame."""
HASH_BITS = 64
LATER_THAN_ALL = b"\xff" * 8
"""As a stamp: above all others."""


def waiting(store: Store) -> int:
    """How many changes of a store its trees have not followed yet."""
    return len(store.changed) + len(store.changing)


def item_hash(place: int, record: bytes) -> int:
    """The hash of one key in one version. `place` is xxh64 of the key."""
    return xxh64_intdigest(identity(record), place)


class HashTrees:
    """The trees of a node, over all that it holds."""

    __slots__ = ("_leaves", "corrected_total", "leaf_bits", "looks_total", "roots", "shift", "spoils_total", "spoilt")

    def __init__(self, *, ring_size: int) -> None:
        """Of an empty store."""
        self.leaf_bits = min(max(LEAVES_BITS - (ring_size.bit_length() - 1), LEAF_BITS_MIN), LEAF_BITS_MAX)
        self.shift = HASH_BITS - self.leaf_bits
        """A key's leaf are the first bits of its hash."""
        self.roots = array("Q", bytes(8 * ring_size))
        self._leaves: list[array[int] | None] = [None] * ring_size
        self.spoilt: set[int] = set()
        """Partitions whose tree says nothing until all its leaves were read."""
        self.spoils_total = 0
        self.corrected_total = 0
        """Leaves that a reading proved wrong."""
        self.looks_total = 0
        """How many times the changes of a store began to be followed that had gathered until then."""

    def toggle(self, partition: int, key: bytes, which: bytes) -> None:
        """Take a version of a key in, or out again. `which` is its identity."""
        self.replace(partition, key, b"", which)

    def replace(self, partition: int, key: bytes, seen: bytes, which: bytes) -> None:
        """Put one version of a key in the place of another one; b"" is none."""
        if seen == which:
            return
        place = xxh64_intdigest(key)
        difference = (xxh64_intdigest(seen, place) if seen else 0) ^ (xxh64_intdigest(which, place) if which else 0)
        leaves = self._leaves[partition]
        if leaves is None:
            leaves = self._leaves[partition] = array("Q", bytes(8 << self.leaf_bits))
        leaves[place >> self.shift] ^= difference
        self.roots[partition] ^= difference

    def take_in(self, store: Store, keys_max: int) -> bool:
        """Follow some of the changes of a store. Returns whether that was all of them."""
        shards, shift, floor = store.shards, store.shift, store.floor
        left = keys_max
        while left > 0 and waiting(store):
            if not store.changing:
                # What changes from now on is noted anew. Above all records of that version, whatever becomes of their values:
                store.changing, store.changed = store.changed, {}
                self.looks_total += 1
                store.noted_above = store.newest[:VERSION_BYTES] + LATER_THAN_ALL
            changing, changed = store.changing, store.changed
            count = min(left, len(changing))
            left -= count
            for _ in range(count):
                # The last one: to look for the first in a dictionary takes the longer the more were taken from its front.
                key, seen = changing.popitem()
                partition = key_slot(key) >> shift
                found = changed.get(key)
                if found is None:
                    record = shards[partition].get(key)
                    found = identity(record) if record and record >= floor else b""
                self.replace(partition, key, seen, found)
        return not waiting(store)

    def has_followed(self, store: Store, look: int) -> bool:
        """Whether all is followed that had changed when `looks_total` was `look`, whatever has changed since."""
        return self.looks_total > look + 1 or (self.looks_total == look + 1 and not store.changing)

    def take_in_one(self, store: Store, partition: int, key: bytes, record: bytes) -> None:
        """A key leaves memory: learn now what it holds, if its changes were not followed yet."""
        seen, later = store.changing.pop(key, None), store.changed.pop(key, None)
        known = later if seen is None else seen
        if known is not None:
            self.replace(partition, key, known, identity(record) if record and record >= store.floor else b"")

    def leaves(self, partition: int) -> Sequence[int]:
        """All leaves of a partition; none if nothing was ever there."""
        return self._leaves[partition] or ()

    def bounds(self, first: int, end: int) -> tuple[int, int]:
        """The first hash of a leaf, and the one behind the last leaf before `end`."""
        return first << self.shift, end << self.shift

    def part(self, partition: int, first: int, end: int) -> list[int]:
        """Some leaves that follow each other."""
        leaves = self._leaves[partition]
        return [0] * (end - first) if leaves is None else list(leaves[first:end])

    def part_of(self, rows: Iterable[tuple[bytes, bytes]], first: int, end: int) -> list[int]:
        """What these leaves have to be if these are all (key, record) of theirs."""
        found = [0] * (end - first)
        for key, record in rows:
            place = xxh64_intdigest(key)
            found[(place >> self.shift) - first] ^= item_hash(place, record)
        return found

    def parted(self, rows: Iterable[tuple[bytes, bytes]], first: int, end: int) -> list[list[tuple[bytes, bytes]]]:
        """The rows of some leaves that follow each other, leaf by leaf."""
        found: list[list[tuple[bytes, bytes]]] = [[] for _ in range(first, end)]
        for row in rows:
            found[(xxh64_intdigest(row[0]) >> self.shift) - first].append(row)
        return found

    def correct(self, partition: int, first: int, found: Sequence[int]) -> None:
        """Set leaves to what a reading of all their keys has found. The caller knows that nothing changed meanwhile."""
        held = self.part(partition, first, first + len(found))
        if held == found:
            return
        leaves = self._leaves[partition]
        if leaves is None:
            leaves = self._leaves[partition] = array("Q", bytes(8 << self.leaf_bits))
        for number, (before, after) in enumerate(zip(held, found, strict=True), first):
            leaves[number] = after
            self.roots[partition] ^= before ^ after
            self.corrected_total += before != after and partition not in self.spoilt

    def clear(self) -> None:
        """The store is empty now."""
        count = len(self._leaves)
        self.roots = array("Q", bytes(8 * count))
        self._leaves = [None] * count
        self.spoilt.clear()

    def spoil(self, partitions: Iterable[int]) -> None:
        """Nobody can say what these hold until all of it was read."""
        self.spoilt.update(partitions)
        self.spoils_total += 1
