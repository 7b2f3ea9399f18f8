"""The store against a dictionary: whatever is frozen, flushed, dropped, loaded, forgotten, expired and flushed away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from respkv.storage import store as storage
from respkv.storage.freeze import BATCH_ROWS, Row
from respkv.storage.store import ENTRY_OVERHEAD_BYTES, Store
from respkv.versions import records
from respkv.versions.records import ABSENT, pack_stamp

RING_SIZE = 16
KEYS = [b"key:%d" % number for number in range(12)]
NAMES = st.sampled_from(KEYS)
ACTOR = b"actor-aa"


class StoreAgainstModel(RuleBasedStateMachine):
    """The model is what exists: the newest record of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(ring_size=RING_SIZE)
        self.tables: dict[bytes, bytes] = {}
        self.model: dict[bytes, bytes] = {}
        self.stamp = 10
        self.now_ms = 0
        self.batches: Iterator[list[Row]] | None = None
        self.number = 0
        self.uncounted = [0] * RING_SIZE
        """What the counts lack until FLUSHALL's sweep: values above the floor that were there before."""

    # What a replica does.

    def load(self, key: bytes) -> None:
        for partition, cold in self.store.cold([key]):
            self.store.loaded(partition, cold, self.tables.get(cold))

    def alive(self, record: bytes) -> bytes:
        return records.without_expired_value(record, self.now_ms)

    @rule(
        key=NAMES,
        value=st.binary(max_size=4),
        kind=st.sampled_from(["set", "set", "delete", "expire"]),
        late=st.integers(0, 12),
        ttl=st.integers(0, 9),
    )
    def write(self, key: bytes, value: bytes, kind: str, late: int, ttl: int) -> None:
        self.stamp += 1
        stamp = max(self.stamp - late, 1)
        if kind == "delete":
            record = records.tombstone(stamp=stamp, actor=ACTOR)
        else:
            record = records.string(value, stamp=stamp, actor=ACTOR, expire_at_ms=self.now_ms + ttl if kind == "expire" else None)
        self.load(key)
        partition = self.store.partition(key)
        held = self.store.get(key)
        newer = self.store.merge(partition, key, record)
        if record >= self.store.floor:
            assert newer == (held > record)
            self.model[key] = max(self.model.get(key, ABSENT), record)
        else:
            assert newer

    @rule(keys=st.lists(NAMES, min_size=1, unique=True))
    def write_many(self, keys: list[bytes]) -> None:
        pairs: list[bytes] = []
        for key in keys:
            self.stamp += 1
            self.load(key)
            pairs += (key, records.string(b"many", stamp=self.stamp, actor=ACTOR))
        assert self.store.merge_many([self.store.partition(key) for key in keys], pairs) == []
        assert self.store.merge_pairs(pairs) == []
        for key, record in zip(pairs[::2], pairs[1::2], strict=True):
            if record >= self.store.floor:
                self.model[key] = max(self.model.get(key, ABSENT), record)

    @rule(key=NAMES)
    def read(self, key: bytes) -> None:
        self.load(key)
        assert self.alive(self.store.get(key)) == self.alive(self.model.get(key, ABSENT))

    @rule(key=NAMES)
    def forget(self, key: bytes) -> None:
        self.load(key)
        self.store.forget(self.store.partition(key), key)
        self.model.pop(key, None)

    # What the node and its disk do.

    @precondition(lambda self: self.batches is None)
    @rule()
    def freeze(self) -> None:
        self.number += 1
        self.batches = self.store.freeze(self.number, []).batches()

    @precondition(lambda self: self.batches is not None)
    @rule()
    def flush(self) -> None:
        assert self.batches is not None
        for batch in self.batches:
            assert len(batch) <= BATCH_ROWS
            for partition, key, record in batch:
                assert partition == self.store.partition(key)
                if record is None:
                    self.tables.pop(key, None)
                else:
                    self.tables[key] = record
        self.store.flushed(self.number)
        self.batches = None

    @rule(limit=st.sampled_from([0, 500, 1500]))
    def bound(self, limit: int) -> None:
        self.store.bound(limit)

    @precondition(lambda self: self.store.bounded)
    @rule(limit=st.integers(0, 1500), keep=st.sets(NAMES, max_size=2), partitions=st.integers(1, 16))
    def evict(self, limit: int, keep: set[bytes], partitions: int) -> None:
        there = {key for key in keep if key in self.store.shards[self.store.partition(key)]}
        self.store.evict(limit, keep=dict.fromkeys(keep, 1), partitions_max=partitions)
        assert all(key in self.store.shards[self.store.partition(key)] for key in there)

    @precondition(lambda self: not self.store.resident)
    @rule(keep=st.sets(NAMES, max_size=2))
    def drop_absent(self, keep: set[bytes]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "ABSENT_KEYS_MAX", 2)
            self.store.drop_absent(keep=keep)

    @rule(milliseconds=st.integers(0, 8), keys_max=st.integers(1, 20))
    def expire(self, milliseconds: int, keys_max: int) -> None:
        self.now_ms += milliseconds
        self.store.expire_some(self.now_ms, keys_max=keys_max)

    @rule(back=st.integers(0, 6), knows=st.booleans())
    def flush_all(self, back: int, knows: bool) -> None:  # noqa: FBT001
        """FLUSHALL, of which this node may hear late: then some records are above the floor."""
        floor = pack_stamp(max(self.stamp + 1 - back, 1))
        highest = pack_stamp(self.stamp)
        if not knows and highest < floor:
            highest = pack_stamp(self.stamp + 5)
        before = self.store.floor
        emptied = self.store.raise_floor(floor, highest=highest)
        if floor > before:
            assert emptied == (highest < floor)
            self.model = {key: record for key, record in self.model.items() if record >= floor}
            self.uncounted = [self.held(partition) for partition in range(RING_SIZE)]
        self.stamp = max(self.stamp, int.from_bytes(floor))

    @rule(partition=st.integers(0, RING_SIZE - 1))
    def sweep(self, partition: int) -> None:
        in_tables = [key for key, record in self.tables.items() if record >= self.store.floor and records.holds_value(record)]
        there = [key for key in in_tables if self.store.partition(key) == partition]
        self.store.sweep(partition, () if self.store.resident else there)
        self.uncounted[partition] = 0

    @rule()
    def purge(self) -> None:
        """The shell deletes what lies below the floor, some time later."""
        self.tables = {key: record for key, record in self.tables.items() if record >= self.store.floor}
        self.store.bury()

    # What has to be true after each step.

    def stored(self, key: bytes) -> bytes:
        """What memory and tables hold together of a key, above the floor."""
        in_tables = ABSENT if self.store.resident else self.tables.get(key, ABSENT)
        record = self.store.shards[self.store.partition(key)].get(key, in_tables)
        return record if record >= self.store.floor else ABSENT

    def held(self, partition: int) -> int:
        return sum(records.holds_value(self.stored(key)) for key in KEYS if self.store.partition(key) == partition)

    @invariant()
    def nothing_is_lost_and_nothing_comes_back(self) -> None:
        store = self.store
        held_bytes = 0
        for key in KEYS:
            in_memory = store.shards[store.partition(key)].get(key)
            in_tables = self.tables.get(key, ABSENT)
            if in_memory is not None:
                held_bytes += len(key) + len(in_memory) + ENTRY_OVERHEAD_BYTES
                if in_memory != in_tables:
                    is_below = in_memory < store.floor and in_tables < store.floor
                    assert store.is_on_its_way(key) or (not in_memory and in_tables < store.floor) or is_below
            elif in_tables >= store.floor and store.resident and in_tables:
                assert store.is_on_its_way(key)
            assert self.alive(self.stored(key)) == self.alive(self.model.get(key, ABSENT)), key
        if store.bounded:
            assert store.used_bytes == held_bytes
        for partition in range(RING_SIZE):
            assert store.live[partition] + self.uncounted[partition] == self.held(partition)


