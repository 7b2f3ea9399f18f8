"""Read a partition in the order of its keys' hashes, in pieces, from memory and tables together. Pure.

Whatever walks a partition (SCAN, KEYS, a node that copies it) comes through here. The order is that of the
tables, so a position in it means the same on every node: a partition and a 64-bit hash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from respkv.server.hash_order import HashOrder
from respkv.versions.vectors import merge

if TYPE_CHECKING:
    from respkv.server.node import Node

Rows = list[tuple[bytes, bytes]]
"""(key, record), tombstones among them."""

Then = Callable[[Rows, "int | None"], None]
"""Gets the rows and the hash to go on from; None at the end of the partition."""

ABSORBED_PER_TURN_MAX = 4000
ORDERS_MAX = 16
ORDER_KEPT_S = 10.0


class RowReader:
    """Walks partitions of a node."""

    __slots__ = ("_node", "_orders", "_waiting")

    def __init__(self, node: Node) -> None:
        """`_orders` are those of the partitions that are being walked: sorting one for each piece would cost more than the piece."""
        self._node = node
        self._orders: dict[int, HashOrder] = {}
        self._waiting: list[tuple[int, int, int, Then]] = []

    def read(self, partition: int, first_hash: int, limit: int, then: Then) -> None:
        """Hand rows from `first_hash` on to `then`: about `limit` of them, and all with the last one's hash.

        At once if everything is in memory and known, in a later turn otherwise. A key that is there during the whole walk is met.
        """
        if not self._read(partition, first_hash, limit, then):
            self._waiting.append((partition, first_hash, limit, then))

    def tick(self) -> None:
        """Once a turn: go on with those who wait for the order of a big partition, and let go of orders that nobody uses."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for asked in waiting:
                self.read(*asked)
        if self._orders:
            now = self._node.context.turn.now
            partition, order = next(iter(self._orders.items()))
            if now - order.used_at > ORDER_KEPT_S:
                del self._orders[partition]

    def orders_count(self) -> int:
        """How many partitions are being walked, or were a moment ago."""
        return len(self._orders)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._node.context.turn.now if self._waiting else None

    def _read(self, partition: int, first_hash: int, limit: int, then: Then) -> bool:
        store = self._node.store
        if store.resident and not store.shards[partition]:
            then([], None)
            return True
        order = self._order(partition)
        if not order.absorb(ABSORBED_PER_TURN_MAX):
            return False
        keys, next_hash = order.take(first_hash, limit)
        rows = self._rows(partition, keys)
        if store.resident:
            then(rows, next_hash)
            return True

        # What memory holds now may be in the tables and out of memory before they answer: it is kept along.
        def merge(found: Rows, next_hash_there: int | None) -> None:
            ends = [end for end in (next_hash, next_hash_there) if end is not None]
            end = min(ends) if ends else None
            then(self._merged(partition, [*rows, *found], end), end)

        self._node.scan_tables(partition, first_hash, limit, merge)
        return True

    def _order(self, partition: int) -> HashOrder:
        store = self._node.store
        shard, removals = store.shards[partition], store.removals[partition]
        order = self._orders.pop(partition, None)
        if order is None or not order.is_of(shard, removals=removals):
            if len(self._orders) >= ORDERS_MAX:
                del self._orders[next(iter(self._orders))]
            order = HashOrder(shard, removals=removals)
        # The least recently used stands first.
        self._orders[partition] = order
        order.used_at = self._node.context.turn.now
        return order

    def _rows(self, partition: int, keys: list[bytes]) -> Rows:
        store = self._node.store
        shard, floor = store.shards[partition], store.floor
        return [(key, record) for key in keys if (record := shard.get(key, b"")) and record >= floor]

    def _merged(self, partition: int, rows: Rows, next_hash: int | None) -> Rows:
        """The newest of each key below a hash. What is in memory was merged with the tables before: it alone counts."""
        store = self._node.store
        shard, floor = store.shards[partition], store.floor
        merged: dict[bytes, bytes] = {}
        places: dict[bytes, int] = {}
        for key, record in rows:
            place = places[key] = xxh64_intdigest(key)
            if next_hash is None or place < next_hash:
                held = shard.get(key)
                merged[key] = merge(record, merged.get(key, b"")) if held is None else held
        order = sorted(merged, key=lambda key: (places[key], key))
        return [(key, record) for key in order if (record := merged[key]) and record >= floor]
