"""What a node knows when it starts again: the commit log, then the tables, merged. Pure.

The shell that owns the disk reads; this decides what it means. The server and the simulator start their nodes by it.

Rule 1: replaying is merging, so it does not matter how much of the log the tables hold already. Only drops are not merges:
what the log says last about a hint row, or about a copy that was given back, beats what the tables still hold.
Rule 2: what the log does not confirm may have reached nobody else: it is owed to all other replicas of its key.
These debts go into the log before the node runs: the next confirmed mark covers all that lies before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from respkv.errors import DamageError
from respkv.repair.hints import HINTS_PARTITION, HintStatistics, owner_and_key
from respkv.repair.remains import REAPED_PARTITION
from respkv.server.turns import LOG_CONFIRMED, LOG_HINTS, LOG_HINTS_DROPPED, LOG_KEYS_DROPPED, LOG_MARK, LOG_REAPED, LOG_WRITES
from respkv.versions.records import ABSENT, VALUE_EXPIRING, newest_stamp_of, pack_stamp

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.repair.hints import HintBook
    from respkv.storage.store import Store
    from respkv.versions.clock import HybridClock

LogRecord = tuple[int, bytes, int]
"""(kind, body, position behind it)."""
Row = tuple[int, bytes, bytes]
"""(partition, key, record), as the tables hold it; hint rows among them."""

_decode_list = msgspec.msgpack.Decoder(list[bytes]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_owned = msgspec.msgpack.Decoder(tuple[str, list[bytes]]).decode


@dataclass(frozen=True, slots=True)
class Restored:
    """What was found."""

    log_records_count: int
    log_bytes: int
    rows_count: int
    unconfirmed_count: int
    """Keys in the tail of the log that are sent to their other replicas again."""
    owed: list[tuple[int, bytes]]
    """(kind, body) that the shell appends to the log before the first turn: the hint rows of that tail."""


class Restoration:
    """Fills a store, a hint book and a clock; one for each start."""

    def __init__(self, *, store: Store, hints: HintBook, clock: HybridClock, now: float) -> None:
        """All three are empty, but for the store's floor (FLUSHALL)."""
        self._store = store
        self._hints = hints
        self._clock = clock
        self._now = now
        self._tail: deque[tuple[int, list[bytes]]] = deque()
        self._marks: dict[int, int] = {}
        """Position of each mark. Every process counts its marks from 1: a confirmation means the last of its number."""
        self._rows: dict[tuple[NodeId, bytes], bool] = {}
        self._forgotten: set[bytes] = set()
        self._log_records_count = self._log_bytes = self._rows_count = 0

    def replay(self, log: Iterable[LogRecord]) -> None:
        """Take in the log, oldest first. Raises `DamageError` for a record that no release writes."""
        for kind, body, position in log:
            self._log_records_count += 1
            self._log_bytes += len(body)
            try:
                self._replay_one(kind, body, position)
            except msgspec.MsgspecError as error:
                msg = f"log record of kind {kind} before position {position}: {error}"
                raise DamageError(msg) from None
        for (owner, key), held in self._rows.items():
            if held:
                self._hints.restore(owner, (key,), self._now, changed=True)
            else:
                self._hints.restore_drop(owner, key)

    def _replay_one(self, kind: int, body: bytes, position: int) -> None:
        if kind == LOG_WRITES:
            pairs = _decode_list(body)
            self._merge(pairs)
            self._tail.append((position, pairs[::2]))
        elif kind == LOG_HINTS:
            owner, pairs = _decode_owned(body)
            self._merge(pairs)
            for key in pairs[::2]:
                self._rows[owner, key] = True
        elif kind == LOG_HINTS_DROPPED:
            owner, keys = _decode_owned(body)
            for key in keys:
                self._rows[owner, key] = False
        elif kind == LOG_MARK:
            self._marks[int.from_bytes(body)] = position
        elif kind == LOG_CONFIRMED:
            confirmed = self._marks.pop(int.from_bytes(body), 0)
            while self._tail and self._tail[0][0] <= confirmed:
                self._tail.popleft()
        elif kind == LOG_REAPED:
            self._reaped(body)
        elif kind == LOG_KEYS_DROPPED:
            store = self._store
            for key in _decode_list(body):
                partition = store.partition(key)
                store.shards[partition].setdefault(key, ABSENT)
                store.forget(partition, key)
                self._forgotten.add(key)
        else:
            msg = f"log record of unknown kind {kind}"
            raise DamageError(msg)

    def _reaped(self, below: bytes) -> None:
        if len(below) != len(pack_stamp(0)):
            msg = "a stamp of another length"
            raise DamageError(msg)
        self._store.reaped_below = max(self._store.reaped_below, below)
        self._clock.absorb(int.from_bytes(below) - 1)

    def _merge(self, pairs: list[bytes]) -> None:
        self._store.merge_pairs(pairs)
        for record in pairs[1::2]:
            self._clock.absorb(newest_stamp_of(record))

    def warm(self, rows: Iterable[Row], *, memory_bytes_max: int) -> None:
        """Take in the tables, after the log."""
        warm, forgotten, from_log = self._store.warm, self._forgotten, self._rows
        newest = ABSENT
        for partition, key, record in rows:
            self._rows_count += 1
            if partition == HINTS_PARTITION:
                owner, hinted = owner_and_key(key)
                if (owner, hinted) not in from_log:
                    self._hints.restore(owner, (hinted,), self._now, changed=False)
                continue
            if partition == REAPED_PARTITION:
                self._reaped(record)
                continue
            newest = max(newest, record[:8])
            if record[16] >= VALUE_EXPIRING:
                newest = max(newest, pack_stamp(newest_stamp_of(record)))
            if key not in forgotten:
                warm(partition, key, record, memory_bytes_max=memory_bytes_max)
        self._clock.absorb(int.from_bytes(newest, "big"))

    def owe_tail(self, *, me: NodeId, primaries: Callable[[int], Sequence[NodeId]]) -> Restored:
        """Make hints of what the log does not confirm, for all other replicas. `primaries` names those of a partition."""
        keys = dict.fromkeys(key for _, found in self._tail for key in found)
        store = self._store
        pairs_by_owner: dict[NodeId, list[bytes]] = {}
        for key in keys:
            record = store.get(key)
            for owner in primaries(store.partition(key)) if record else ():
                if owner != me:
                    self._hints.restore(owner, (key,), self._now, changed=True)
                    pairs_by_owner.setdefault(owner, []).extend((key, record))
        self._hints.statistics = HintStatistics()
        owed = [(LOG_HINTS, _encode([owner, pairs])) for owner, pairs in pairs_by_owner.items()]
        return Restored(self._log_records_count, self._log_bytes, self._rows_count, len(keys), owed)


def restore(
    *,
    me: NodeId,
    primaries: Callable[[int], Sequence[NodeId]],
    store: Store,
    hints: HintBook,
    clock: HybridClock,
    log: Iterable[LogRecord],
    rows: Iterable[Row],
    memory_bytes_max: int,
    now: float,
) -> Restored:
    """Fill an empty store, hint book and clock from a log and tables. The store's floor is already set."""
    restoration = Restoration(store=store, hints=hints, clock=clock, now=now)
    restoration.replay(log)
    restoration.warm(rows, memory_bytes_max=memory_bytes_max)
    return restoration.owe_tail(me=me, primaries=primaries)
