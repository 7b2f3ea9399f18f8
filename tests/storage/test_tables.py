"""The sorted tables: order, paging, stalls, purging, damage, crashes."""

from __future__ import annotations

import os
import pickle
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respkv.errors import DamageError, StorageError
from respkv.storage.tables import META_PARTITION, Tables, TablesOptions, hash_of, row_key
from respkv.storage.tables_salvage import salvage

Rows = list[tuple[bytes, bytes]]


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    opened = Tables(tmp_path / "tables")
    yield opened
    opened.close()


def write_all(tables: Tables, rows: list[tuple[int, bytes, bytes | None]]) -> None:
    for start in range(0, len(rows), 500):
        assert tables.write(rows[start : start + 500])


def walk(tables: Tables, partition: int, *, limit: int) -> list[Rows]:
    pages: list[Rows] = []
    next_hash: int | None = 0
    while next_hash is not None:
        rows, next_hash = tables.scan(partition, first_hash=next_hash, limit=limit)
        pages.append(rows)
        assert len(pages) < 10_000
    return pages


def test_records_are_read_back_in_the_order_asked(tables: Tables) -> None:
    assert tables.write([(1, b"a", b"A"), (2, b"a", b"AA"), (1, b"empty", b""), (1, b"gone", b"x")])
    assert tables.write([(1, b"gone", None), (1, b"never", None)])
    asked = [(2, b"a"), (1, b"gone"), (1, b"a"), (3, b"a"), (1, b"empty"), (1, b"a")]
    assert tables.get_many(asked) == [b"AA", None, b"A", None, b"", b"A"]
    assert tables.get_many([]) == []


def test_a_scan_is_in_order_of_hashes_and_stays_in_its_partition(tables: Tables) -> None:
    rows = [(partition, b"key:%d" % number, b"%d" % partition) for number in range(2_000) for partition in (0, 6, 7, 8, 16_383)]
    write_all(tables, [*rows])
    for is_flushed in (False, True):
        if is_flushed:
            tables.flush()
        for partition in (0, 7, 16_383):
            pages = walk(tables, partition, limit=77)
            found = [row for page in pages for row in page]
            assert {record for _, record in found} == {b"%d" % partition}
            assert len(found) == 2_000
            hashes = [hash_of(key) for key, _ in found]
            assert hashes == sorted(hashes)
            assert all(len(page) == 77 for page in pages[:-1])
        assert walk(tables, 5, limit=10) == [[]]


def colliding_rows(partition: int, hashes: list[int]) -> list[tuple[bytes, bytes | None]]:
    """Rows as if xxh64 had given these hashes: an attacker can find keys that share one."""
    return [(struct.pack(">HQ", partition, place) + b"%06d" % number, b"r%d" % number) for number, place in enumerate(hashes)]


@settings(max_examples=60)
@given(hashes=st.lists(st.sampled_from([0, 1, 2, 5, 2**63, 2**64 - 1]), max_size=60), limit=st.integers(1, 20))
def test_no_page_loses_or_repeats_rows_that_share_a_hash(tmp_path_factory: pytest.TempPathFactory, hashes: list[int], limit: int) -> None:
    tables = Tables(tmp_path_factory.mktemp("tables"))
    assert tables.write_raw(colliding_rows(3, hashes))
    assert tables.write_raw(colliding_rows(4, [0]))
    pages = walk(tables, 3, limit=limit)
    found = [record for page in pages for _, record in page]
    assert sorted(found) == sorted(b"r%d" % number for number in range(len(hashes)))
    assert len(pages) <= len(set(hashes)) + 1
    tables.close()


def test_a_scan_may_be_bounded_by_bytes(tables: Tables) -> None:
    assert tables.write([(1, b"key:%d" % number, bytes(1_000)) for number in range(20)])
    rows, next_hash = tables.scan(1, limit=100, bytes_max=3_000)
    assert len(rows) == 3
    assert next_hash is not None
    rows, _ = tables.scan(1, first_hash=next_hash, limit=100, bytes_max=1)
    assert len(rows) == 1, "always at least one"


def test_the_end_of_a_scan_survives_what_the_process_does_meanwhile(tables: Tables) -> None:
    """The bound is bytes that rocksdict points to and does not hold."""
    write_all(tables, [(partition, b"%d" % number, b"x") for partition in range(20) for number in range(50)])
    tables.flush()
    for round_number in range(200):
        partition = round_number % 20
        scan = tables.begin_scan(partition)
        _litter = [os.urandom(2) for _ in range(50)]
        assert len(scan.take(1_000, bytes_max=1 << 30)) == 50
        assert scan.next_hash is None
        assert len(list(tables.raw_rows(partition, backwards=bool(round_number % 2)))) == 50


