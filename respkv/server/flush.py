"""FLUSHALL inside one node: what lies below the floor is hidden at once, and goes from memory over the next turns. Pure.

Rule 1: no turn walks all records. A node that has nothing above the floor lets go of its dictionaries as they are;
one that learnt of the floor late drops what is below it partition by partition, and counts what is left.
Rule 2: records above the floor that only the tables hold count as well: their partitions are read once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from respkv.versions.records import holds_value
from respkv.versions.vectors import raised

if TYPE_CHECKING:
    from respkv.server.node import Node
    from respkv.server.rows import Rows

SWEPT_PER_TURN = 4000
COST_OF_A_PARTITION = 50
"""In records: partitions may be small, or empty."""
ROWS_PER_SCAN = 1000


class Flush:
    """The sweep of a node."""

    __slots__ = ("_buries", "_found", "_node", "_number", "_partition")

    def __init__(self, node: Node) -> None:
        """Nothing is to be swept."""
        self._node = node
        self._buries = False
        self._partition: int | None = None
        """What is swept next."""
        self._found: list[bytes] = []
        """Keys with a value above the floor, in what was read of the partition that is counted."""
        self._number = 0
        """How many floors there were: what was read for an earlier one is of no use."""

    def raise_floor(self, floor: bytes) -> None:
        """Begin: from now on no record below `floor` is there for anybody."""
        node = self._node
        is_empty = node.store.raise_floor(floor, highest=node.clock.last.to_bytes(8))
        if is_empty:
            node.hints.forget_all()
        self._buries = True
        self._partition = None if is_empty else 0
        self._number += 1
        node.store.counting = None

    def tick(self) -> None:
        """Once a turn: go on."""
        store = self._node.store
        if self._buries:
            self._buries = store.bury()
        left = SWEPT_PER_TURN
        while self._partition is not None and left > 0:
            left -= len(store.shards[self._partition]) + COST_OF_A_PARTITION
            store.sweep(self._partition)
            self._buries = True
            self._partition += 1
            if self._partition == len(store.shards):
                self._partition = None
                if not store.resident:
                    self._count(0)

    def is_under_way(self) -> bool:
        """Whether records are still to be dropped, or counted."""
        return self._buries or self._partition is not None or self._node.store.counting is not None

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._node.context.turn.now if self._buries or self._partition is not None else None

    def _count(self, partition: int) -> None:
        self._node.store.counting = partition
        self._found = []
        self._scan(partition, 0)

    def _scan(self, partition: int, first_hash: int) -> None:
        self._node.scan_tables(partition, first_hash, ROWS_PER_SCAN, partial(self._on_rows, self._number, partition))

    def _on_rows(self, number: int, partition: int, rows: Rows, next_hash: int | None) -> None:
        if number != self._number:
            return
        store = self._node.store
        self._found += [key for key, record in rows if holds_value(raised(record, store.floor))]
        if next_hash is not None:
            self._scan(partition, next_hash)
            return
        store.sweep(partition, self._found)
        self._buries = True
        store.counting = None
        if partition + 1 < len(store.shards):
            self._count(partition + 1)
