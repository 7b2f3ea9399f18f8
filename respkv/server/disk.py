"""The shell around a node's disk: carries out what a turn wants of it, and reports back. Decides nothing.

Rule 1: `obey` appends to the log, and does nothing else that can wait; it is called before the turn's frames and
replies leave. All other work belongs to the tasks of `run`.
Rule 2: what holds the GIL (writes to and scans of the tables) is done here on the loop, in pieces with a checkpoint
between two; what lets go of it (sync, cold reads, flush) is done in threads.
Rule 3: FLUSHED is reported after every read that began before it. A node may drop a record from memory then, and no
read may still be on its way that looked at the tables before the record was there.
Rule 4: a failure is not handled. It ends `run` (or comes out of `obey`), and the process with it.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from respkv.errors import DamageError
from respkv.server.turns import FLUSHED, LOADED, LOG_DURABLE, PRESSURE, SAVED, SCANNED
from respkv.storage.directory import TABLES_DAMAGED_NAME, pack_watermark, state_path
from respkv.storage.files import disk_space, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from respkv.server.turns import Arrival, Departures
    from respkv.storage.log import CommitLog, LogStatistics
    from respkv.storage.tables import Tables, TablesStatistics

Row = tuple[int, bytes, bytes | None]
T = TypeVar("T")

LOAD_THREADS: Final = 2
KEYS_PER_LOAD: Final = 128
# A piece of work on the loop takes about a quarter of a millisecond.
ROWS_PER_PIECE: Final = 250
BYTES_PER_PIECE: Final = 256 << 10
SCAN_BYTES_MAX: Final = 4 << 20
"""An answer to a scan ends short of its limit here."""
STALL_PAUSE_S: Final = 0.01
PRESSURE_INTERVAL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """Counters of a node's disk since the process began."""

    log: LogStatistics
    tables: TablesStatistics
    keys_loaded_total: int
    loads_waiting: int
    scans_waiting: int
    rows_written_total: int
    rows_scanned_total: int
    write_stalls_total: int
    flushes_total: int
    free_bytes: int


class _Bell:
    """Wakes one task; rung while the task is busy, it is heard afterwards."""

    __slots__ = ("_lot", "_rung")

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._rung = False

    def ring(self) -> None:
        self._rung = True
        self._lot.unpark()

    def is_awaited_by(self, count: int) -> bool:
        """Whether so many tasks have nothing to do until it is rung."""
        return len(self._lot) == count

    async def wait_rung(self) -> None:
        while not self._rung:
            await self._lot.park()
        self._rung = False


def _no_crash(_point: str) -> None:
    """In production nobody wants to know."""


