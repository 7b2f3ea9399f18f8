"""The disk's shell: order, group commit, cold reads, freezing, failures."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from respkv.errors import DamageError, StorageError
from respkv.server.disk import KEYS_PER_LOAD, Disk
from respkv.server.turns import FLUSHED, LOADED, LOG_DURABLE, PRESSURE, SAVED, SCANNED, Arrival, Departures
from respkv.storage.directory import TABLES_DAMAGED_NAME, DataDirectory, state_path
from respkv.storage.files import read_checked
from respkv.storage.log import CommitLog
from respkv.storage.tables import Tables, TablesOptions, hash_of

Row = tuple[int, bytes, bytes | None]
PATIENCE_S = 20


class Inbox:
    """What a disk posts, and a way to wait for it."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._posted = trio.lowlevel.ParkingLot()

    def post(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self._posted.unpark_all()

    def of(self, kind: int) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival[0] == kind]

    async def wait_for(self, kind: int, *, count: int = 1) -> list[Arrival]:
        with trio.fail_after(PATIENCE_S):
            while len(self.of(kind)) < count:
                await self._posted.park()
        return self.of(kind)


class Freeze:
    """A freeze of given batches."""

    def __init__(self, batches: Sequence[Sequence[Row]], number: int = 1) -> None:
        self.number = number
        self._batches = batches
        self.taken = 0

    def batches(self) -> Iterator[Sequence[Row]]:
        for batch in self._batches:
            self.taken += 1
            yield batch


class Running:
    """A disk at work."""

    def __init__(self, directory: DataDirectory, tables: Tables, log: CommitLog) -> None:
        self.inbox = Inbox()
        self.directory = directory
        self.tables = tables
        self.log = log
        self.disk = Disk(log=log, tables=tables, directory=directory.path, post=self.inbox.post)

    def obey(self, **wanted: object) -> None:
        departures = Departures()
        for name, value in wanted.items():
            setattr(departures, name, value)
        self.disk.obey(departures)


@contextlib.asynccontextmanager
async def running(path: Path, *, tables: Tables | None = None, options: TablesOptions | None = None) -> AsyncIterator[Running]:
    directory = DataDirectory(path)
    recovery = directory.recover(owner=b"o" * 20, options=options)
    assert list(recovery.replay()) == []
    if tables is not None:
        recovery.tables.close()
    run = Running(directory, tables or recovery.tables, recovery.open_log(segment_bytes_max=1 << 20))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(run.disk.run)
            yield run
            nursery.cancel_scope.cancel()
    finally:
        # A broken log says so again.
        with contextlib.suppress(StorageError):
            run.disk.close()
        directory.close()


async def run_until_it_fails(path: Path, spoil: Callable[[Running], None]) -> None:
    """Give the exception group that ends a disk to the caller."""
    async with running(path) as run:
        spoil(run)
        with trio.fail_after(PATIENCE_S):
            await trio.sleep_forever()


