"""Read a partition in the order of its keys' hashes, in pieces, from memory and tables together. Pure.

Whatever walks a partition (SCAN, KEYS, a node that copies it) comes through here. The order is that of the
tables, so a position in it means the same on every node: a partition and a 64-bit hash.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

if TYPE_CHECKING:
    from respkv.server.node import Node

Rows = list[tuple[bytes, bytes]]
"""(key, record), tombstones among them."""

Then = Callable[[Rows, "int | None"], None]
"""Gets the rows and the hash to go on from; None at the end of the partition."""

CACHED_S = 5.0
CACHED_PARTITIONS_MAX = 4


class RowReader:
    """Walks partitions of a node."""

    __slots__ = ("_cache", "_node")

    def __init__(self, node: Node) -> None:
        """`_cache` keeps the order of the partitions that are being walked: sorting one for each piece would cost more than the piece."""
        self._node = node
        self._cache: dict[int, tuple[float, list[tuple[int, bytes]]]] = {}

    def read(self, partition: int, first_hash: int, limit: int, then: Then) -> None:
        """Hand rows from `first_hash` on to `then`: about `limit` of them, and all with the last one's hash.

        At once if everything is in memory, in a later turn otherwise. A key that is there during the whole walk is met.
        """
        if self._node.store.resident:
            order = self._order(partition)
            start = bisect_left(order, (first_hash, b""))
            end = min(start + limit, len(order))
            while 0 < end < len(order) and order[end][0] == order[end - 1][0]:
                end += 1
            next_hash = order[end][0] if end < len(order) else None
            then(self._rows(partition, [key for _, key in order[start:end]]), next_hash)
            return

        def merge(found: list[tuple[bytes, bytes]], next_hash: int | None) -> None:
            then(self._merged(partition, found, first_hash=first_hash, next_hash=next_hash), next_hash)

        self._node.scan_tables(partition, first_hash, limit, merge)

    def _order(self, partition: int) -> list[tuple[int, bytes]]:
        now = self._node.context.turn.now
        cached = self._cache.get(partition)
        if cached is not None and now - cached[0] < CACHED_S:
            return cached[1]
        order = sorted((xxh64_intdigest(key), key) for key, record in self._node.store.shards[partition].items() if record)
        if len(self._cache) >= CACHED_PARTITIONS_MAX:
            del self._cache[next(iter(self._cache))]
        self._cache[partition] = (now, order)
        return order

    def _rows(self, partition: int, keys: list[bytes]) -> Rows:
        store = self._node.store
        shard, floor = store.shards[partition], store.floor
        return [(key, record) for key in keys if (record := shard.get(key, b"")) and record >= floor]

    def _merged(self, partition: int, found: Rows, *, first_hash: int, next_hash: int | None) -> Rows:
        """Put what memory holds of the same stretch over what the tables told."""
        store = self._node.store
        floor = store.floor
        merged = {key: record for key, record in found if record >= floor}
        for key, record in store.shards[partition].items():
            place = xxh64_intdigest(key)
            if place < first_hash or (next_hash is not None and place >= next_hash):
                continue
            if record and record >= floor:
                merged[key] = max(record, merged.get(key, b""))
            elif not record:
                merged.pop(key, None)
        return sorted(merged.items(), key=lambda row: (xxh64_intdigest(row[0]), row[0]))