def test_all_rows_but_those_about_the_tables(tables: Tables) -> None:
    assert tables.write([(0, b"a", b"1"), (9, b"b", b"2"), (0xFFFE, b"hint", b"3")])
    assert tables.write_watermark(b"w")
    assert list(tables.rows()) == [(0, b"a", b"1"), (9, b"b", b"2"), (0xFFFE, b"hint", b"3")]
    assert tables.watermark() == b"w"


def stamp(number: int) -> bytes:
    return number.to_bytes(8, "big")


@pytest.mark.parametrize("rows_max", [1, 7, 10_000])
def test_a_purge_deletes_what_is_below_the_stamp_alone(tables: Tables, rows_max: int) -> None:
    rows = [(number % 5, b"key:%d" % number, stamp(number) + b"rest") for number in range(300)]
    write_all(tables, [*rows])
    assert tables.write([(0xFFFE, b"hint", stamp(1))])
    assert tables.write_watermark(stamp(1))
    first: bytes | None = b""
    while first is not None:
        following = tables.purge_below(stamp(200), first=first, rows_max=rows_max)
        assert following != first
        first = following
    left = list(tables.rows())
    assert sorted(record for partition, _, record in left if partition < 5) == [stamp(number) + b"rest" for number in range(200, 300)]
    assert left[-1] == (0xFFFE, b"hint", stamp(1))
    assert tables.watermark() == stamp(1)


def test_a_partition_can_be_dropped(tables: Tables) -> None:
    write_all(tables, [(partition, b"%d" % number, b"x") for partition in (6, 7, 8) for number in range(400)])
    tables.flush()
    assert tables.delete_partition(7)
    assert [partition for partition, _, _ in tables.rows()] == [6] * 400 + [8] * 400
    assert tables.get_many([(7, b"1"), (8, b"1")]) == [None, b"x"]
    assert tables.write([(7, b"1", b"again")])
    assert tables.scan(7, limit=10) == ([(b"1", b"again")], None)


def test_a_stall_is_an_answer_and_loses_nothing(tmp_path: Path) -> None:
    """A tiny buffer that fills faster than it is written: RocksDB must say so instead of waiting with the GIL."""
    tables = Tables(tmp_path, TablesOptions(write_buffer_bytes=1 << 16))
    record = random.Random(1).randbytes(3_000)
    stalls = 0
    for number in range(0, 20_000, 100):
        batch: list[tuple[int, bytes, bytes | None]] = [(number % 64, b"%d" % (number + step), record) for step in range(100)]
        while not tables.write(batch):
            stalls += 1
            tables.flush()
    assert stalls > 0
    tables.flush()
    assert sum(1 for _ in tables.rows()) == 20_000
    tables._rocksdb.compact_range(None, None)
    assert not tables.stalled()
    tables.close()


def test_the_write_ahead_log_stays_empty(tables: Tables, tmp_path: Path) -> None:
    write_all(tables, [(1, b"%d" % number, bytes(100)) for number in range(1_000)])
    assert [path.stat().st_size for path in (tmp_path / "tables").glob("*.log")] == [0]


