from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from respkv.server.hash_order import BUCKET_KEYS, HashOrder

KEYS = st.lists(st.binary(max_size=6), unique=True, max_size=60)


def walk(order: HashOrder, *, limit: int) -> list[bytes]:
    met: list[bytes] = []
    position: int | None = 0
    while position is not None:
        keys, position = order.take(position, limit)
        assert position is None or all(xxh64_intdigest(key) < position for key in keys)
        met += keys
    return met


def test_an_empty_partition_ends_at_once() -> None:
    order = HashOrder({}, removals=0)
    assert order.absorb(10)
    assert order.take(0, 10) == ([], None)


@given(KEYS, st.integers(1, 70))
def test_a_walk_meets_every_key_once_in_order_of_hashes(keys: list[bytes], limit: int) -> None:
    order = HashOrder(dict.fromkeys(keys, b"record"), removals=0)
    assert order.absorb(1000)
    assert walk(order, limit=limit) == sorted(keys, key=lambda key: (xxh64_intdigest(key), key))


@given(KEYS, KEYS, st.integers(1, 9))
def test_keys_that_come_during_a_walk_do_no_harm_to_the_others(before: list[bytes], later: list[bytes], limit: int) -> None:
    shard = dict.fromkeys(before, b"record")
    order = HashOrder(shard, removals=0)
    order.absorb(1000)
    met: list[bytes] = []
    position: int | None = 0
    while position is not None:
        if later:
            shard[later.pop()] = b"record"
        assert order.absorb(1000)
        keys, position = order.take(position, limit)
        met += keys
    assert set(before) <= set(met)
    assert len(met) == len(set(met))


def test_a_big_partition_is_taken_in_in_portions_and_sorted_in_buckets() -> None:
    shard = {b"%d" % number: b"record" for number in range(50 * BUCKET_KEYS)}
    order = HashOrder(shard, removals=0)
    portions = 1
    while not order.absorb(1000):
        portions += 1
    assert portions == 13
    assert sorted(walk(order, limit=700)) == sorted(shard)


def test_it_is_made_anew_when_keys_were_removed_or_the_dictionary_is_another() -> None:
    shard = {b"a": b"record"}
    order = HashOrder(shard, removals=3)
    assert order.is_of(shard, removals=3)
    assert not order.is_of(shard, removals=4)
    assert not order.is_of(dict(shard), removals=3)
    shard.update((b"%d" % number, b"record") for number in range(9 * BUCKET_KEYS))
    assert not order.is_of(shard, removals=3)
