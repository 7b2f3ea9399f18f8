"""Which owner lacks which key: the rows that hinted handoff pays back. Pure.

A row names an owner and a key; the record itself is stored like any other. Rows are data: whoever adds or
drops one also adds it to the turn's log, and each freeze takes the changes to the tables, under a partition
number that no key has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.storage.freeze import Row

HINTS_PARTITION = 0xFFFE
"""No ring has it, and the tables keep rows about themselves behind it."""
_HELD = b"\xff"
"""What a row holds in the tables: above every stamp, so that FLUSHALL's purge of old records leaves it alone."""
#: What a row costs, for `max-hints-size`: the key and the record are counted apart.
ROW_OVERHEAD_BYTES = 64


@dataclass(slots=True)
class HintStatistics:
    """Counters since the start of the process."""

    stored_total: int = 0
    delivered_total: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"window": 0, "space": 0, "forgotten": 0, "moved": 0})
    """Rows that were given up, by reason."""


class HintBook:
    """The hint rows that this node holds."""

    __slots__ = ("_changed", "_oldest", "bytes", "bytes_max", "closed", "refused", "rows", "statistics")

    def __init__(self, *, bytes_max: int) -> None:
        """Rows whose records add up to more than `bytes_max` are refused; 0 is no bound."""
        self.rows: dict[NodeId, dict[bytes, int]] = {}
        """For each owner its keys, and the bytes each was counted with."""
        self.bytes = 0
        self.bytes_max = bytes_max
        self.closed: set[NodeId] = set()
        """Owners that have been away for longer than `max-hint-window`: no further rows are taken for them."""
        self.refused: dict[NodeId, int] = {}
        """How many records of each owner got no row: the owner and its co-replicas have to compare what they hold."""
        self.statistics = HintStatistics()
        self._oldest: dict[NodeId, float] = {}
        self._changed: dict[tuple[NodeId, bytes], bool] = {}

    def add(self, owner: NodeId, pairs: Sequence[bytes], now: float) -> list[bytes]:
        """Note that an owner lacks the records of [key, record, ...]. Returns the pairs that were taken."""
        if owner in self.closed:
            self.statistics.dropped["window"] += len(pairs) >> 1
            self.refused[owner] = self.refused.get(owner, 0) + (len(pairs) >> 1)
            return []
        rows = self.rows.get(owner)
        if rows is None:
            rows = self.rows[owner] = {}
            self._oldest[owner] = now
        taken: list[bytes] = []
        items = iter(pairs)
        for key, record in zip(items, items, strict=True):
            cost = len(key) + len(record) + ROW_OVERHEAD_BYTES
            if key in rows:
                self.bytes += cost - rows[key]
                rows[key] = cost
                taken += (key, record)
                continue
            if self.bytes_max and self.bytes + cost > self.bytes_max:
                self.statistics.dropped["space"] += 1
                self.refused[owner] = self.refused.get(owner, 0) + 1
                continue
            rows[key] = cost
            self.bytes += cost
            self.statistics.stored_total += 1
            self._changed[owner, key] = True
            taken += (key, record)
        if not rows:
            self._forget_owner(owner)
        return taken

    def restore(self, owner: NodeId, keys: Iterable[bytes], now: float, *, changed: bool) -> None:
        """Take in rows that the log (`changed`: the tables lack them) or the tables hold."""
        rows = self.rows.setdefault(owner, {})
        self._oldest.setdefault(owner, now)
        for key in keys:
            if key not in rows:
                rows[key] = len(key) + ROW_OVERHEAD_BYTES
                self.bytes += rows[key]
            if changed:
                self._changed[owner, key] = True

    def restore_drop(self, owner: NodeId, key: bytes) -> None:
        """Note that the log dropped a row, so that the next freeze deletes it where the tables still have it."""
        self._changed[owner, key] = False

    def drop(self, owner: NodeId, keys: Iterable[bytes], *, reason: str | None = None) -> list[bytes]:
        """Drop rows: delivered, or given up for a reason. Returns the keys for which there was a row."""
        rows = self.rows.get(owner)
        if rows is None:
            return []
        dropped = []
        for key in keys:
            cost = rows.pop(key, None)
            if cost is not None:
                self.bytes -= cost
                dropped.append(key)
                self._changed[owner, key] = False
        if reason is None:
            self.statistics.delivered_total += len(dropped)
        else:
            self.statistics.dropped[reason] += len(dropped)
        if not rows:
            self._forget_owner(owner)
        return dropped

    def postpone(self, owner: NodeId, keys: Iterable[bytes]) -> None:
        """Put rows behind all others of their owner."""
        rows = self.rows.get(owner, {})
        for key in keys:
            if key in rows:
                rows[key] = rows.pop(key)

    def forget_all(self) -> None:
        """FLUSHALL: the records of all rows are gone. What log and tables still say of the rows is forgotten where it is met."""
        self.statistics.dropped["forgotten"] += self.count()
        for owner in list(self.rows):
            self._forget_owner(owner)
        self.bytes = 0
        self.closed.clear()

    def _forget_owner(self, owner: NodeId) -> None:
        del self.rows[owner]
        self._oldest.pop(owner, None)

    def oldest_s(self, owner: NodeId, now: float) -> float:
        """For how long rows have been held for an owner."""
        return now - self._oldest.get(owner, now)

    def is_held(self, key: bytes) -> bool:
        """Whether any owner still lacks a key."""
        return any(key in rows for rows in self.rows.values())

    def count(self) -> int:
        """Rows held, for all owners."""
        return sum(map(len, self.rows.values()))

    def changes(self) -> list[Row]:
        """What the tables lack, as rows for a freeze; begins a new list."""
        changed, self._changed = self._changed, {}
        return [(HINTS_PARTITION, bytes.fromhex(owner) + key, _HELD if held else None) for (owner, key), held in changed.items()]


def owner_and_key(row_key: bytes) -> tuple[NodeId, bytes]:
    """The parts of a hint row's key in the tables."""
    return row_key[:20].hex(), row_key[20:]
