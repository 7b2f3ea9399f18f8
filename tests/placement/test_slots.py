"""Slots are those of Redis Cluster; partitions are equal cuts of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.placement.slots import SLOT_COUNT, key_slot, partition_shift, partition_slots

# What redis-server 7.0.15 answers to CLUSTER KEYSLOT.
REDIS = [
    (b"", 0),
    (b"a", 15495),
    (b"foo", 12182),
    (b"bar", 5061),
    (b"123456789", 12739),
    (b"{user1000}.following", 3443),
    (b"{user1000}.followers", 3443),
    (b"foo{}{bar}", 8363),
    (b"foo{{bar}}zap", 4015),
    (b"foo{bar}{zap}", 5061),
    (b"foo{bar", 15278),
    (b"foo}bar{", 11073),
    (b"{}", 15257),
    (b"{}{x}", 3257),
    (b"{a}", 15495),
    (b"x{a}y", 15495),
    (b"}{a}", 15495),
    (b"{", 4092),
    (b"}", 12090),
    (b"\x00", 0),
    (b"\xff\xfe\xfd", 287),
    (b"k\r\n", 15500),
    (b"{\x00}z", 0),
    ("ключ".encode(), 10303),
    (b"x" * 300, 11216),
    (b"key:{tag with blank}:1", 12152),
    (b"{{}}", 4092),
    (b"{a}{b}{c}", 15495),
]


@pytest.mark.parametrize(("key", "slot"), REDIS)
def test_slots_are_those_of_redis(key: bytes, slot: int) -> None:
    assert key_slot(key) == slot


@given(
    tag=st.binary(min_size=1).filter(lambda tag: b"}" not in tag),
    prefix=st.binary().filter(lambda text: b"{" not in text),
    rest=st.binary(),
)
def test_keys_of_one_tag_have_one_slot(tag: bytes, prefix: bytes, rest: bytes) -> None:
    assert key_slot(prefix + b"{" + tag + b"}" + rest) == key_slot(b"{" + tag + b"}")


@pytest.mark.parametrize("ring_size", [2**bits for bits in range(4, 15)])
def test_partitions_are_equal_cuts(ring_size: int) -> None:
    shift = partition_shift(ring_size)
    following = 0
    for partition in range(ring_size):
        first, last = partition_slots(partition, ring_size=ring_size)
        assert first == following
        assert first >> shift == last >> shift == partition
        following = last + 1
    assert following == SLOT_COUNT