def test_values_are_never_unpickled(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    content = pickle.dumps({"a": 1})
    assert tables.write([(1, b"k", content)])
    tables.close()
    tables = Tables(tmp_path)
    assert tables.get_many([(1, b"k")]) == [content]
    assert list(tables.rows()) == [(1, b"k", content)]
    tables.close()


def test_options_hold_for_a_second_opening_too(tmp_path: Path) -> None:
    for _ in range(2):
        tables = Tables(tmp_path, TablesOptions(block_cache_bytes=5 << 20))
        assert tables._number("block-cache-capacity") == 5 << 20
        assert tables.write([(1, b"k", b"v")])
        tables.flush()
        tables.close()


def test_a_scan_that_nobody_ended_does_not_keep_the_tables_open(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    write_all(tables, [(1, b"%d" % number, b"x") for number in range(100)])
    scan = tables.begin_scan(1)
    scan.take(3, bytes_max=1 << 20)
    with pytest.raises(StorageError, match="open the tables"):
        Tables(tmp_path)
    tables.close()
    again = Tables(tmp_path)
    assert sum(1 for _ in again.rows()) == 100
    again.close()
    with pytest.raises(StorageError):
        tables.get_many([(1, b"1")])


def test_cold_reads_in_a_thread_while_the_loop_writes(tables: Tables) -> None:
    write_all(tables, [(1, b"%d" % number, b"old") for number in range(5_000)])
    tables.flush()
    seen: set[bytes | None] = set()

    def read() -> None:
        for start in range(0, 5_000, 50):
            seen.update(tables.get_many([(1, b"%d" % number) for number in range(start, start + 50)]))

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 5_000, 500):
        assert tables.write([(1, b"%d" % number, b"new") for number in range(start, start + 500)])
    thread.join()
    assert seen <= {b"old", b"new"}
    assert set(tables.get_many([(1, b"%d" % number) for number in range(5_000)])) == {b"new"}


def test_statistics(tables: Tables) -> None:
    write_all(tables, [(1, b"%d" % number, random.Random(number).randbytes(50)) for number in range(1_000)])
    assert tables.statistics().write_buffer_bytes > 50_000
    tables.flush()
    statistics = tables.statistics()
    assert statistics.rows_estimate == tables.rows_estimate() == 1_000
    assert statistics.bytes_on_disk == tables.size_bytes() > 50_000
    assert statistics.level0_files_count == 1
    assert not statistics.is_stalled


# ------------------------------------------------------------------ crashes

WRITER = """
import os, sys, pathlib
from respkv.storage.tables import Tables
tables = Tables(pathlib.Path(sys.argv[1]))
assert tables.write([(1, b"%d" % number, b"flushed") for number in range(400)])
assert tables.write_watermark(b"mark")
tables.flush()
assert tables.write([(1, b"%d" % number, b"not flushed") for number in range(200, 600)])
os.kill(os.getpid(), 9)
"""


def test_after_a_kill_all_that_was_flushed_is_there(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "tables")], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    tables = Tables(tmp_path / "tables")
    records = tables.get_many([(1, b"%d" % number) for number in range(600)])
    # What was not flushed may be there or not: the commit log has it.
    assert set(records[:200]) == {b"flushed"}
    assert set(records[200:400]) <= {b"flushed", b"not flushed"}
    assert set(records[400:]) <= {None, b"not flushed"}
    assert tables.watermark() == b"mark"
    tables.close()


# ------------------------------------------------------------------ damage


def flushed_tables(directory: Path, *, rows_count: int = 20_000) -> list[tuple[int, bytes]]:
    rng = random.Random(1)
    tables = Tables(directory)
    keys = [(number % 200, b"key:%d" % number) for number in range(rows_count)]
    write_all(tables, [(partition, key, rng.randbytes(60)) for partition, key in keys])
    assert tables.write_watermark(b"mark")
    tables.flush()
    tables.close()
    return keys


def damage_a_block(directory: Path) -> None:
    path = max(directory.glob("*.sst"), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff\x00" * 8)


def test_a_damaged_block_is_never_silent(tmp_path: Path) -> None:
    keys = flushed_tables(tmp_path)
    damage_a_block(tmp_path)
    tables = Tables(tmp_path)
    with pytest.raises(DamageError, match="Corruption"):
        tables.get_many(keys)
    with pytest.raises(DamageError, match="Corruption"):
        list(tables.rows())
    with pytest.raises(DamageError, match="Corruption"):
        sum(len(walk(tables, partition, limit=30)) for partition in range(200))
    with pytest.raises(DamageError, match="Corruption"):
        tables.purge_below(stamp(0), rows_max=1 << 30)
    tables.close()


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    flushed_tables(tmp_path)
    next(tmp_path.glob("*.sst")).unlink()
    with pytest.raises(DamageError):
        Tables(tmp_path)


def test_what_can_be_read_of_damaged_tables_is_saved(tmp_path: Path) -> None:
    keys = flushed_tables(tmp_path / "old")
    damage_a_block(tmp_path / "old")
    source, target = Tables(tmp_path / "old"), Tables(tmp_path / "new")
    saved = salvage(source, target)
    assert 1 <= len(saved.damaged_partitions) <= 3
    records = target.get_many(keys)
    missing = {partition for (partition, _), record in zip(keys, records, strict=True) if record is None}
    assert missing <= saved.damaged_partitions
    lost_count = records.count(None)
    assert 0 < lost_count < 200, "a block, not a partition"
    assert target.watermark() == b"mark"
    assert saved.rows_count == len(keys) - lost_count + 1
    source.close()
    target.close()


def test_a_row_stands_under_partition_and_hash() -> None:
    assert row_key(5, b"key") == b"\x00\x05" + hash_of(b"key").to_bytes(8, "big") + b"key"
    assert row_key(META_PARTITION, b"")[:2] == b"\xff\xff"
