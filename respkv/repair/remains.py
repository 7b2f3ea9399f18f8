"""What is left of the past, and when it may go: deletions, expired values, the vectors of siblings. Pure.

Rule 1: a deletion goes when all replicas have it, and nobody holds anything older: no hint, no copy for another node, no request
under way. Never by age alone: a replica that was away longer would bring the deleted value back.
Rule 2: how it goes:

    look   the leader of a partition (its first primary) asks all members: the other primaries whether they hold exactly this,
           on their disks, and everybody whether they hold a hint for the key, or a copy that is not theirs to keep
    rest   what was sent before the last of them answered has arrived, or never will: links that are silent longer are closed
    reap   all drop it, if they still hold exactly this

Rule 3: whoever was missed out, or forgot in a power cut that it dropped it, brings it back by anti-entropy: it is reaped again.
Rule 4: what all replicas have of a key with siblings is shortened in the same way to what tells more than the past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.versions.records import SIBLINGS, expiry_of, holds_value, is_remains, newest_stamp_of, pack_stamp, siblings_in
from respkv.versions.vectors import settled

if TYPE_CHECKING:
    from respkv.storage.freeze import Row
    from respkv.storage.store import Store

REAPED_PARTITION = 0xFFFD
"""No ring has it: it holds the stamp below which deletions were dropped."""
KEEP = 0
REAP = 1
SETTLE = 2


class Look(msgspec.Struct, array_like=True):
    """What a leader asks of all members."""

    epoch: int
    n: int
    keys: list[bytes]
    hashes: list[int]
    """Of each key in its version."""
    plans: list[int]
    """REAP or SETTLE for each."""


class Reap(msgspec.Struct, array_like=True):
    """What a leader tells all members to do, if they still hold the same."""

    epoch: int
    n: int
    below: bytes
    """A stamp above all that is reaped."""
    keys: list[bytes]
    hashes: list[int]
    plans: list[int]


def plan(record: bytes, *, wall_ms: int) -> int:
    """What is to become of a record once all replicas have it."""
    if not is_remains(record):
        return KEEP
    if not holds_value(record):
        return REAP if _expired_at(record) <= wall_ms else KEEP
    return SETTLE if settled(record) != record else KEEP


def _expired_at(record: bytes) -> int:
    """When the last of what is left of a record's values expired; 0 where nothing is left, or it was deleted."""
    parts = siblings_in(record) if record[16] == SIBLINGS else [record]
    return max((expiry_of(part) or 0 for part in parts), default=0)


def is_ripe(record: bytes, *, clock: int, wall_ms: int, grace_ms: int) -> bool:
    """Whether a record is so old that no request with an older one is under way. The clock is that of the stamps."""
    if (clock >> 16) - (newest_stamp_of(record) >> 16) < grace_ms:
        return False
    return holds_value(record) or wall_ms - _expired_at(record) >= grace_ms


def stamp_above(record: bytes) -> bytes:
    """The stamp below which writes come too late once a record was reaped."""
    return pack_stamp(newest_stamp_of(record) + 1)


def reaped_rows(store: Store) -> list[Row]:
    """What a freeze takes to the tables."""
    return [(REAPED_PARTITION, b"below", store.reaped_below)] if store.reaped_below else []
