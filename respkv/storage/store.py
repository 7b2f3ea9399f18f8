"""The records in memory: one dictionary a partition, and which of them the tables lack. Pure.

Rule 1: a record is only ever merged into a key that is in memory, or known to be absent. Whoever holds a key
that is neither loads it first (`cold`), so nothing here ever shows or writes an older version.
Rule 2: what the tables lack is never dropped from memory: `maxmemory` bounds memory, it evicts no data.
Rule 3: one dictionary a partition keeps each resize, copy and drop far below a millisecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence

from respkv.placement.slots import key_slot, partition_shift
from respkv.storage.freeze import Freeze, Row
from respkv.storage.hash_trees import LATER_THAN_ALL, HashTrees
from respkv.versions.records import (
    ABSENT,
    SIBLINGS,
    VALUE,
    VALUE_EXPIRING,
    VERSION_BYTES,
    holds_value,
    identity,
    is_remains,
    is_visible,
    siblings_count,
    will_expire,
    without_expired_value,
)
from respkv.versions.vectors import merge, raised

ABSENT_KEYS_MAX = 1 << 16
"""So many keys are remembered not to exist; `maxmemory` may leave less room."""
#: What a key costs beside its own bytes and those of its record: two object headers and a share of the dictionary.
ENTRY_OVERHEAD_BYTES = 33 + 33 + 100


class Store:
    """Records by partition and key, with counts of live keys."""

    __slots__ = (
        "_absent",
        "_expiry_cursor",
        "_graveyard",
        "_victim",
        "bounded",
        "changed",
        "changing",
        "conflicted",
        "counting",
        "dirty",
        "expiries_dropped",
        "floor",
        "frozen",
        "live",
        "lost",
        "newest",
        "noted_above",
        "pinned",
        "reaped_below",
        "remains",
        "remains_dropped",
        "removals",
        "resident",
        "shards",
        "shift",
        "trees",
        "used_bytes",
        "volatile",
    )

    def __init__(self, *, ring_size: int) -> None:
        """An empty store: everything there is, is in memory (`resident`)."""
        self.shift = partition_shift(ring_size)
        self.shards: list[dict[bytes, bytes]] = [{} for _ in range(ring_size)]
        self.dirty: list[bytes] = []
        """Keys that were written since the last freeze, some of them more than once: a list costs half of what a set does."""
        self.changed: dict[bytes, bytes] = {}
        """Keys that were written since the hash trees last looked, and the identity of the record that each had then."""
        self.changing: dict[bytes, bytes] = {}
        """The same from the look before: what the trees follow just now."""
        self.newest = ABSENT
        """The record with the latest stamp of all that were ever here."""
        self.noted_above = LATER_THAN_ALL
        """A record that is later than this was written since the last look, so its key is among `changed`: nobody need look there."""
        self.trees = HashTrees(ring_size=ring_size)
        self.pinned: list[set[bytes]] = [set() for _ in range(ring_size)]
        """The same by partition, while memory is bounded: what may not be dropped."""
        self.live: list[int] = [0] * ring_size
        """Keys that hold a value, by partition, whether in memory or not."""
        self.conflicted: list[int] = [0] * ring_size
        """Keys that hold more than one value, by partition."""
        self.lost: set[int] = set()
        """Partitions of which a copy was given up that others may still hold, since this node began as its present actor."""
        self.volatile: list[set[bytes]] = [set() for _ in range(ring_size)]
        """Keys in memory with an expiry, by partition."""
        self.expiries_dropped = 0
        """How many records with an expiry have left memory, or were not taken into it: they expire unseen."""
        self.remains: list[dict[bytes, None]] = [{} for _ in range(ring_size)]
        """By partition, in the same order everywhere: keys in memory that may go, or be shortened, once all replicas have them."""
        self.remains_dropped: list[int] = [0] * ring_size
        """How many more only the tables hold, as far as is known."""
        self.reaped_below = ABSENT
        """A stamp (8 bytes) above all deletions that were dropped: an older write of a key that is absent comes too late."""
        self.removals: list[int] = [0] * ring_size
        """How often keys were taken out of memory, by partition: what else happens to a dictionary only appends to it."""
        self.frozen: Freeze | None = None
        self.resident = True
        """Whether a key that is not in memory does not exist."""
        self.bounded = False
        """Whether `used_bytes` and `pinned` are kept: something may leave memory."""
        self.used_bytes = 0
        self.floor = ABSENT
        """Records below this stamp (8 bytes) do not exist: FLUSHALL. Memory may hold some until they are swept."""
        self.counting: int | None = None
        """A partition from which nothing leaves memory, because somebody counts what the tables alone hold of it."""
        self._victim = 0
        self._expiry_cursor = 0
        self._graveyard: list[dict[bytes, bytes]] = []
        self._absent: deque[tuple[int, bytes]] = deque()
        """Keys that the tables were asked for in vain, oldest first."""

    def partition(self, key: bytes) -> int:
        """The partition of a key."""
        return key_slot(key) >> self.shift

    def get(self, key: bytes) -> bytes:
        """The record of a key that is in memory or known to be absent; ABSENT if there is none."""
        record = self.shards[key_slot(key) >> self.shift].get(key, ABSENT)
        return record if record >= self.floor else ABSENT

    def merge(self, partition: int, key: bytes, record: bytes) -> bool:
        """Merge a record into a key. Returns whether another version that was held already wins over it."""
        shard = self.shards[partition]
        old = shard.get(key)
        if old is None or record > old:
            if record < self.floor:
                return True
            if not old or old[16] != VALUE or record[16] != VALUE or old < self.floor:
                if record[16] == SIBLINGS or (old and old[16] == SIBLINGS):
                    return self._join(partition, key, record)
                self._recount(partition, key, old or ABSENT, record)
            shard[key] = record
            self.dirty.append(key)
            self.newest = max(self.newest, record)
            if (old is None or old <= self.noted_above or self.bounded or self.floor) and key not in self.changed:
                self.changed[key] = identity(old) if old and old >= self.floor else ABSENT
            if self.bounded:
                self.pinned[partition].add(key)
                self.used_bytes += len(record) - (len(old) if old is not None else -len(key) - ENTRY_OVERHEAD_BYTES)
            return False
        if old[16] == SIBLINGS or record[16] == SIBLINGS:
            return self._join(partition, key, record)
        return old != record or record < self.floor

    def _join(self, partition: int, key: bytes, record: bytes) -> bool:
        """Merge where one of the two is a set of siblings: neither need win. Returns whether a plain record does not come out on top."""
        old = self.shards[partition].get(key, ABSENT)
        merged = merge(old, record)
        if self.floor:
            merged = raised(merged, self.floor)
        if merged != old:
            self._put(partition, key, merged)
        return record[16] != SIBLINGS and merged[:VERSION_BYTES] != record[:VERSION_BYTES]

    def _put(self, partition: int, key: bytes, record: bytes) -> None:
        """Replace what memory holds of a key."""
        shard = self.shards[partition]
        old = shard.get(key)
        shard[key] = record
        self._note(partition, key)
        self._mark_changed(key, old or ABSENT)
        self.newest = max(self.newest, record)
        self._recount(partition, key, old or ABSENT, record)
        if self.bounded:
            self.used_bytes += len(record) - (len(old) if old is not None else -len(key) - ENTRY_OVERHEAD_BYTES)

    def merge_pairs(self, pairs: Sequence[bytes]) -> list[int]:
        """Merge [key, record, key, record, ...]. Returns the indices (of pairs) that another version wins over."""
        merge, shift, items = self.merge, self.shift, iter(pairs)
        written = enumerate(zip(items, items, strict=True))
        return [index for index, (key, record) in written if merge(key_slot(key) >> shift, key, record)]

    def merge_many(self, partitions: Sequence[int], pairs: Sequence[bytes]) -> list[int]:
        """As `merge_pairs`, for a caller that knows the partitions: what a replica does most, without a call for each record."""
        keys, records = pairs[::2], pairs[1::2]
        if self.bounded or self.floor:
            items = enumerate(zip(partitions, keys, records, strict=True))
            return [index for index, (partition, key, record) in items if self.merge(partition, key, record)]
        shards, changed, noted_above, newest = self.shards, self.changed, self.noted_above, self.newest
        newer: list[int] = []
        for index, (partition, key, record) in enumerate(zip(partitions, keys, records, strict=True)):
            shard = shards[partition]
            old = shard.get(key)
            if old is None or record > old:
                if not old or old[16] != VALUE or record[16] != VALUE:
                    if record[16] == SIBLINGS or (old and old[16] == SIBLINGS):
                        if self._join(partition, key, record):
                            newer.append(index)
                        continue
                    self._recount(partition, key, old or ABSENT, record)
                shard[key] = record
                newest = max(newest, record)
                if (old is None or old <= noted_above) and key not in changed:
                    changed[key] = identity(old) if old else ABSENT
            elif old[16] == SIBLINGS or record[16] == SIBLINGS:
                if self._join(partition, key, record):
                    newer.append(index)
            elif old != record:
                newer.append(index)
        self.dirty += keys
        self.newest = max(self.newest, newest)
        return newer

    def _note(self, partition: int, key: bytes) -> None:
        self.dirty.append(key)
        if self.bounded:
            self.pinned[partition].add(key)

    def _came_unnoted(self, record: bytes) -> None:
        """A record of the tables is in memory now, and the trees know it already."""
        self.newest = max(self.newest, record)
        if record > self.noted_above:
            self.noted_above = LATER_THAN_ALL

    def _mark_changed(self, key: bytes, old: bytes) -> None:
        if key not in self.changed:
            self.changed[key] = identity(old) if old and old >= self.floor else ABSENT

    def _recount(self, partition: int, key: bytes, old: bytes, new: bytes) -> None:
        self.live[partition] += holds_value(new) - (old >= self.floor and holds_value(old))
        if (old and old[16] == SIBLINGS) or (new and new[16] == SIBLINGS):
            self.conflicted[partition] += (siblings_count(new) > 1) - (old >= self.floor and siblings_count(old) > 1)
        if will_expire(new):
            self.volatile[partition].add(key)
        elif old and old[16] >= VALUE_EXPIRING:
            self.volatile[partition].discard(key)
        if is_remains(new):
            self.remains[partition][key] = None
        elif old:
            self.remains[partition].pop(key, None)

    # --- what is not in memory

    def cold(self, keys: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """(partition, key) of those that only the tables can tell about."""
        if self.resident:
            return []
        missing = []
        for key in keys:
            partition = key_slot(key) >> self.shift
            if key not in self.shards[partition]:
                missing.append((partition, key))
        return missing

    def loaded(self, partition: int, key: bytes, record: bytes | None) -> None:
        """Take in what the tables hold of a key. It is already counted."""
        shard = self.shards[partition]
        if key in shard:
            return
        if record is None or record < self.floor:
            record = ABSENT
            self._absent.append((partition, key))
        elif self.floor:
            record = raised(record, self.floor)
        shard[key] = record
        self._came_unnoted(record)
        self.used_bytes += len(key) + len(record) + ENTRY_OVERHEAD_BYTES
        if will_expire(record):
            self.volatile[partition].add(key)
        if is_remains(record):
            self.remains[partition][key] = None

    def warm(self, partition: int, key: bytes, record: bytes, *, memory_bytes_max: int) -> None:
        """Take in a row of the tables at start, after the log was replayed: count it, and keep it while there is room."""
        if record < self.floor:
            return
        record = raised(record, self.floor)
        shard = self.shards[partition]
        held = shard.get(key)
        if held is not None:
            # The log has it as well: it is among what changed since the trees began.
            merged = merge(held, record)
            if merged != held:
                shard[key] = merged
                self.newest = max(self.newest, merged)
                self._recount(partition, key, held, merged)
                self.used_bytes += len(merged) - len(held)
            return
        self.trees.toggle(partition, key, identity(record))
        self._came_unnoted(record)
        if memory_bytes_max and self.used_bytes > memory_bytes_max:
            self.resident = False
            self.live[partition] += holds_value(record)
            self.conflicted[partition] += siblings_count(record) > 1
            self.expiries_dropped += will_expire(record)
            self.remains_dropped[partition] += is_remains(record)
            return
        shard[key] = record
        self.used_bytes += len(key) + len(record) + ENTRY_OVERHEAD_BYTES
        self._recount(partition, key, ABSENT, record)

    def bound(self, memory_bytes_max: int) -> None:
        """Begin or cease to count bytes, when `maxmemory` changes. What has left memory comes back only when it is asked for."""
        if memory_bytes_max and not self.bounded:
            for key in self.dirty:
                partition = self.partition(key)
                self.pinned[partition].add(key)
                # One that was forgotten is still in the tables.
                self.shards[partition].setdefault(key, ABSENT)
            if self.frozen is not None:
                self.frozen.pin()
            self.used_bytes = sum(len(key) + len(record) + ENTRY_OVERHEAD_BYTES for shard in self.shards for key, record in shard.items())
        self.bounded = bool(memory_bytes_max) or not self.resident

    def evict(self, memory_bytes_max: int, *, keep: dict[bytes, int], partitions_max: int = 8) -> int:
        """Drop records that the tables have, partition by partition, until memory fits. Returns how many.

        `keep` holds keys that a parked request waits for.
        """
        dropped = 0
        for _ in range(partitions_max):
            if self.used_bytes <= memory_bytes_max:
                break
            partition = self._victim
            self._victim = (partition + 1) % len(self.shards)
            if partition == self.counting:
                continue
            shard, pinned, frozen = self.shards[partition], self.pinned[partition], self.frozen
            volatile, remains = self.volatile[partition], self.remains[partition]
            for key in [
                key for key in shard if key not in pinned and key not in keep and (frozen is None or not frozen.holds(partition, key))
            ]:
                record = shard.pop(key)
                self.trees.take_in_one(self, partition, key, record)
                self.used_bytes -= len(key) + len(record) + ENTRY_OVERHEAD_BYTES
                self.removals[partition] += 1
                dropped += 1
                if key in volatile:
                    volatile.discard(key)
                    self.expiries_dropped += 1
                if key in remains:
                    del remains[key]
                    self.remains_dropped[partition] += 1
        if dropped:
            self.resident = False
        return dropped

    def drop_absent(self, *, keep: Container[bytes]) -> None:
        """Remember no more than some of the keys that do not exist: clients can ask for any number of them. `keep` as for `evict`."""
        for _ in range(len(self._absent) - ABSENT_KEYS_MAX):
            partition, key = self._absent.popleft()
            shard, frozen = self.shards[partition], self.frozen
            if shard.get(key) != ABSENT:
                continue
            is_pinned = key in self.pinned[partition] or (frozen is not None and frozen.holds(partition, key))
            if is_pinned or key in keep or partition == self.counting:
                self._absent.append((partition, key))
                continue
            del shard[key]
            self.trees.take_in_one(self, partition, key, ABSENT)
            self.used_bytes -= len(key) + ENTRY_OVERHEAD_BYTES
            self.removals[partition] += 1

    # --- to the tables

    def freeze(self, number: int, extra: list[Row]) -> Freeze:
        """Freeze what the tables lack. Only one part may be frozen at a time."""
        assert self.frozen is None
        self.frozen = Freeze(self, keys=self.dirty, pinned=self.pinned, extra=extra, number=number)
        self.dirty = []
        self.pinned = [set() for _ in self.shards]
        return self.frozen

    def is_on_its_way(self, key: bytes) -> bool:
        """Whether the tables may not have yet what memory says of a key. It takes long: for those who check the whole."""
        return key in self.dirty or (self.frozen is not None and self.frozen.names(key))

    def flushed(self, number: int) -> None:
        """The frozen part is in the tables."""
        assert self.frozen is not None
        assert self.frozen.number == number
        self.frozen = None

    def forget(self, partition: int, key: bytes, *, by_all: bool = False) -> None:
        """Drop a copy that this node held for another one, or what all replicas drop (`by_all`)."""
        shard = self.shards[partition]
        old = shard.get(key)
        if old is None and self.resident:
            return
        self._mark_changed(key, old or ABSENT)
        if old:
            if not by_all:
                self.lost.add(partition)
            self._recount(partition, key, old, ABSENT)
        if self.resident and not self.bounded:
            # Nothing that is not in memory exists: there is no need to remember that this does not.
            del shard[key]
            self.removals[partition] += 1
        else:
            shard[key] = ABSENT
            self.used_bytes -= len(old) if old is not None else -len(key) - ENTRY_OVERHEAD_BYTES
        self._note(partition, key)

    def settle(self, partition: int, key: bytes, record: bytes) -> None:
        """Put what every replica puts in the place of the record that all of them have."""
        self._put(partition, key, record)

    # --- expiry and FLUSHALL

    def expire_some(self, now_ms: int, *, keys_max: int) -> int:
        """Drop the bytes of some records that have expired; their versions stay. Returns how many."""
        expired = looked = 0
        for _ in range(len(self.shards)):
            partition = self._expiry_cursor
            names = self.volatile[partition]
            self._expiry_cursor = (partition + 1) % len(self.shards)
            if not names:
                continue
            expired += sum(self._expire(partition, key, now_ms) for key in list(names))
            looked += len(names) + 1
            if looked >= keys_max:
                break
        return expired

    def expire_keys(self, keys: Iterable[bytes], now_ms: int) -> int:
        """The same of these keys, as far as they are in memory."""
        return sum(self._expire(self.partition(key), key, now_ms) for key in keys)

    def _expire(self, partition: int, key: bytes, now_ms: int) -> bool:
        shard, names = self.shards[partition], self.volatile[partition]
        old = shard.get(key)
        if old is None or not will_expire(old):
            names.discard(key)
            return False
        new = without_expired_value(old, now_ms)
        if new is old:
            return False
        shard[key] = new
        self._note(partition, key)
        self._recount(partition, key, old, new)
        if self.bounded:
            self.used_bytes += len(new) - len(old)
        return True

    def raise_floor(self, floor: bytes, *, highest: bytes) -> bool:
        """Let no record below `floor` exist. `highest` is the highest stamp this node may hold. Returns whether nothing is left.

        Otherwise every partition is to be swept: until then its count lacks what was written above the floor before this call.
        """
        if floor <= self.floor:
            return False
        self.floor = floor
        count = len(self.shards)
        self.live = [0] * count
        self.conflicted = [0] * count
        if highest >= floor:
            self.trees.spoil(range(count))
            return False
        self._graveyard.extend(self.shards)
        self.shards = [{} for _ in range(count)]
        self.volatile = [set() for _ in range(count)]
        self.remains = [{} for _ in range(count)]
        self.remains_dropped = [0] * count
        self.used_bytes = 0
        self.changed, self.changing = {}, {}
        self.trees.clear()
        self.resident = True
        return True

    def sweep(self, partition: int, elsewhere: Iterable[bytes] = ()) -> None:
        """Drop what lies below the floor from one partition, and count the rest.

        `elsewhere` are keys that hold a value in the tables: those that are not in memory are counted with it.
        """
        shard, floor = self.shards[partition], self.floor
        # What is known to be absent stays so, whatever the tables still say.
        kept = {key: raised(record, floor) if record else record for key, record in shard.items() if record >= floor or not record}
        if self.bounded:
            gone = (len(key) + len(record) + ENTRY_OVERHEAD_BYTES for key, record in shard.items() if key not in kept)
            self.used_bytes -= sum(gone)
        self._graveyard.append(shard)
        self.shards[partition] = kept
        self.trees.spoil((partition,))
        self.live[partition] = sum(map(holds_value, kept.values())) + sum(key not in kept for key in elsewhere)
        self.conflicted[partition] = sum(record[16:17] == b"\x03" and siblings_count(record) > 1 for record in kept.values())
        self.volatile[partition].intersection_update(kept)
        self.remains[partition] = {key: None for key in self.remains[partition] if key in kept}
        self.remains_dropped[partition] += not self.resident

    def bury(self, shards_max: int = 16) -> bool:
        """Free some of what FLUSHALL left behind; freeing a million records at once would stop the node."""
        del self._graveyard[-shards_max:]
        return bool(self._graveyard)

    def visible_keys(self, partition: int, now_ms: int) -> list[bytes]:
        """The visible keys of a partition that are in memory."""
        floor = self.floor
        return [key for key, record in self.shards[partition].items() if record and record >= floor and is_visible(record, now_ms)]
