"""Records whose time has come lose their values: in memory often, and step by step those that only the tables have. Pure.

Rule 1: what is not in memory is loaded before it changes, like any other record. So a value that expired unseen, and was
dropped from memory before, goes from the tables as well, and is no longer counted.
Rule 2: a clock that is ahead of the others' drops nothing before its time: no repair brings a value back, for a copy without
it counts as the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.versions.records import will_expire, without_expired_value

if TYPE_CHECKING:
    from respkv.server.node import Node

INTERVAL_S = 0.1
EXPIRED_PER_CYCLE_MAX = 2000
ROWS_PER_CYCLE = 250
COST_OF_A_SCAN = 10
"""In rows: partitions may be small, or empty."""
PAUSE_AFTER_SWEEP_S = 10.0


class Expiry:
    """The cycle of a node."""

    __slots__ = ("_budget", "_dropped", "_first_hash", "_is_scanning", "_met", "_node", "_partition", "_settled", "_sweep_at", "due")

    def __init__(self, node: Node) -> None:
        """`due` is when `tick` is to be called again."""
        self._node = node
        now = node.context.turn.now
        self.due = now + INTERVAL_S
        self._sweep_at = now
        self._is_scanning = False
        self._budget = 0
        self._partition = 0
        self._first_hash = 0
        self._settled = 0
        """How many values with an expiry had left memory when a sweep began that met none that is still to expire."""
        self._dropped = 0
        """The same when this sweep began."""
        self._met = False

    def tick(self) -> None:
        """Once a turn: go on, if it is time."""
        node = self._node
        turn, store = node.context.turn, node.store
        if turn.now < self.due:
            return
        self.due = turn.now + INTERVAL_S
        if not node.topology.acquainted:
            # It may not know yet that its clock is ahead.
            return
        node.statistics.expired_keys += store.expire_some(self._wall_ms(), keys_max=EXPIRED_PER_CYCLE_MAX)
        if store.expiries_dropped > self._settled and not self._is_scanning and turn.now >= self._sweep_at:
            self._budget = ROWS_PER_CYCLE
            self._scan()

    def _wall_ms(self) -> int:
        """The time by which values go: this node's, or the median of its peers' where that is behind."""
        turn = self._node.context.turn
        return turn.wall_ms - max(self._node.membership.clock_skew_ms(turn.wall_ms, turn.now) or 0, 0)

    def _scan(self) -> None:
        self._is_scanning = True
        self._node.scan_tables(self._partition, self._first_hash, self._budget, self._on_rows)

    def _on_rows(self, rows: list[tuple[bytes, bytes]], next_hash: int | None) -> None:
        self._is_scanning = False
        node = self._node
        store, wall_ms = node.store, self._wall_ms()
        shard = store.shards[self._partition]
        gone = []
        for key, record in rows:
            if key in shard or not will_expire(record):
                continue
            if without_expired_value(record, wall_ms) is not record:
                gone.append(key)
            else:
                self._met = True
        if gone:
            node.parking.when_loaded(gone, lambda: self._drop(gone))
        if next_hash is not None:
            self._first_hash = next_hash
        else:
            self._first_hash = 0
            self._partition = (self._partition + 1) % len(store.shards)
            if not self._partition:
                self._end_sweep()
                return
        self._budget -= len(rows) + COST_OF_A_SCAN
        if self._budget > 0:
            self._scan()

    def _drop(self, keys: list[bytes]) -> None:
        node = self._node
        node.statistics.expired_keys += node.store.expire_keys(keys, self._wall_ms())

    def _end_sweep(self) -> None:
        if not self._met:
            self._settled = self._dropped
        self._dropped = self._node.store.expiries_dropped
        self._met = False
        self._sweep_at = self._node.context.turn.now + PAUSE_AFTER_SWEEP_S
