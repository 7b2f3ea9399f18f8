"""Whatever is written where, in every form: stores that have heard of the same hold the same, under FLUSHALL's floor too."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from respkv.storage.store import Store
from respkv.versions import records
from respkv.versions.records import ABSENT, FOREVER, pack_stamp
from respkv.versions.vectors import merge, put_together, raised, settled, successor, take_apart, without_values

ACTORS = [b"actor-aa", b"actor-bb", b"actor-cc"]
KEY = b"k"
NOW_MS = 5
KINDS = ["plain", "plain expiring", "plain deletion", "sibling", "blind sibling", "sibling expiring", "deletion"]
OTHER_KINDS = ["expire", "persist", "cut", "again", "floor", "sweep", "settle", *["exchange"] * 4]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS + OTHER_KINDS), st.integers(0, 2), st.integers(0, 2)), max_size=18)


class Replicas:
    """Three stores of one key, each with a clock of its own."""

    def __init__(self, clocks: tuple[int, ...]) -> None:
        self.stores = [Store(ring_size=16) for _ in ACTORS]
        self.partition = self.stores[0].partition(KEY)
        self.clocks = list(clocks)
        self.floor = ABSENT
        self.sent: list[bytes] = []

    def held(self) -> list[bytes]:
        return [store.get(KEY) for store in self.stores]

    def stamp(self, index: int, seen: bytes = ABSENT) -> int:
        newest = max(map(records.newest_stamp_of, (seen, self.stores[index].get(KEY))))
        self.clocks[index] = max(self.clocks[index], newest) + 1
        return self.clocks[index]

    def put(self, index: int, record: bytes) -> None:
        if record:
            self.sent.append(record)
            self.stores[index].merge(self.partition, KEY, record)

    def write(self, kind: str, index: int, other: int, number: int) -> None:
        held, actor = self.stores[index].get(KEY), ACTORS[index]
        seen = {"blind sibling": ABSENT, "sibling": without_values(self.stores[other].get(KEY))}.get(kind, held)
        stamp = self.stamp(index, seen)
        if kind.endswith("deletion"):
            new = records.tombstone(stamp=stamp, actor=actor)
        else:
            when = NOW_MS + other if kind.endswith("expiring") else None
            new = records.string(b"%d" % number, stamp=stamp, actor=actor, expire_at_ms=when)
        self.put(index, new if kind.startswith("plain") else successor(held, seen, new))

    def change(self, kind: str, index: int, other: int, number: int) -> None:
        store = self.stores[index]
        match kind:
            case "exchange":
                self.put(other, store.get(KEY))
            case "again" if self.sent:
                self.put(index, self.sent[(7 * number + other) % len(self.sent)])
            case "cut":
                store.expire_keys([KEY], NOW_MS + other)
            case "expire" | "persist":
                record = records.without_expired_value(store.get(KEY), NOW_MS)
                if records.is_visible(record, NOW_MS):
                    when = FOREVER if kind == "persist" else NOW_MS - 1 + other
                    self.put(index, records.with_expiry(record, stamp=self.stamp(index), expire_at_ms=when))
            case "floor":
                self.floor = max(self.floor, pack_stamp(self.stamp(index)))
                store.raise_floor(self.floor, highest=pack_stamp(self.clocks[index]))
            case "sweep":
                store.sweep(self.partition)
            case "settle" if store.get(KEY) and len(set(map(records.identity, self.held()))) == 1:
                # Nothing older is under way then.
                self.sent.clear()
                store.settle(self.partition, KEY, settled(store.get(KEY)))
            case _:
                pass


@settings(max_examples=300, deadline=None)
@given(STEPS, st.tuples(*[st.integers(0, 9)] * 3))
def test_stores_that_have_heard_of_the_same_hold_the_same(steps: list[tuple[str, int, int]], clocks: tuple[int, ...]) -> None:
    replicas = Replicas(clocks)
    for number, (kind, index, other) in enumerate(steps):
        (replicas.write if kind in KINDS else replicas.change)(kind, index, other, number)
    whole = reduce(merge, replicas.held())
    for store in replicas.stores:
        store.raise_floor(replicas.floor, highest=b"\xff" * 8)
        store.sweep(replicas.partition)
    for _ in range(2):
        for index in range(3):
            for other in range(3):
                replicas.put(other, replicas.stores[index].get(KEY))
    assert replicas.held() == [raised(whole, replicas.floor)] * 3
    for store, record in zip(replicas.stores, replicas.held(), strict=True):
        assert not record or (records.is_well_formed(record) and put_together(take_apart(record)) == record)
        assert store.live[replicas.partition] == records.holds_value(record)
        assert store.conflicted[replicas.partition] == (records.siblings_count(record) > 1)
        assert not records.will_expire(record) or KEY in store.volatile[replicas.partition]
        assert not records.is_remains(record) or KEY in store.remains[replicas.partition]


@settings(max_examples=300, deadline=None)
@given(STEPS, st.tuples(*[st.integers(0, 9)] * 3))
def test_what_counts_as_the_same_merges_to_the_same(steps: list[tuple[str, int, int]], clocks: tuple[int, ...]) -> None:
    replicas = Replicas(clocks)
    for number, (kind, index, other) in enumerate(steps):
        if kind != "floor":
            (replicas.write if kind in KINDS else replicas.change)(kind, index, other, number)
    held = replicas.held()
    for left in held:
        for right in held:
            if records.identity(left) != records.identity(right):
                continue
            assert records.identity(merge(left, right)) == records.identity(left)
            assert records.identity(settled(left)) == records.identity(settled(right))
            for third in held:
                assert records.identity(merge(left, third)) == records.identity(merge(right, third))
