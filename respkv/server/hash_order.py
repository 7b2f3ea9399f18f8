"""The keys of one partition in the order of their hashes, kept while somebody walks through them. Pure.

Rule 1: whoever walks meets every key that is there during the whole walk. So keys that came since are taken in
before each step; the order of a dictionary tells which they are, as long as nothing was removed from it.
Rule 2: no step takes long, however many keys the partition has: they are taken in in portions, and sorted in
buckets of a few hundred when the walk comes to them.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice

from xxhash import xxh64_intdigest

BUCKET_KEYS = 256
GROWTH_MAX = 8


class HashOrder:
    """The order of one partition's keys. Keys that have left memory since stay in it."""

    __slots__ = ("_bits", "_buckets", "_shard", "_unsorted", "absorbed", "removals", "used_at")

    def __init__(self, shard: dict[bytes, bytes], *, removals: int) -> None:
        """Nothing is taken in yet. `removals` counts how often keys were removed from the partition."""
        self._shard = shard
        self.removals = removals
        self.absorbed = 0
        """How many keys of the dictionary, in its order, are taken in."""
        self.used_at = 0.0
        self._bits = (len(shard) // BUCKET_KEYS).bit_length()
        self._buckets: list[list[tuple[int, bytes]]] = [[] for _ in range(1 << self._bits)]
        self._unsorted: set[int] = set()

    def is_of(self, shard: dict[bytes, bytes], *, removals: int) -> bool:
        """Whether it still describes a partition: the same dictionary, nothing removed, not many times as big."""
        return self._shard is shard and self.removals == removals and len(shard) <= GROWTH_MAX * BUCKET_KEYS << self._bits

    def absorb(self, keys_max: int) -> bool:
        """Take in some of the keys that are not in it yet. Returns whether that is all of them."""
        shard = self._shard
        missing = len(shard) - self.absorbed
        if not missing:
            return True
        buckets, unsorted, shift = self._buckets, self._unsorted, 64 - self._bits
        for key in islice(shard, self.absorbed, self.absorbed + keys_max):
            place = xxh64_intdigest(key)
            buckets[place >> shift].append((place, key))
            unsorted.add(place >> shift)
        self.absorbed += min(missing, keys_max)
        return missing <= keys_max

    def take(self, first_hash: int, limit: int) -> tuple[list[bytes], int | None]:
        """About `limit` keys from a hash on, all of the last one's hash among them, and the hash that follows; None at the end."""
        number = first_hash >> 64 - self._bits
        bucket = self._sorted(number)
        start = bisect_left(bucket, (first_hash, b""))
        keys: list[bytes] = []
        while True:
            end = min(start + limit - len(keys), len(bucket))
            while 0 < end < len(bucket) and bucket[end][0] == bucket[end - 1][0]:
                end += 1
            keys += [key for _, key in bucket[start:end]]
            if end < len(bucket):
                return keys, bucket[end][0]
            number += 1
            if number >= len(self._buckets):
                return keys, None
            bucket, start = self._sorted(number), 0

    def _sorted(self, number: int) -> list[tuple[int, bytes]]:
        bucket = self._buckets[number]
        if number in self._unsorted:
            self._unsorted.discard(number)
            bucket.sort()
        return bucket