TestStore = StoreAgainstModel.TestCase
TestStore.settings = settings(max_examples=80, stateful_step_count=40)


def test_keys_that_do_not_exist_are_not_all_remembered() -> None:
    store = Store(ring_size=RING_SIZE)
    store.bound(1)
    store.merge_pairs([b"k", records.string(b"v", stamp=5, actor=ACTOR)])
    list(store.freeze(1, []).batches())
    store.flushed(1)
    assert store.evict(0, keep={}, partitions_max=RING_SIZE) == 1
    # `maxmemory` is lifted: nothing is dropped for room any more.
    store.bound(0)
    asked = [b"missing:%d" % number for number in range(storage.ABSENT_KEYS_MAX + 1000)]
    for key in asked:
        store.loaded(store.partition(key), key, None)
        store.drop_absent(keep=asked[:10])
    assert sum(map(len, store.shards)) <= storage.ABSENT_KEYS_MAX
    assert not store.cold(asked[:10])
    assert len(store.cold(asked)) == 1000
    # What was written since, or has no way back from the tables yet, is no mere absence.
    assert store.cold([b"k"])


def test_rows_that_are_no_records_travel_with_a_freeze() -> None:
    store = Store(ring_size=RING_SIZE)
    store.merge_pairs([b"k", records.string(b"v", stamp=5, actor=ACTOR)])
    extra: list[Row] = [(0xFFFE, b"row%d" % number, b"\xff") for number in range(BATCH_ROWS + 1)]
    batches = list(store.freeze(1, extra).batches())
    assert [len(batch) for batch in batches] == [BATCH_ROWS, 1, 1]
    assert [row for batch in batches[:2] for row in batch] == extra