class Disk:
    """Obeys the departures that concern the disk."""

    def __init__(
        self,
        *,
        log: CommitLog,
        tables: Tables,
        directory: Path,
        post: Callable[[Arrival], None],
        crash_hook: Callable[[str], None] = _no_crash,
    ) -> None:
        """`post` takes an arrival on the loop's thread; `crash_hook` is told where a test may end the process."""
        self._log = log
        self._tables = tables
        self._directory = directory
        self._post = post
        self._crash_hook = crash_hook
        self._sync_turn = 0
        self._drop_below: int | None = None
        self._freeze: tuple[Any, int] | None = None
        self._loads: deque[tuple[int, int, list[tuple[int, bytes]]]] = deque()
        """(epoch, token, keys)."""
        self._scans: deque[tuple[int, tuple[int, int, int, int]]] = deque()
        self._saves: deque[tuple[str, bytes]] = deque()
        self._purge_stamp: bytes | None = None
        self._log_bell, self._freeze_bell, self._load_bell = _Bell(), _Bell(), _Bell()
        self._scan_bell, self._purge_bell, self._save_bell, self._reads_bell = _Bell(), _Bell(), _Bell(), _Bell()
        # Reads that begin before a flush ends are of an older epoch than those that begin behind it.
        self._epoch = 0
        self._reads_of_epoch = {0: 0}
        self._is_quiet = False
        # A stall may be reported before anything else is: it must not say that there is no room.
        self._free_bytes = disk_space(directory).free_bytes
        self._keys_loaded_total = self._rows_written_total = self._rows_scanned_total = 0
        self._write_stalls_total = self._flushes_total = 0

    def obey(self, departures: Departures) -> None:
        """Append to the log now; begin everything else."""
        if departures.log:
            self._log.append_all(departures.log)
            self._crash_hook("after_append")
        if departures.freeze is not None:
            # Behind the append: what is frozen includes this turn, so its log belongs to the older segments.
            assert self._freeze is None
            self._freeze = (departures.freeze, self._log.rotate())
            self._crash_hook("after_rotate")
            self._ring(self._freeze_bell)
        if departures.sync:
            self._sync_turn = departures.sync
            self._ring(self._log_bell)
        for token, keys in departures.loads:
            self._loads.append((self._begin_read(), token, keys))
            self._ring(self._load_bell)
        for scan in departures.scans:
            self._scans.append((self._begin_read(), scan))
            self._ring(self._scan_bell)
        if departures.saves:
            self._saves.extend(departures.saves)
            self._ring(self._save_bell)
        if departures.purge_below is not None:
            self._purge_stamp = departures.purge_below
            self._ring(self._purge_bell)

    def _ring(self, bell: _Bell) -> None:
        self._is_quiet = False
        bell.ring()

    @property
    def is_quiet(self) -> bool:
        """Whether none of the tasks has anything to do, nor waits for a thread. Asked every turn: looked up while it is not so."""
        if not self._is_quiet:
            bells = (self._log_bell, self._freeze_bell, self._scan_bell, self._purge_bell, self._save_bell)
            self._is_quiet = self._load_bell.is_awaited_by(LOAD_THREADS) and all(bell.is_awaited_by(1) for bell in bells)
        return self._is_quiet

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; raises (in an exception group) the StorageError that ends it otherwise."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_log)
            nursery.start_soon(self._write_tables)
            for _ in range(LOAD_THREADS):
                nursery.start_soon(self._load)
            nursery.start_soon(self._scan)
            nursery.start_soon(self._purge)
            nursery.start_soon(self._save)
            nursery.start_soon(self._watch_pressure)
            task_status.started()

    def close(self) -> None:
        """Sync and close everything; `run` is over. Raises what broke before."""
        try:
            self._log.sync()
        finally:
            self._log.close()
            self._tables.close()

    def statistics(self) -> DiskStatistics:
        """Counters for INFO."""
        return DiskStatistics(
            log=self._log.statistics(),
            tables=self._tables.statistics(),
            keys_loaded_total=self._keys_loaded_total,
            loads_waiting=len(self._loads),
            scans_waiting=len(self._scans),
            rows_written_total=self._rows_written_total,
            rows_scanned_total=self._rows_scanned_total,
            write_stalls_total=self._write_stalls_total,
            flushes_total=self._flushes_total,
            free_bytes=self._free_bytes,
        )

    # --- the log

    async def _keep_log(self) -> None:
        """Sync and drop, one after the other; all that asked meanwhile share the next sync."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await self._log_bell.wait_rung()
            if self._drop_below is not None:
                segment, self._drop_below = self._drop_below, None
                self._crash_hook("before_drop")
                await trio.to_thread.run_sync(self._log.drop_below, segment, limiter=limiter)
                self._crash_hook("after_drop")
            if self._sync_turn:
                turn, self._sync_turn = self._sync_turn, 0
                await trio.to_thread.run_sync(self._log.sync, limiter=limiter)
                self._crash_hook("after_sync")
                self._post((LOG_DURABLE, turn))

    # --- to the tables

    async def _write_tables(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            await self._freeze_bell.wait_rung()
            assert self._freeze is not None
            freeze, segment = self._freeze
            for batch in freeze.batches():
                for piece in _pieces(batch):
                    await self._write(functools.partial(self._tables.write, piece))
                    self._rows_written_total += len(piece)
                    self._crash_hook("after_batch")
            await self._write(functools.partial(self._tables.write_watermark, pack_watermark(self._log, segment)))
            await trio.to_thread.run_sync(self._tables.flush, limiter=limiter)
            self._flushes_total += 1
            self._crash_hook("after_flush")
            await self._wait_older_reads()
            self._freeze = None
            self._post((FLUSHED, freeze.number))
            self._drop_below = segment
            self._ring(self._log_bell)

    async def _write(self, write: Callable[[], bool]) -> None:
        """Write once RocksDB takes it, and let others have the loop."""
        while not write():
            self._write_stalls_total += 1
            self._post((PRESSURE, self._room_bytes(), True))
            await trio.sleep(STALL_PAUSE_S)
        await trio.lowlevel.checkpoint()

    async def _purge(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            await self._purge_bell.wait_rung()
            stamp = self._purge_stamp
            assert stamp is not None
            first: bytes | None = b""
            while first is not None and stamp == self._purge_stamp:
                following = self._tables.purge_below(stamp, first=first, rows_max=ROWS_PER_PIECE)
                if following == first:
                    await trio.sleep(STALL_PAUSE_S)
                first = following
                await trio.lowlevel.checkpoint()
            # Deletions give nothing back to the disk before they are in a table, and a node whose disk is full is given no more to write.
            await trio.to_thread.run_sync(self._tables.flush, limiter=limiter)

    # --- from the tables

    def _begin_read(self) -> int:
        self._reads_of_epoch[self._epoch] += 1
        return self._epoch

    def _end_read(self, epoch: int) -> None:
        self._reads_of_epoch[epoch] -= 1
        if epoch != self._epoch:
            self._ring(self._reads_bell)

    async def _wait_older_reads(self) -> None:
        older = self._epoch
        self._epoch += 1
        self._reads_of_epoch[self._epoch] = 0
        while self._reads_of_epoch[older]:
            await self._reads_bell.wait_rung()
        del self._reads_of_epoch[older]

    async def _load(self) -> None:
        """Read what was asked for, many askers at once."""
        limiter = trio.CapacityLimiter(1)
        while True:
            while not self._loads:
                await self._load_bell.wait_rung()
            jobs = [self._loads.popleft()]
            keys_count = len(jobs[0][2])
            while self._loads and keys_count + len(self._loads[0][2]) <= KEYS_PER_LOAD:
                jobs.append(self._loads.popleft())
                keys_count += len(jobs[-1][2])
            if self._loads:
                self._ring(self._load_bell)
            keys = [key for _, _, asked in jobs for key in asked]
            records: list[bytes | None] = []
            for start in range(0, len(keys), KEYS_PER_LOAD):
                part = keys[start : start + KEYS_PER_LOAD]
                records += await self._guarded(functools.partial(trio.to_thread.run_sync, self._tables.get_many, part, limiter=limiter))
            self._keys_loaded_total += len(keys)
            start = 0
            for epoch, token, asked in jobs:
                self._post((LOADED, token, records[start : start + len(asked)]))
                start += len(asked)
                self._end_read(epoch)

    async def _scan(self) -> None:
        while True:
            while not self._scans:
                await self._scan_bell.wait_rung()
            epoch, (token, partition, first_hash, limit) = self._scans.popleft()
            rows, next_hash = await self._guarded(functools.partial(self._scan_in_pieces, partition, first_hash, limit))
            self._rows_scanned_total += len(rows)
            self._post((SCANNED, token, rows, next_hash))
            self._end_read(epoch)

    async def _scan_in_pieces(self, partition: int, first_hash: int, limit: int) -> tuple[list[tuple[bytes, bytes]], int | None]:
        """Rows up to the limit and to the end of their hash: the caller goes on by hash and must miss none."""
        scan = self._tables.begin_scan(partition, first_hash=first_hash)
        try:
            rows: list[tuple[bytes, bytes]] = []
            bytes_count = 0
            while scan.next_hash is not None:
                is_full = len(rows) >= limit or bytes_count >= SCAN_BYTES_MAX
                if is_full and scan.next_hash != scan.last_hash:
                    break
                piece = scan.take(
                    ROWS_PER_PIECE if is_full else min(ROWS_PER_PIECE, limit - len(rows)),
                    bytes_max=BYTES_PER_PIECE,
                    only_hash=scan.last_hash if is_full else None,
                )
                rows += piece
                bytes_count += sum(len(record) for _, record in piece)
                await trio.lowlevel.checkpoint()
            return rows, scan.next_hash
        finally:
            scan.close()

    async def _guarded(self, read: Callable[[], Any]) -> Any:
        """Read; on damage leave word for the next start, which copies what can be read into new tables."""
        try:
            return await read()
        except DamageError as error:
            marker = state_path(self._directory, TABLES_DAMAGED_NAME)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(write_atomic, marker, str(error).encode())
            raise

    # --- small files and free space

    async def _save(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            while not self._saves:
                await self._save_bell.wait_rung()
            name, content = self._saves.popleft()
            await trio.to_thread.run_sync(write_atomic, state_path(self._directory, name), content, limiter=limiter)
            self._post((SAVED, name))

    async def _watch_pressure(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            space = await trio.to_thread.run_sync(disk_space, self._directory, limiter=limiter)
            self._free_bytes = space.free_bytes
            self._post((PRESSURE, self._room_bytes(), self._tables.stalled()))
            await trio.sleep(PRESSURE_INTERVAL_S)

    def _room_bytes(self) -> int:
        """What is left when the tables have all that the log holds, and a compaction runs.

        One that finds no room ends the node, and begins again when that is started.
        """
        log_bytes = self._log.statistics().bytes_on_disk
        return self._free_bytes - log_bytes - self._tables.compaction_bytes_max(log_bytes)


def _pieces(batch: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut a batch so that writing a piece takes no longer than a piece may."""
    start = bytes_count = 0
    for index, (_, key, record) in enumerate(batch):
        if bytes_count >= BYTES_PER_PIECE or index - start >= ROWS_PER_PIECE:
            yield batch[start:index]
            start, bytes_count = index, 0
        bytes_count += len(key) + len(record or b"")
    if start < len(batch):
        yield batch[start:]
