"""Hash trees follow a store: equal content is equal trees, whatever the way there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from respkv.storage.hash_trees import HashTrees, waiting
from respkv.storage.store import Store
from respkv.versions import records, vectors
from respkv.versions.records import ABSENT, identity, pack_stamp

RING_SIZE = 16
NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"{a}1", b"{a}2", b"{a}3"])
STAMPS = st.integers(1, 6)
ACTORS = st.sampled_from([b"A" * 8, b"B" * 8])
NOW_MS = 1000
plain = st.builds(lambda stamp, actor: records.string(b"%d" % stamp + actor, stamp=stamp, actor=actor), STAMPS, ACTORS)
dead = st.builds(lambda stamp, actor: records.tombstone(stamp=stamp, actor=actor), STAMPS, ACTORS)
expiring = st.builds(
    lambda stamp, actor, when: records.string(b"%d" % stamp + actor, stamp=stamp, actor=actor, expire_at_ms=when),
    STAMPS,
    ACTORS,
    st.sampled_from([NOW_MS - 1, NOW_MS + 1]),
)
RECORDS = plain | dead | expiring
PAIRS = st.lists(st.tuples(NAMES, RECORDS), max_size=12)


def followed(store: Store) -> HashTrees:
    assert store.trees.take_in(store, 1000)
    return store.trees


def shape(trees: HashTrees) -> list[list[int]]:
    return [trees.part(partition, 0, 1 << trees.leaf_bits) for partition in range(RING_SIZE)]


def fill(store: Store, pairs: list[tuple[bytes, bytes]], *, at_once: bool) -> None:
    if at_once:
        flat = [word for pair in pairs for word in pair]
        store.merge_many([store.partition(key) for key, _ in pairs], flat)
        return
    for key, record in pairs:
        store.merge(store.partition(key), key, record)


def content(store: Store) -> dict[bytes, bytes]:
    return {key: identity(record) for shard in store.shards for key, record in shard.items() if record >= store.floor and record}


def assert_right(store: Store) -> None:
    """The trees are what a reading of the store would build."""
    trees = followed(store)
    expected = HashTrees(ring_size=RING_SIZE)
    for key, which in content(store).items():
        expected.toggle(store.partition(key), key, which)
    assert shape(trees) == shape(expected)
    assert list(trees.roots) == list(expected.roots)


@settings(max_examples=200)
@given(left=PAIRS, right=PAIRS, common=PAIRS, looks=st.lists(st.booleans(), min_size=3, max_size=3))
def test_two_stores_have_the_same_trees_exactly_if_they_hold_the_same(
    left: list[tuple[bytes, bytes]], right: list[tuple[bytes, bytes]], common: list[tuple[bytes, bytes]], looks: list[bool]
) -> None:
    mine, other = Store(ring_size=RING_SIZE), Store(ring_size=RING_SIZE)
    fill(mine, left, at_once=looks[0])
    if looks[1]:
        followed(mine)
    fill(mine, common, at_once=looks[2])
    fill(other, common[::-1], at_once=looks[1])
    if looks[2]:
        followed(other)
    fill(other, right, at_once=looks[0])
    mine.expire_some(NOW_MS, keys_max=100)
    assert (shape(followed(mine)) == shape(followed(other))) == (content(mine) == content(other))
    assert (list(mine.trees.roots) == list(other.trees.roots)) == (content(mine) == content(other))
    assert_right(mine)
    assert_right(other)


@settings(max_examples=100)
@given(first=PAIRS, second=PAIRS, floor=st.integers(1, 8), forgotten=st.lists(NAMES, max_size=3), look=st.booleans())
def test_what_is_forgotten_and_what_flushall_takes_goes_from_the_trees(
    first: list[tuple[bytes, bytes]],
    second: list[tuple[bytes, bytes]],
    floor: int,
    forgotten: list[bytes],
    look: bool,  # noqa: FBT001
) -> None:
    store = Store(ring_size=RING_SIZE)
    fill(store, first, at_once=False)
    if look:
        followed(store)
    for key in forgotten:
        store.forget(store.partition(key), key)
    assert_right(store)
    if store.raise_floor(pack_stamp(floor), highest=pack_stamp(6)):
        fill(store, second, at_once=True)
        assert_right(store)
    else:
        assert store.trees.spoilt == set(range(RING_SIZE))


def test_writes_to_one_key_between_two_looks_are_one_step() -> None:
    store = Store(ring_size=RING_SIZE)
    fill(store, [(b"k", records.string(b"v", stamp=stamp, actor=bytes(8))) for stamp in range(1, 50)], at_once=False)
    assert store.changed == {b"k": ABSENT}
    assert_right(store)
    fill(store, [(b"k", records.tombstone(stamp=60, actor=bytes(8)))], at_once=False)
    assert len(store.changed) == 1
    assert_right(store)


def test_changes_are_followed_piece_by_piece() -> None:
    store = Store(ring_size=RING_SIZE)
    fill(store, [(b"k%d" % number, records.string(b"v", stamp=5, actor=bytes(8))) for number in range(10)], at_once=True)
    assert not store.trees.take_in(store, 4)
    assert not store.trees.take_in(store, 4)
    assert store.trees.take_in(store, 4)
    assert_right(store)


def test_what_had_changed_is_followed_in_the_end_although_more_changes_than_is_followed() -> None:
    store = Store(ring_size=RING_SIZE)
    trees = store.trees
    fill(store, [(b"before%d" % number, records.string(b"v", stamp=5, actor=bytes(8))) for number in range(20)], at_once=True)
    trees.take_in(store, 5)
    fill(store, [(b"then%d" % number, records.string(b"v", stamp=6, actor=bytes(8))) for number in range(20)], at_once=True)
    noted, look = {*store.changing, *store.changed}, trees.looks_total
    assert len(noted) == 35
    rounds = 0
    while not trees.has_followed(store, look):
        assert rounds < 40
        fill(
            store, [(b"later%d.%d" % (rounds, number), records.string(b"v", stamp=7, actor=bytes(8))) for number in range(9)], at_once=True
        )
        trees.take_in(store, 8)
        rounds += 1
    assert waiting(store)
    assert noted.isdisjoint({*store.changing, *store.changed})
    while not trees.take_in(store, 100):
        pass
    assert_right(store)


@settings(max_examples=400)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["merge", "merge many", "look", "expire", "forget", "bound", "evict"]), PAIRS), max_size=12),
    taken=st.integers(1, 5),
)
def test_whatever_happens_while_changes_are_followed(steps: list[tuple[str, list[tuple[bytes, bytes]]]], taken: int) -> None:
    store = Store(ring_size=RING_SIZE)
    tables: dict[bytes, bytes] = {}
    for name, pairs in steps:
        for partition, key in store.cold([key for key, _ in pairs]):
            store.loaded(partition, key, tables.get(key))
        match name:
            case "merge" | "merge many":
                fill(store, pairs, at_once=name == "merge many")
            case "look":
                store.trees.take_in(store, taken)
            case "expire":
                store.expire_some(NOW_MS, keys_max=100)
            case "forget":
                for key, _ in pairs[:2]:
                    store.forget(store.partition(key), key)
            case "bound":
                store.bound(1)
            case "evict" if store.bounded:
                tables |= {key: record for shard in store.shards for key, record in shard.items()}
                store.freeze(1, [])
                store.flushed(1)
                store.evict(1, keep={}, partitions_max=RING_SIZE)
    for partition, key in store.cold(list(tables)):
        store.loaded(partition, key, tables[key])
    assert_right(store)


def test_what_left_memory_and_came_back_is_followed_like_the_rest() -> None:
    store = Store(ring_size=RING_SIZE)

    def write(stamp: int) -> None:
        fill(store, [(b"k", records.string(b"v", stamp=stamp, actor=bytes(8)))], at_once=False)

    write(3)
    followed(store)
    write(5)
    store.bound(1)
    store.freeze(1, [])
    store.flushed(1)
    assert store.evict(1, keep={}, partitions_max=RING_SIZE) == 1
    store.loaded(store.partition(b"k"), b"k", records.string(b"v", stamp=5, actor=bytes(8)))
    store.resident, store.bounded = True, False
    write(6)
    assert_right(store)


def test_siblings_count_by_what_they_have_seen() -> None:
    left, right = Store(ring_size=RING_SIZE), Store(ring_size=RING_SIZE)
    one = vectors.successor(ABSENT, ABSENT, records.string(b"1", stamp=5, actor=b"A" * 8))
    two = vectors.successor(ABSENT, ABSENT, records.string(b"2", stamp=6, actor=b"B" * 8))
    fill(left, [(b"k", one), (b"k", two)], at_once=True)
    fill(right, [(b"k", two)], at_once=True)
    assert shape(followed(left)) != shape(followed(right))
    fill(right, [(b"k", one)], at_once=False)
    assert shape(followed(left)) == shape(followed(right))


def test_records_that_leave_memory_stay_in_the_trees() -> None:
    store = Store(ring_size=RING_SIZE)
    store.bound(1)
    fill(store, [(b"k%d" % number, records.string(b"v", stamp=5, actor=bytes(8))) for number in range(50)], at_once=True)
    expected = {key: identity(record) for shard in store.shards for key, record in shard.items()}
    list(store.freeze(1, []).batches())
    store.flushed(1)
    assert store.evict(0, keep={}, partitions_max=RING_SIZE) == 50
    trees, model = followed(store), HashTrees(ring_size=RING_SIZE)
    for key, which in expected.items():
        model.toggle(store.partition(key), key, which)
    assert shape(trees) == shape(model)


def test_a_start_finds_the_trees_that_a_run_left() -> None:
    before, after = Store(ring_size=RING_SIZE), Store(ring_size=RING_SIZE)
    rows = [(b"k%d" % number, records.string(b"v", stamp=5 + number, actor=bytes(8))) for number in range(40)]
    fill(before, rows, at_once=True)
    newer = [(key, records.tombstone(stamp=99, actor=bytes(8))) for key, _ in rows[:10]]
    fill(before, newer, at_once=True)
    # The log holds the newer ones, the tables the others and older ones of some.
    fill(after, newer, at_once=True)
    for key, record in rows:
        after.warm(after.partition(key), key, record, memory_bytes_max=1500)
    assert shape(followed(after)) == shape(followed(before))


def test_a_wrong_leaf_is_set_right() -> None:
    store = Store(ring_size=RING_SIZE)
    fill(store, [(b"k", records.string(b"v", stamp=5, actor=bytes(8)))], at_once=True)
    trees = followed(store)
    partition, leaf = store.partition(b"k"), xxh64_intdigest(b"k") >> trees.shift
    trees.toggle(partition, b"k", b"nonsense")
    trees.correct(partition, leaf, trees.part_of([(b"k", store.get(b"k"))], leaf, leaf + 1))
    assert trees.corrected_total == 1
    assert_right(store)
