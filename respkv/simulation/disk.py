"""A node's disk: what a process finds again after its death, and after a power cut.

A process that dies leaves everything that it appended to the log; a power cut leaves what was synced, and of the rest some
prefix. Of rows written to the tables and not flushed either leaves some prefix, because the tables have no log of their own.
A small file is the old one until its save is reported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from respkv.server import turns

if TYPE_CHECKING:
    from respkv.server.turns import Departures
    from respkv.simulation.schedule import Schedule

PARTITIONS_MAX = 1 << 14
"""Rows of higher partitions are no records of keys, and a purge leaves them alone, as in the real tables."""
RowKey = tuple[int, bytes]
BATCH_PAUSE_S = 0.002
"""Between two pieces of a freeze."""


class Disk:
    """Log, tables and files of one node, across its processes."""

    def __init__(self, schedule: Schedule, rng: random.Random, *, sync_s: tuple[float, float], read_s: tuple[float, float]) -> None:
        """`sync_s` and `read_s` are bounds of how long a sync and a read take."""
        self._schedule = schedule
        self._rng = rng
        self.sync_s = sync_s
        self.read_s = read_s
        self.slowness = 1.0
        self.log: list[tuple[int, bytes]] = []
        self.log_start = 0
        """Position of the first record that is kept; a position counts records."""
        self.synced = 0
        self.tables: dict[RowKey, bytes] = {}
        """What was flushed."""
        self._unflushed: list[tuple[RowKey, bytes | None]] = []
        """Rows that were written since, in order."""
        self._fresh: dict[RowKey, bytes | None] = {}
        """The same by key."""
        self.files: dict[str, bytes] = {}
        self._incarnation = 0
        self._report: Callable[[turns.Arrival], None] = lambda arrival: None
        self._sync_wanted = 0
        self._is_syncing = False
        self._purge_floor: bytes | None = None
        self.lost_records_total = 0

    @property
    def end(self) -> int:
        """The position behind the last record."""
        return self.log_start + len(self.log)

    # --- a process and its end

    def attach(self, report: Callable[[turns.Arrival], None]) -> None:
        """A process begins to use the disk; `report` takes what happens as an arrival."""
        self._incarnation += 1
        self._report = report
        self._sync_wanted = 0
        self._is_syncing = False

    def records(self) -> Iterator[tuple[int, bytes, int]]:
        """The log, as a recovery reads it: (kind, body, position behind it)."""
        for index, (kind, body) in enumerate(self.log):
            yield kind, body, self.log_start + index + 1

    def rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """The tables, as a start reads them."""
        for (partition, key), record in self.tables.items():
            yield partition, key, record

    def crash(self, *, power_lost: bool) -> None:
        """The process is gone, and maybe the machine lost its power."""
        self._incarnation += 1
        self._report = lambda arrival: None
        for key, record in self._unflushed[: self._rng.randint(0, len(self._unflushed))]:
            self._put(key, record)
        self._unflushed.clear()
        self._fresh.clear()
        if power_lost:
            survivors = self._rng.randint(max(self.synced, self.log_start), self.end) - self.log_start
            self.lost_records_total += len(self.log) - survivors
            del self.log[survivors:]
        # A start makes durable what it found before it goes on.
        self.synced = self.end

    def wipe(self) -> None:
        """Somebody deletes the directory."""
        self.log.clear()
        self.log_start = self.synced = 0
        self.tables.clear()
        self.files.clear()

    def set_aside(self, *names: str) -> None:
        """A start moves log and tables out of the way, and deletes these small files."""
        kept = {name: content for name, content in self.files.items() if name not in names}
        self.wipe()
        self.files.update(kept)

    def _put(self, key: RowKey, record: bytes | None) -> None:
        if record is None:
            self.tables.pop(key, None)
        else:
            self.tables[key] = record

    # --- what a process wants

    def append(self, records: list[tuple[int, bytes]]) -> None:
        """Append to the log."""
        self.log += records

    def obey(self, departures: Departures) -> None:
        """Do what concerns the disk after a turn."""
        if departures.log:
            self.append(departures.log)
        if departures.sync:
            self._sync_wanted = departures.sync
            if not self._is_syncing:
                self._begin_sync()
        for token, keys in departures.loads:
            self._later(self.read_s, self._load, token, keys)
        for token, partition, first_hash, limit in departures.scans:
            self._later(self.read_s, self._scan, token, partition, first_hash, limit)
        for name, data in departures.saves:
            self._later(self.sync_s, self._save, name, data)
        if departures.purge_below is not None:
            self._purge(departures.purge_below)
        if departures.freeze is not None:
            freeze = departures.freeze
            self._schedule.after(BATCH_PAUSE_S, self._write_piece, self._incarnation, freeze, freeze.batches(), self.end)

    def _later(self, bounds: tuple[float, float], action: Callable[..., None], *arguments: object) -> None:
        delay = self._rng.uniform(*bounds) * self.slowness
        self._schedule.after(delay, self._unless_dead, self._incarnation, action, arguments)

    def _unless_dead(self, incarnation: int, action: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if incarnation == self._incarnation:
            action(*arguments)

    def _begin_sync(self) -> None:
        """One sync at a time; it covers what was appended before it, and all who wait by then."""
        self._is_syncing = True
        turn, self._sync_wanted = self._sync_wanted, 0
        self._later(self.sync_s, self._synced, turn, self.end)

    def _synced(self, turn: int, position: int) -> None:
        self.synced = max(self.synced, position)
        self._is_syncing = False
        self._report((turns.LOG_DURABLE, turn))
        if self._sync_wanted:
            self._begin_sync()

    def _save(self, name: str, data: bytes) -> None:
        self.files[name] = data
        self._report((turns.SAVED, name))

    # --- tables

    def row(self, partition: int, key: bytes) -> bytes | None:
        """What the tables tell of a key now."""
        return self._get((partition, key))

    def row_keys(self) -> set[bytes]:
        """All keys of records in the tables."""
        return {key for partition, key in self.tables.keys() | self._fresh.keys() if partition < PARTITIONS_MAX}

    def _get(self, key: RowKey) -> bytes | None:
        return self._fresh[key] if key in self._fresh else self.tables.get(key)

    def _load(self, token: int, keys: list[RowKey]) -> None:
        self._report((turns.LOADED, token, [self._get(key) for key in keys]))

    def _scan(self, token: int, partition: int, first_hash: int, limit: int) -> None:
        names = {key for place, key in self.tables if place == partition}
        names |= {key for place, key in self._fresh if place == partition}
        order = sorted((xxh64_intdigest(key), key) for key in names)
        rows: list[tuple[bytes, bytes]] = []
        next_hash: int | None = None
        for place, key in order:
            record = self._get((partition, key))
            if place < first_hash or record is None:
                continue
            if len(rows) >= limit and xxh64_intdigest(rows[-1][0]) != place:
                next_hash = place
                break
            rows.append((key, record))
        self._report((turns.SCANNED, token, rows, next_hash))

    def _write(self, partition: int, key: bytes, record: bytes | None) -> None:
        self._unflushed.append(((partition, key), record))
        self._fresh[partition, key] = record

    def _purge(self, floor: bytes) -> None:
        for key in list(self.tables.keys() | self._fresh.keys()):
            record = self._get(key)
            if record is not None and record[:8] < floor and key[0] < PARTITIONS_MAX:
                self._write(*key, None)

    def _write_piece(self, incarnation: int, freeze: object, batches: Iterator[list[tuple[int, bytes, bytes | None]]], end: int) -> None:
        if incarnation != self._incarnation:
            return
        batch = next(batches, None)
        if batch is None:
            self._later(self.sync_s, self._flushed, freeze, len(self._unflushed), end)
            return
        for partition, key, record in batch:
            self._write(partition, key, record)
        self._schedule.after(BATCH_PAUSE_S * self.slowness, self._write_piece, incarnation, freeze, batches, end)

    def _flushed(self, freeze: object, count: int, end: int) -> None:
        """All rows that were written are durable: the log before the freeze can go."""
        for key, record in self._unflushed[:count]:
            self._put(key, record)
        del self._unflushed[:count]
        self._fresh = dict(self._unflushed)
        dropped = end - self.log_start
        del self.log[:dropped]
        self.log_start = end
        self._report((turns.FLUSHED, freeze.number))  # type: ignore[attr-defined]