async def test_the_log_is_written_when_obey_returns(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.obey(log=[(1, b"body of a record")])
        assert b"body of a record" in max((tmp_path / "log").glob("*.seg")).read_bytes()
        assert run.log.synced_position == 0, "nothing asked for a sync"


async def test_many_turns_share_a_sync(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        for turn in range(1, 101):
            run.obey(log=[(1, b"x")], sync=turn)
            if turn % 10 == 0:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(PATIENCE_S):
            while [arrival[1] for arrival in await run.inbox.wait_for(LOG_DURABLE)][-1] != 100:
                await trio.lowlevel.checkpoint()
        assert run.log.synced_position == run.log.position
        told = [arrival[1] for arrival in run.inbox.of(LOG_DURABLE)]
        assert told == sorted(told)
        assert len(told) < 100


async def test_cold_keys_are_loaded_in_the_order_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        assert run.tables.write([(1, b"%d" % number, b"r%d" % number) for number in range(500)])
        many = [(1, b"%d" % (number % 600)) for number in range(3 * KEYS_PER_LOAD + 5)]
        run.obey(loads=[(7, [(1, b"3"), (2, b"3"), (1, b"1")]), (8, many), (9, []), *((100 + n, [(1, b"%d" % n)]) for n in range(300))])
        await run.inbox.wait_for(LOADED, count=303)
        answers = {token: records for _, token, records in run.inbox.of(LOADED)}
        assert answers[7] == [b"r3", None, b"r1"]
        assert answers[8] == [b"r" + key if int(key) < 500 else None for _, key in many]
        assert answers[9] == []
        assert all(answers[100 + number] == [b"r%d" % number] for number in range(300))
        assert run.disk.statistics().keys_loaded_total == 3 + len(many) + 300


async def test_a_freeze_goes_to_the_tables_then_its_segments_go(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        first_segment = run.log.segment
        run.obey(log=[(1, b"before")])
        freeze = Freeze([[(1, b"%d" % number, b"r") for number in range(start, start + 500)] for start in (0, 500)], number=42)
        run.obey(log=[(1, b"in the same turn")], freeze=freeze)
        assert run.log.segment == first_segment + 1
        assert freeze.taken == 0, "later, and piece by piece"
        run.obey(log=[(1, b"after")])
        assert await run.inbox.wait_for(FLUSHED) == [(FLUSHED, 42)]
        assert len(list(run.tables.rows())) == 1_000
        assert run.tables.statistics().write_buffer_bytes < 10_000, "flushed"
        with trio.fail_after(PATIENCE_S):
            while len(list((tmp_path / "log").glob("*.seg"))) > 1:
                await trio.lowlevel.checkpoint()
    directory = DataDirectory(tmp_path)
    recovery = directory.recover(owner=b"o" * 20)
    assert [body for _, body, _ in recovery.replay()] == [b"after"]
    assert recovery.damages == []
    recovery.tables.close()
    directory.close()


async def test_a_freeze_leaves_the_loop_to_others_between_its_pieces(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        freeze = Freeze([[(1, b"%d" % (500 * batch + number), bytes(50)) for number in range(500)] for batch in range(20)])
        run.obey(freeze=freeze)
        seen = []
        with trio.fail_after(PATIENCE_S):
            while not run.inbox.of(FLUSHED):
                seen.append(freeze.taken)
                await trio.lowlevel.checkpoint()
        assert set(range(1, 21)) <= set(seen), "at most one batch at a time"
        assert run.disk.statistics().rows_written_total == 10_000


async def test_big_records_are_written_one_by_one(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.obey(freeze=Freeze([[(1, b"%d" % number, bytes(300_000)) for number in range(10)] + [(1, b"gone", None)]]))
        ticks = 0
        with trio.fail_after(PATIENCE_S):
            while not run.inbox.of(FLUSHED):
                ticks += 1
                await trio.lowlevel.checkpoint()
        assert ticks > 10
        assert len(list(run.tables.rows())) == 10


async def test_an_empty_freeze_is_answered_too(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        for number in (1, 2):
            run.obey(freeze=Freeze([], number=number))
            await run.inbox.wait_for(FLUSHED, count=number)


async def test_a_load_that_is_asked_after_a_piece_was_written_sees_it(tmp_path: Path) -> None:
    async with running(tmp_path) as run:

        class Asking(Freeze):
            def batches(self) -> Iterator[Sequence[Row]]:
                yield [(1, b"k", b"new")]
                run.obey(loads=[(5, [(1, b"k")])], scans=[(6, 1, 0, 10)])

        run.obey(freeze=Asking([]))
        assert await run.inbox.wait_for(LOADED) == [(LOADED, 5, [b"new"])]
        assert await run.inbox.wait_for(SCANNED) == [(SCANNED, 6, [(b"k", b"new")], None)]


class SlowTables(Tables):
    """Tables whose cold reads wait for leave."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.leave = threading.Event()

    def get_many(self, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        records = super().get_many(keys)
        assert self.leave.wait(PATIENCE_S)
        return records


async def test_what_was_flushed_is_reported_after_the_reads_that_missed_it(tmp_path: Path) -> None:
    """Else a node could drop a record from memory, and then take the tables' old word for it."""
    tables = SlowTables(tmp_path / "slow")
    async with running(tmp_path, tables=tables) as run:
        run.obey(loads=[(1, [(1, b"k")])])
        while run.disk.statistics().loads_waiting:
            await trio.lowlevel.checkpoint()
        run.obey(freeze=Freeze([[(1, b"k", b"new")]]))
        with trio.fail_after(PATIENCE_S):
            while run.disk.statistics().flushes_total == 0:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert run.inbox.of(FLUSHED) == []
        tables.leave.set()
        await run.inbox.wait_for(FLUSHED)
        kinds = [arrival[0] for arrival in run.inbox.arrivals if arrival[0] in {LOADED, FLUSHED}]
        assert kinds == [LOADED, FLUSHED]
        # A read that began behind the flush does not hold up the next report.
        run.obey(freeze=Freeze([], number=2), loads=[(2, [(1, b"k")])])
        await run.inbox.wait_for(FLUSHED, count=2)


async def test_scans_are_answered_by_hash_order_in_pages(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        keys = sorted((b"key:%d" % number for number in range(2_000)), key=hash_of)
        for start in range(0, 2_000, 500):
            assert run.tables.write([(partition, key, key) for partition in (3, 4) for key in keys[start : start + 250]])
            assert run.tables.write([(partition, key, key) for partition in (3, 4) for key in keys[start + 250 : start + 500]])
        found: list[tuple[bytes, bytes]] = []
        next_hash: int | None = 0
        token = 0
        while next_hash is not None:
            token += 1
            run.obey(scans=[(token, 3, next_hash, 600)])
            _, answered, rows, next_hash = (await run.inbox.wait_for(SCANNED, count=token))[-1]
            assert answered == token
            found += rows
        assert found == [(key, key) for key in keys]
        assert token == 4


async def test_a_scan_gives_all_rows_of_a_hash_however_many(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        for number in range(4):
            rows: list[tuple[bytes, bytes | None]] = [
                (b"\0\3" + place.to_bytes(8, "big") + b"%d" % (400 * number + step), b"r") for place in (5, 9) for step in range(200)
            ]
            assert run.tables.write_raw(rows)
        run.obey(scans=[(1, 3, 0, 10), (2, 3, 6, 10), (3, 3, 10, 10)])
        answers = await run.inbox.wait_for(SCANNED, count=3)
        assert [(token, len(found), next_hash) for _, token, found, next_hash in answers] == [(1, 800, 9), (2, 800, None), (3, 0, None)]


async def test_a_purge_runs_beside_everything_else(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        for start in range(0, 5_000, 500):
            batch: list[Row] = [(number % 9, b"%d" % number, number.to_bytes(8, "big")) for number in range(start, start + 500)]
            assert run.tables.write(batch)
        run.obey(purge_below=(1_000).to_bytes(8, "big"))
        await trio.lowlevel.checkpoint()
        run.obey(purge_below=(4_000).to_bytes(8, "big"))
        with trio.fail_after(PATIENCE_S):
            while len(list(run.tables.rows())) > 1_000:
                await trio.lowlevel.checkpoint()
        assert min(record for _, _, record in run.tables.rows()) == (4_000).to_bytes(8, "big")


async def test_the_disk_has_room_again_behind_a_purge(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.obey(freeze=Freeze([[(1, b"%d" % number, number.to_bytes(8, "big") + os.urandom(3_000)) for number in range(100)]]))
        await run.inbox.wait_for(FLUSHED)
        assert run.tables.size_bytes() > 300_000
        run.obey(purge_below=(90).to_bytes(8, "big"))
        with trio.fail_after(PATIENCE_S):
            while run.tables.size_bytes() > 50_000:
                await trio.lowlevel.checkpoint()
        assert len(list(run.tables.rows())) == 10


async def test_small_files_are_saved_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.obey(saves=[("ring", b"1"), ("cluster-value", b"2")])
        run.obey(saves=[("ring", b"3")])
        assert await run.inbox.wait_for(SAVED, count=3) == [(SAVED, "ring"), (SAVED, "cluster-value"), (SAVED, "ring")]
        assert read_checked(state_path(tmp_path, "ring")) == b"3"
    directory = DataDirectory(tmp_path)
    assert directory.small_files["ring"] == b"3"
    assert directory.small_files["cluster-value"] == b"2"
    directory.close()


async def test_free_space_is_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        _, free_bytes, is_stalled = (await run.inbox.wait_for(PRESSURE))[0]
        assert free_bytes > 0
        assert not is_stalled
        assert run.disk.statistics().free_bytes >= free_bytes


async def test_what_a_compaction_may_take_is_no_free_space(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.obey(freeze=Freeze([[(1, b"%d" % number, os.urandom(3_000)) for number in range(100)]]))
        await run.inbox.wait_for(FLUSHED)
        reported = len(run.inbox.of(PRESSURE))
        _, room_bytes, _ = (await run.inbox.wait_for(PRESSURE, count=reported + 1))[-1]
        assert run.tables.compaction_bytes_max(0) == run.tables.size_bytes() > 300_000
        # What is in the log comes to the tables as well before it goes, and is written anew with them.
        statistics = run.disk.statistics()
        log_bytes = statistics.log.bytes_on_disk
        assert log_bytes > 0
        assert room_bytes == statistics.free_bytes - log_bytes - run.tables.compaction_bytes_max(log_bytes)


async def test_a_stall_is_reported_and_passes(tmp_path: Path) -> None:
    async with running(tmp_path, options=TablesOptions(write_buffer_bytes=1 << 16)) as run:
        record = os.urandom(3_000)
        run.obey(freeze=Freeze([[(1, b"%d" % (100 * batch + number), record) for number in range(100)] for batch in range(60)]))
        await run.inbox.wait_for(FLUSHED)
        assert len(list(run.tables.rows())) == 6_000
        statistics = run.disk.statistics()
        assert statistics.write_stalls_total > 0
        assert any(arrival[2] for arrival in run.inbox.of(PRESSURE))


class Unwilling(Tables):
    """Tables that take nothing, as RocksDB does while it has too much to do."""

    def write(self, batch: Sequence[Row]) -> bool:
        return False


async def test_a_stall_in_the_first_moment_does_not_say_that_the_disk_is_full(tmp_path: Path) -> None:
    async with running(tmp_path, tables=Unwilling(tmp_path / "unwilling")) as run:
        run.obey(freeze=Freeze([[(1, b"key", b"record")]]))
        await run.inbox.wait_for(PRESSURE, count=3)
        assert any(is_stalled for _, _, is_stalled in run.inbox.of(PRESSURE))
        assert all(free_bytes > 0 for _, free_bytes, _ in run.inbox.of(PRESSURE))


# ------------------------------------------------------------------ failures


async def test_a_failed_append_comes_out_of_obey(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        os.dup2(os.open("/dev/full", os.O_WRONLY), run.log._segment.descriptor)
        with pytest.raises(StorageError, match="cannot append"):
            run.obey(log=[(1, b"x")])
        with pytest.raises(StorageError, match="cannot append"):
            run.obey(log=[(1, b"y")])


async def test_a_failed_sync_ends_the_disk_and_is_never_reported(tmp_path: Path) -> None:
    inboxes = []

    def spoil(run: Running) -> None:
        """A descriptor that takes bytes and cannot be synced stands in for a dying disk."""
        inboxes.append(run.inbox)
        os.dup2(pipe[1], run.log._segment.descriptor)
        run.obey(log=[(1, b"x")], sync=1)

    pipe = os.pipe()
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_until_it_fails(tmp_path, spoil)
    assert caught.group_contains(StorageError, match="cannot sync")
    assert inboxes[0].of(LOG_DURABLE) == []
    for descriptor in pipe:
        os.close(descriptor)


async def test_damage_in_the_tables_ends_the_disk_and_is_known_at_the_next_start(tmp_path: Path) -> None:
    keys = [(number % 50, b"key:%d" % number) for number in range(4_000)]
    async with running(tmp_path) as run:
        run.obey(
            freeze=Freeze(
                [[(partition, key, os.urandom(40)) for partition, key in keys[start : start + 500]] for start in range(0, 4_000, 500)]
            )
        )
        await run.inbox.wait_for(FLUSHED)
    path = max((tmp_path / "tables").glob("*.sst"), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff\x00" * 8)
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_until_it_fails(tmp_path, lambda run: run.obey(loads=[(1, keys)]))
    assert caught.group_contains(DamageError, match="Corruption")
    assert state_path(tmp_path, TABLES_DAMAGED_NAME).exists()
    directory = DataDirectory(tmp_path)
    recovery = directory.recover(owner=b"o" * 20)
    assert any("partitions lost some" in sentence for sentence in recovery.damages)
    records = recovery.tables.get_many(keys)
    assert 0 < records.count(None) < 200
    recovery.tables.close()
    directory.close()