def test_a_freeze_writes_what_memory_holds_when_its_turn_comes() -> None:
    store = Store(ring_size=RING_SIZE)
    old, new = (records.string(b"v", stamp=stamp, actor=ACTOR) for stamp in (5, 6))
    store.merge_pairs([b"k", old])
    freeze = store.freeze(1, [])
    store.merge_pairs([b"k", new])
    assert list(freeze.batches()) == [[(store.partition(b"k"), b"k", new)]]
    store.flushed(1)
    # It goes once more with the next freeze: that it went already is not known.
    assert list(store.freeze(2, []).batches()) == [[(store.partition(b"k"), b"k", new)]]


def test_a_key_is_written_once_however_often_it_changed() -> None:
    store = Store(ring_size=RING_SIZE)
    for stamp in range(1, 3 * BATCH_ROWS):
        store.merge_pairs(
            [b"hot", records.string(b"v", stamp=stamp, actor=ACTOR), b"k%d" % stamp, records.string(b"v", stamp=1, actor=ACTOR)]
        )
    rows = [row for batch in store.freeze(1, []).batches() for row in batch]
    assert len(rows) == len({key for _, key, _ in rows}) == 3 * BATCH_ROWS


def test_given_back_copies_leave_no_trace_in_memory() -> None:
    store = Store(ring_size=RING_SIZE)
    for number in range(1000):
        key = b"guest:%d" % number
        store.merge_pairs([key, records.string(b"v", stamp=5, actor=ACTOR)])
        store.forget(store.partition(key), key)
    assert not any(store.shards)
    assert sum(store.live) == 0
    # The tables hear of it all the same.
    assert all(record is None for batch in store.freeze(1, []).batches() for _, _, record in batch)


def test_a_start_keeps_what_there_is_room_for_and_counts_all() -> None:
    store = Store(ring_size=RING_SIZE)
    store.bound(3000)
    store.floor = pack_stamp(3)
    newer = records.string(b"log", stamp=9, actor=ACTOR)
    store.merge_pairs([b"key:1", newer, b"key:2", records.string(b"log", stamp=4, actor=ACTOR)])
    for number in range(40):
        key = b"key:%d" % number
        store.warm(store.partition(key), key, records.string(b"table", stamp=5 if number else 2, actor=ACTOR), memory_bytes_max=3000)
    assert not store.resident
    assert store.used_bytes < 3000 + 300
    assert store.used_bytes == sum(len(key) + len(record) + ENTRY_OVERHEAD_BYTES for shard in store.shards for key, record in shard.items())
    assert store.get(b"key:1") == newer
    assert records.value_of(store.get(b"key:2"), 0) == b"table"
    # Key 0 lies below the floor of FLUSHALL.
    assert sum(store.live) == 39


@pytest.mark.parametrize("count", [1, 5])
def test_expiry_drops_bytes_and_keeps_the_version(count: int) -> None:
    store = Store(ring_size=RING_SIZE)
    for number in range(count):
        store.merge_pairs([b"k%d" % number, records.string(b"value", stamp=5, actor=ACTOR, expire_at_ms=100)])
    assert store.expire_some(99, keys_max=1000) == 0
    assert store.expire_some(100, keys_max=1000) == count
    assert store.expire_some(200, keys_max=1000) == 0
    record = store.get(b"k0")
    assert len(record) == records.EXPIRED_BYTES
    assert records.stamp_of(record) == 5
    assert sum(store.live) == 0
    # An older frame that comes late does not bring it back.
    assert store.merge_pairs([b"k0", records.string(b"older", stamp=4, actor=ACTOR)]) == [0]
    assert records.value_of(store.get(b"k0"), 100) is None


def test_a_late_frame_from_before_flushall_does_not_come_back() -> None:
    store = Store(ring_size=RING_SIZE)
    old = records.string(b"v", stamp=5, actor=ACTOR)
    store.merge_pairs([b"k", old])
    assert store.raise_floor(pack_stamp(6), highest=pack_stamp(5))
    assert store.get(b"k") == ABSENT
    # Said to be superseded: its coordinator stamps it anew if its client still waits.
    assert store.merge_pairs([b"k", old]) == [0]
    assert store.merge_many([store.partition(b"k")], [b"k", old]) == [0]
    store.loaded(store.partition(b"k"), b"k", old)
    assert store.get(b"k") == ABSENT
    assert store.merge_pairs([b"k", records.string(b"v", stamp=7, actor=ACTOR)]) == []
    assert not store.raise_floor(pack_stamp(6), highest=pack_stamp(9))
    assert records.stamp_of(store.get(b"k")) == 7


def test_visible_keys_are_those_that_clients_see() -> None:
    store = Store(ring_size=RING_SIZE)
    partition = store.partition(b"{t}")
    store.merge_pairs([b"{t}live", records.string(b"v", stamp=5, actor=ACTOR)])
    store.merge_pairs([b"{t}deleted", records.tombstone(stamp=5, actor=ACTOR)])
    store.merge_pairs([b"{t}expired", records.string(b"v", stamp=5, actor=ACTOR, expire_at_ms=10)])
    assert sorted(store.visible_keys(partition, 9)) == [b"{t}expired", b"{t}live"]
    assert store.visible_keys(partition, 10) == [b"{t}live"]
