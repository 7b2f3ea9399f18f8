"""The first ring: balanced, neighbours on distinct nodes, and in distinct zones as far as that can be."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from respkv.ids import node_id_of_address
from respkv.placement.ring import Member, Ring, first_ring, preference_lists

RING_SIZE = 1024


def found(*zones: int, ring_size: int = RING_SIZE) -> Ring:
    """A ring of as many members in each zone."""
    counted = [zone for zone, count in enumerate(zones) for _ in range(count)]
    members = [Member(node_id_of_address("127.0.0.1", 17001 + place), f"zone-{zone}") for place, zone in enumerate(counted)]
    return first_ring(members, ring_size=ring_size)


@pytest.mark.parametrize("count", range(1, 33))
def test_every_node_has_its_share(count: int) -> None:
    ring = found(count)
    owned = ring.owned_counts().values()
    assert sum(owned) == RING_SIZE
    assert max(owned) - min(owned) <= 1
    replicas = Counter(node for preference in preference_lists(ring) for node in preference[:3])
    fair = RING_SIZE * min(3, count) / count
    assert max(replicas.values()) < 1.03 * fair


@pytest.mark.parametrize("count", range(4, 33))
def test_neighbours_are_distinct_nodes(count: int) -> None:
    ring = found(count)
    for partition in range(RING_SIZE):
        window = {ring.owners[(partition + step) % RING_SIZE] for step in range(min(count - 1, 4))}
        assert len(window) == min(count - 1, 4)


@pytest.mark.parametrize("count", [5, 8, 16, 30])
def test_the_load_of_a_dead_node_spreads(count: int) -> None:
    ring = found(count)
    followers: dict[int, Counter[int]] = {}
    for left, right in pairwise(ring.owners):
        followers.setdefault(left, Counter())[right] += 1
    for counts in followers.values():
        assert max(counts.values()) <= 0.55 * sum(counts.values())
        assert len(counts) >= min(count - 1, 4)


@pytest.mark.parametrize("zones", [(2, 2), (1, 2), (3, 3), (1, 1, 1), (2, 2, 2, 2), (2, 2, 2, 1), (3,) * 5, (2,) * 6])
def test_three_replicas_are_in_as_many_zones_as_there_are(zones: tuple[int, ...]) -> None:
    ring = found(*zones)
    zone_of = {member.node: member.zone for member in ring.members}
    for preference in preference_lists(ring):
        assert len({zone_of[node] for node in preference[:3]}) == min(3, len(zones))
    owned = ring.owned_counts().values()
    assert max(owned) - min(owned) <= 2


@pytest.mark.parametrize("ring_size", [16, 32, 64, 512, 1024])
@pytest.mark.parametrize("zones", [(1, 1, 1), (2, 2, 2), (5, 5, 5)])
def test_three_zones_close_a_ring_that_three_does_not_divide(zones: tuple[int, ...], ring_size: int) -> None:
    # The walk from the last partitions met two nodes of one zone where the ring closes.
    ring = found(*zones, ring_size=ring_size)
    zone_of = {member.node: member.zone for member in ring.members}
    for preference in preference_lists(ring):
        assert len({zone_of[node] for node in preference[:3]}) == 3
    owned = ring.owned_counts().values()
    assert sum(owned) == ring_size
    assert max(owned) - min(owned) <= 2


def test_zones_of_unequal_size_do_not_unbalance_the_nodes() -> None:
    ring = found(5, 1)
    owned = ring.owned_counts().values()
    assert max(owned) - min(owned) <= 2


@pytest.mark.parametrize("ring_size", [16, 64, 256, 4096])
def test_any_ring_size(ring_size: int) -> None:
    ring = found(5, ring_size=ring_size)
    owned = ring.owned_counts().values()
    assert len(ring.owners) == ring_size
    assert max(owned) - min(owned) <= 2
