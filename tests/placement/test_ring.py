"""The ring as a value: drawn alike by all, read back exactly, refused when it is none."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import ConfigurationError
from respkv.ids import node_id_of_address
from respkv.placement.ring import Member, Ring, decode_ring, first_ring, preference_lists

MEMBERS = [Member(node_id_of_address("127.0.0.1", 17001 + number), f"zone-{number % 2}") for number in range(5)]


def test_the_first_ring_does_not_depend_on_the_order_of_the_list() -> None:
    shuffled = list(MEMBERS)
    random.Random(5).shuffle(shuffled)
    assert first_ring(shuffled, ring_size=256) == first_ring(MEMBERS, ring_size=256)
    assert first_ring(shuffled, ring_size=256).digest() == first_ring(MEMBERS, ring_size=256).digest()


def test_rings_that_differ_have_different_fingerprints() -> None:
    ring = first_ring(MEMBERS, ring_size=256)
    others = [
        first_ring(MEMBERS[:4], ring_size=256),
        first_ring(MEMBERS, ring_size=512),
        first_ring([Member(member.node) for member in MEMBERS], ring_size=256),
        msgspec.structs.replace(ring, epoch=2),
        msgspec.structs.replace(ring, owners=(ring.owners[1], ring.owners[0], *ring.owners[2:])),
    ]
    assert len({other.digest() for other in (ring, *others)}) == 6


def test_founders_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="same id"):
        first_ring([*MEMBERS, Member(MEMBERS[0].node, "elsewhere")], ring_size=256)
    many = [Member(node_id_of_address("127.0.0.1", number)) for number in range(17)]
    with pytest.raises(ConfigurationError, match="ring-size 16 is smaller"):
        first_ring(many, ring_size=16)


def test_a_preference_list_names_every_member_once_in_the_order_of_the_walk() -> None:
    ring = first_ring(MEMBERS, ring_size=256)
    for partition, preference in enumerate(preference_lists(ring)):
        assert sorted(preference) == sorted(member.node for member in MEMBERS)
        assert preference[0] == ring.owner(partition)
        walked = [ring.owner((partition + step) % 256) for step in range(256)]
        assert preference == list(dict.fromkeys(walked))


def test_a_member_that_owns_nothing_can_still_stand_in() -> None:
    ring = Ring(3, tuple(sorted(MEMBERS)), (0, 1, 2, 3) * 4)
    preference = ring.preference_list(2)
    assert len(preference) == 5
    assert preference[-1] == ring.members[4].node
    assert ring.owned_counts()[ring.members[4].node] == 0


@given(st.integers(1, 12), st.sampled_from([16, 64, 1024]), st.integers(1, 2**32 - 1))
def test_a_ring_is_read_back(count: int, ring_size: int, epoch: int) -> None:
    members = [Member(node_id_of_address("10.0.0.1", number), f"z{number % 3}") for number in range(count)]
    ring = msgspec.structs.replace(first_ring(members, ring_size=ring_size), epoch=epoch)
    again = decode_ring(ring.encode())
    assert again == ring
    assert again.digest() == ring.digest()
    assert again.preference_list(3) == ring.preference_list(3)


RING = first_ring(MEMBERS, ring_size=16)
NO_RINGS = {
    "epoch zero": msgspec.structs.replace(RING, epoch=0),
    "an epoch that no frame can carry": msgspec.structs.replace(RING, epoch=2**32),
    "no partitions": msgspec.structs.replace(RING, owners=()),
    "a size that is no power of two": msgspec.structs.replace(RING, owners=RING.owners + RING.owners[:8]),
    "more partitions than slots": msgspec.structs.replace(RING, owners=RING.owners * 2048),
    "no members": msgspec.structs.replace(RING, members=()),
    "an owner that is no member": msgspec.structs.replace(RING, owners=(5, *RING.owners[1:])),
    "an owner below zero": msgspec.structs.replace(RING, owners=(-1, *RING.owners[1:])),
    "a member twice": msgspec.structs.replace(RING, members=(RING.members[0], *RING.members)),
    "members out of order": msgspec.structs.replace(RING, members=RING.members[::-1]),
    "a member that is no node": msgspec.structs.replace(RING, members=(Member("0" * 39 + "G"), *RING.members)),
}


@pytest.mark.parametrize("title", NO_RINGS)
def test_what_is_no_ring_is_refused(title: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_ring(NO_RINGS[title].encode())


@given(st.binary(max_size=200))
def test_other_bytes_are_no_ring(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_ring(data)


@given(st.data())
def test_a_cut_ring_is_refused(data: st.DataObject) -> None:
    whole = RING.encode()
    with pytest.raises(msgspec.DecodeError):
        decode_ring(whole[: data.draw(st.integers(0, len(whole) - 1))])
