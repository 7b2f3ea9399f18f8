"""What can still be read of damaged tables, copied into new ones.

A damaged block hides some neighbours in one partition. That partition is read from both ends up to the
damage and reported; all others are copied whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.errors import DamageError
from respkv.storage.tables import META_PARTITION, ROWS_PER_WRITE_MAX

if TYPE_CHECKING:
    from respkv.storage.tables import Tables


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved, and what not."""

    rows_count: int
    damaged_partitions: frozenset[int]


def salvage(source: Tables, target: Tables) -> Salvage:
    """Copy all readable rows. Takes as long as it takes: for a start, before anybody is served."""
    rows_count = 0
    damaged: set[int] = set()
    batch: list[tuple[bytes, bytes | None]] = []

    def write() -> None:
        nonlocal rows_count, batch
        while not target.write_raw(batch):
            # The buffers are full: wait for the disk, there is nobody to keep waiting.
            target.flush()
        rows_count += len(batch)
        batch = []

    for partition in range(META_PARTITION + 1):
        for backwards in (False, True):
            try:
                for row in source.raw_rows(partition, backwards=backwards):
                    batch.append(row)
                    if len(batch) >= ROWS_PER_WRITE_MAX:
                        write()
                break
            except DamageError:
                damaged.add(partition)
    write()
    target.flush()
    return Salvage(rows_count=rows_count, damaged_partitions=frozenset(damaged))
