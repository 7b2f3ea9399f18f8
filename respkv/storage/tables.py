"""The sorted tables: RocksDB through rocksdict, behind a few methods.

What rocksdict 0.3.29 does, each measured, decides who may call what:

- `write`, `purge_below`, `delete_partition` and scans hold the GIL while they work: the loop calls them, in
  pieces of well below a millisecond. `get_many` and `flush` let go of it and belong in a thread.
- A write that RocksDB would delay or stop comes back as "Result incomplete" and has changed nothing;
  its batch is consumed and has to be built again.
- `items()` ends silently at a damaged block. Only `iter()` can be asked for its status.
- An iterator reads the upper bound of its range from the bytes object that it was given, without holding it:
  whoever has an iterator keeps its `ReadOptions` too. (`set_iterate_lower_bound` sets the upper one.)
- Options given to a second opening are ignored unless they are named for the column family too.
- Without raw mode it unpickles what it reads: code from a file.

A row's key is partition (2 bytes), xxh64 of the key (8), key. The write-ahead log is off, because the
commit log holds everything until `flush` has returned.
"""

from __future__ import annotations

import struct
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import rocksdict
from xxhash import xxh64_digest

from respkv.errors import DamageError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PARTITIONS_MAX: Final = 1 << 14
"""No ring has more. Rows of higher partitions are no records of keys, and a purge leaves them alone."""
META_PARTITION: Final = 0xFFFF
"""Holds a row about the tables themselves."""
ROWS_PER_WRITE_MAX: Final = 500
HASH_MAX: Final = 2**64 - 1

_PREFIX = struct.Struct(">HQ")
_PARTITION = struct.Struct(">H")
_PREFIX_BYTES: Final = _PREFIX.size
_STAMP_BYTES: Final = 8
_WATERMARK_KEY: Final = _PREFIX.pack(META_PARTITION, 0) + b"watermark"

_BLOOM_BITS_PER_KEY: Final = 10
# Freezes arrive as bursts: one buffer fills while two are written. More of them would be more memory.
_WRITE_BUFFERS_MAX: Final = 3
_LOG_FILE_BYTES_MAX: Final = 1 << 20
# A file that deletes this much of what it tells is merged with the files below it, and the disk has room again.
_DELETIONS_RATIO: Final = 0.5
# What RocksDB takes by default: 25 files of a level.
_COMPACTION_BYTES_MAX: Final = 25 * (64 << 20)


@dataclass(frozen=True, slots=True)
class TablesOptions:
    """Bounds of memory; what is larger is faster."""

    write_buffer_bytes: int = 16 << 20
    block_cache_bytes: int = 32 << 20
    open_files_max: int = 512


@dataclass(frozen=True, slots=True)
class TablesStatistics:
    """What RocksDB says of itself."""

    rows_estimate: int
    bytes_on_disk: int
    write_buffer_bytes: int
    block_cache_bytes: int
    index_bytes: int
    level0_files_count: int
    pending_compaction_bytes: int
    is_stalled: bool


def row_key(partition: int, key: bytes) -> bytes:
    """Where a key stands in the tables."""
    return _PARTITION.pack(partition) + xxh64_digest(key) + key


class Scan:
    """A walk through one partition in order of hashes, as the tables were when it began."""

    __slots__ = ("__weakref__", "_bounds", "_iterator", "last_hash")

    def __init__(self, iterator: rocksdict.RdictIter, bounds: rocksdict.ReadOptions) -> None:
        self._iterator: rocksdict.RdictIter | None = iterator
        self._bounds = bounds
        self.last_hash = -1
        """Of the row that was taken last."""
        self._end_if_done()

    @property
    def next_hash(self) -> int | None:
        """The hash of the row that comes next; None at the end."""
        iterator = self._iterator
        return None if iterator is None else _PREFIX.unpack_from(iterator.key())[1]

    def take(self, rows_max: int, *, bytes_max: int, only_hash: int | None = None) -> list[tuple[bytes, bytes]]:
        """Give the next (key, record) pairs, at least one, up to either bound; of one hash alone, if one is given."""
        iterator = self._iterator
        rows: list[tuple[bytes, bytes]] = []
        if iterator is None:
            return rows
        valid, key_of, value_of, step = iterator.valid, iterator.key, iterator.value, iterator.next
        taken_bytes = 0
        key = b""
        while len(rows) < rows_max and taken_bytes < bytes_max and valid():
            following: bytes = key_of()
            if only_hash is not None and _PREFIX.unpack_from(following)[1] != only_hash:
                break
            key = following
            record: bytes = value_of()
            rows.append((key[_PREFIX_BYTES:], record))
            taken_bytes += len(key) + len(record)
            step()
        if rows:
            self.last_hash = _PREFIX.unpack_from(key)[1]
        self._end_if_done()
        return rows

    def close(self) -> None:
        """Let go of the tables' files."""
        self._iterator = None

    def _end_if_done(self) -> None:
        iterator = self._iterator
        if iterator is not None and not iterator.valid():
            self._iterator = None
            _check_status(iterator)


