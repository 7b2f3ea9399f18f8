"""The part of memory that is on its way to the tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from respkv.placement.slots import key_slot
from respkv.versions.records import ABSENT

if TYPE_CHECKING:
    from respkv.storage.store import Store

Row = tuple[int, bytes, bytes | None]
"""(partition, key, record; None: delete)."""

BATCH_ROWS = 500


class Freeze:
    """The part of memory that goes to the tables while the next part fills."""

    __slots__ = ("_extra", "_keys", "_pinned", "_store", "number")

    def __init__(self, store: Store, *, keys: list[bytes], pinned: list[set[bytes]], extra: list[Row], number: int) -> None:
        """`keys` may name a key more than once; `extra` are rows that are not records of keys, such as hint rows."""
        self._store = store
        self._keys = keys
        self._pinned = pinned
        self._extra = extra
        self.number = number

    def holds(self, partition: int, key: bytes) -> bool:
        """Whether the way of a key to the tables is not confirmed yet. Known while memory is bounded."""
        return key in self._pinned[partition]

    def names(self, key: bytes) -> bool:
        """Whether a key is among those that go to the tables."""
        return key in self._keys

    def pin(self) -> None:
        """Memory becomes bounded while this is on its way: its keys may not be dropped."""
        for key in self._keys:
            partition = self._store.partition(key)
            self._pinned[partition].add(key)
            self._store.shards[partition].setdefault(key, ABSENT)

    def batches(self) -> Iterator[list[Row]]:
        """Rows in lists of at most `BATCH_ROWS`.

        Each row is what memory holds at that moment: it may be newer than the freeze, never older. What FLUSHALL took is deleted.
        """
        for start in range(0, len(self._extra), BATCH_ROWS):
            yield self._extra[start : start + BATCH_ROWS]
        store, keys = self._store, self._keys
        seen: set[bytes] = set()
        for start in range(0, len(keys), BATCH_ROWS):
            fresh = [key for key in dict.fromkeys(keys[start : start + BATCH_ROWS]) if key not in seen]
            seen.update(fresh)
            batch: list[Row] = []
            for key in fresh:
                partition = key_slot(key) >> store.shift
                record = store.shards[partition].get(key)
                batch.append((partition, key, record if record and record >= store.floor else None))
            yield batch