class Tables:
    """One RocksDB in a directory."""

    def __init__(self, directory: Path, options: TablesOptions | None = None) -> None:
        """Open the tables, or make empty ones."""
        self._directory = directory
        options = options or TablesOptions()
        # RocksDB would begin anew in such a directory and delete the files that it does not know.
        if not (directory / "CURRENT").exists() and any(directory.glob("*.sst")):
            raise DamageError(f"cannot open the tables: there are files in {directory} and no CURRENT")
        self._block_cache = rocksdict.Cache(options.block_cache_bytes)
        opened = _rocksdb_options(options, self._block_cache)
        try:
            # Without the second argument a second opening would go on with an 8 MiB cache.
            self._rocksdb = rocksdict.Rdict(str(directory), opened, {"default": opened})
        except Exception as error:
            raise _wrapped(error, "open the tables") from error
        self._write_options = _write_options()
        self._scans: weakref.WeakSet[Scan] = weakref.WeakSet()

    def get_many(self, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """Read the records of (partition, key) pairs. For a thread: it waits for the disk without the GIL."""
        try:
            found = self._rocksdb.get([row_key(partition, key) for partition, key in keys])
        except Exception as error:
            raise _wrapped(error, "read from the tables") from error
        return cast("list[bytes | None]", found)

    def write(self, batch: Sequence[tuple[int, bytes, bytes | None]]) -> bool:
        """Put or delete (None) the records of (partition, key) at once; False: nothing written, try again later.

        Sorted, because neighbours cost RocksDB's memtable a sixth of what strangers cost.
        """
        assert len(batch) <= ROWS_PER_WRITE_MAX
        return self.write_raw(sorted((row_key(partition, key), record) for partition, key, record in batch))

    def flush(self) -> None:
        """Return when all that was written is durable. For a thread."""
        try:
            self._rocksdb.flush()
        except Exception as error:
            raise _wrapped(error, "flush the tables") from error

    def begin_scan(self, partition: int, *, first_hash: int = 0) -> Scan:
        """Begin to walk a partition from the first row of this hash or a higher one."""
        try:
            iterator, bounds = self._iterator(_PREFIX.pack(partition, first_hash), end=_PARTITION.pack(partition + 1))
        except Exception as error:
            raise _wrapped(error, "scan the tables") from error
        scan = Scan(iterator, bounds)
        self._scans.add(scan)
        return scan

    def scan(
        self, partition: int, *, first_hash: int = 0, limit: int, bytes_max: int = 1 << 62
    ) -> tuple[list[tuple[bytes, bytes]], int | None]:
        """Rows of a partition in order of hashes, and the hash to go on with; None at the end.

        All rows of one hash come together, even beyond the limit: going on can neither skip nor repeat one.
        """
        assert limit > 0
        scan = self.begin_scan(partition, first_hash=first_hash)
        rows = scan.take(limit, bytes_max=bytes_max)
        next_hash = scan.next_hash
        if next_hash is not None and next_hash == scan.last_hash:
            rows += scan.take(2**62, bytes_max=2**62, only_hash=next_hash)
            next_hash = scan.next_hash
        scan.close()
        return rows, next_hash

    def rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Walk all partitions in order: (partition, key, record). Holds the GIL: for a start, not for a node that serves."""
        try:
            iterator, _bounds = self._iterator(b"", end=_PARTITION.pack(META_PARTITION))
        except Exception as error:
            raise _wrapped(error, "read the tables") from error
        valid, key_of, value_of, step = iterator.valid, iterator.key, iterator.value, iterator.next
        while valid():
            key: bytes = key_of()
            yield (key[0] << 8) | key[1], key[_PREFIX_BYTES:], value_of()
            step()
        _check_status(iterator)

    def purge_below(self, stamp: bytes, *, first: bytes = b"", rows_max: int) -> bytes | None:
        """Look at some rows and delete those whose stamp is below this one; where to go on, None at the end.

        Looks and deletes in one step, so that no newer record can slip in between.
        Where RocksDB takes no writes now, it goes on where it was.
        """
        assert len(stamp) == _STAMP_BYTES
        try:
            iterator, _bounds = self._iterator(first, end=_PARTITION.pack(PARTITIONS_MAX))
        except Exception as error:
            raise _wrapped(error, "scan the tables") from error
        doomed: list[tuple[bytes, bytes | None]] = []
        for _ in range(rows_max):
            if not iterator.valid():
                break
            if iterator.value()[:_STAMP_BYTES] < stamp:
                doomed.append((iterator.key(), None))
            iterator.next()
        next_key: bytes | None = iterator.key() if iterator.valid() else None
        if next_key is None:
            _check_status(iterator)
        return next_key if not doomed or self.write_raw(doomed) else first

    def delete_partition(self, partition: int) -> bool:
        """Delete all rows of a partition; False: nothing deleted, try again later."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.delete_range(_PARTITION.pack(partition), _PARTITION.pack(partition + 1))
        return self._write_batch(batch)

    def raw_rows(self, partition: int, *, backwards: bool) -> Iterator[tuple[bytes, bytes]]:
        """Walk a partition from either end up to what is damaged, keys as they are stored."""
        first = _PARTITION.pack(partition)
        end = _PARTITION.pack(partition + 1) if partition < META_PARTITION else first + b"\xff" * _PREFIX_BYTES
        try:
            iterator, _bounds = self._iterator(first, end=end)
        except Exception as error:
            raise _wrapped(error, "scan the tables") from error
        if backwards:
            iterator.seek_for_prev(end)
        step = iterator.prev if backwards else iterator.next
        while iterator.valid():
            key: bytes = iterator.key()
            if not key.startswith(first):
                return
            yield key, iterator.value()
            step()
        _check_status(iterator)

    def write_raw(self, rows: Sequence[tuple[bytes, bytes | None]]) -> bool:
        """Put or delete (None) rows by their keys as they are stored; False: nothing written, try again later."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, record in rows:
            if record is None:
                delete(key)
            else:
                put(key, record)
        return self._write_batch(batch)

    def write_watermark(self, content: bytes) -> bool:
        """Remember something that is durable exactly when all that was written before it is."""
        return self.write_raw([(_WATERMARK_KEY, content)])

    def watermark(self) -> bytes | None:
        """What was remembered."""
        try:
            content: bytes | None = self._rocksdb.get(_WATERMARK_KEY)
        except Exception as error:
            raise _wrapped(error, "read the tables' watermark") from error
        return content

    def stalled(self) -> bool:
        """Whether RocksDB delays or stops writes, so that `write` would say no."""
        return bool(self._number("is-write-stopped") or self._number("actual-delayed-write-rate"))

    def rows_estimate(self) -> int:
        """How many rows there may be; deletions and rows that were written twice blur it."""
        return self._number("estimate-num-keys")

    def size_bytes(self) -> int:
        """What the tables take on the disk."""
        return self._number("total-sst-files-size")

    def compaction_bytes_max(self, coming_bytes: int) -> int:
        """What a compaction may take on the disk, with so much more in the tables: it deletes files when they are written anew."""
        return min(self.size_bytes() + coming_bytes, _COMPACTION_BYTES_MAX)

    def statistics(self) -> TablesStatistics:
        """What RocksDB says of itself."""
        return TablesStatistics(
            rows_estimate=self.rows_estimate(),
            bytes_on_disk=self.size_bytes(),
            write_buffer_bytes=self._number("cur-size-all-mem-tables"),
            block_cache_bytes=self._number("block-cache-usage"),
            index_bytes=self._number("estimate-table-readers-mem"),
            level0_files_count=int(self._rocksdb.property_value("rocksdb.num-files-at-level0") or 0),
            pending_compaction_bytes=self._number("estimate-pending-compaction-bytes"),
            is_stalled=self.stalled(),
        )

    def close(self) -> None:
        """Close everything; what was written and not flushed is lost. No other thread may be inside."""
        for scan in list(self._scans):
            scan.close()
        try:
            self._rocksdb.close()
        except Exception as error:
            raise _wrapped(error, "close the tables") from error

    def _iterator(self, first: bytes, *, end: bytes) -> tuple[rocksdict.RdictIter, rocksdict.ReadOptions]:
        """Begin at a key; the second must live as long as the first, which points into it."""
        bounds = rocksdict.ReadOptions()
        bounds.set_iterate_upper_bound(end)
        iterator = self._rocksdb.iter(bounds)
        iterator.seek(first)
        return iterator, bounds

    def _write_batch(self, batch: rocksdict.WriteBatch) -> bool:
        try:
            self._rocksdb.write(batch, self._write_options)
        except Exception as error:
            if str(error).startswith("Result incomplete"):
                return False
            raise _wrapped(error, "write to the tables") from error
        return True

    def _number(self, name: str) -> int:
        return self._rocksdb.property_int_value("rocksdb." + name) or 0


def hash_of(key: bytes) -> int:
    """The number by which a partition's rows are ordered."""
    return int.from_bytes(xxh64_digest(key), "big")


def _wrapped(error: Exception, what: str) -> StorageError:
    """Tell damage from failure: rocksdict raises plain exceptions whose text begins with RocksDB's status."""
    text = str(error)
    is_damage = text.startswith("Corruption") or "No such file or directory" in text
    return (DamageError if is_damage else StorageError)(f"cannot {what}: {text}")


def _check_status(iterator: rocksdict.RdictIter) -> None:
    """An iterator ends at a damaged block as it does at the last row: only its status tells."""
    try:
        iterator.status()
    except Exception as error:
        raise _wrapped(error, "scan the tables") from error


def _write_options() -> rocksdict.WriteOptions:
    options = rocksdict.WriteOptions()
    # The stub calls it a method; 0.3.29 has a property.
    options.disable_wal = True  # type: ignore[method-assign, assignment]
    # A write that has to wait would wait with the GIL, and the whole node with it.
    options.no_slowdown = True
    options.memtable_insert_hint_per_batch = True
    return options


def _rocksdb_options(options: TablesOptions, block_cache: rocksdict.Cache) -> rocksdict.Options:
    blocks = rocksdict.BlockBasedOptions()
    # Whole filters in memory (1.7 bytes a key): partitioned ones made a cold read five times as slow.
    blocks.set_bloom_filter(_BLOOM_BITS_PER_KEY, block_based=False)
    blocks.set_block_cache(block_cache)
    blocks.set_format_version(5)
    blocks.set_checksum_type(rocksdict.ChecksumType.xxh3())
    rocksdb = rocksdict.Options(raw_mode=True)
    rocksdb.create_if_missing(create_if_missing=True)
    rocksdb.set_block_based_table_factory(blocks)
    # On every level: compactions share two cores with the loop, and zstd cost them a fifth more.
    rocksdb.set_compression_type(rocksdict.DBCompressionType.lz4())
    rocksdb.set_write_buffer_size(options.write_buffer_bytes)
    rocksdb.set_max_write_buffer_number(_WRITE_BUFFERS_MAX)
    rocksdb.set_max_background_jobs(2)
    rocksdb.set_max_open_files(options.open_files_max)
    rocksdb.add_compact_on_deletion_collector_factory(0, 0, _DELETIONS_RATIO)
    rocksdb.set_max_compaction_bytes(_COMPACTION_BYTES_MAX)
    rocksdb.set_bytes_per_sync(1 << 20)
    rocksdb.set_max_log_file_size(_LOG_FILE_BYTES_MAX)
    rocksdb.set_keep_log_file_num(4)
    return rocksdb
