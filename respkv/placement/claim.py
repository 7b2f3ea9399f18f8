"""Share the partitions of a first ring out among its founding members.

A pure function of the sorted members, so that every node draws the same ring. Goals, in this order
(after Riak's claim v4): neighbours on distinct nodes, every node k or k+1 partitions, the replicas of
a partition in distinct zones while there are enough; and each node is followed by every other about equally often, so
that the load of a dead node spreads over all of the others rather than doubling that of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from zlib import crc32

NEIGHBOURS_MAX = 4


def claim(members: Sequence[tuple[str, str]], *, ring_size: int) -> list[int]:
    """The owner of every partition, as an index into `members`: (node id, zone), sorted by id."""
    count = len(members)
    assert count > 0
    assert count <= ring_size
    zones = [zone for _, zone in members]
    zone_count = len(set(zones))
    repeated = _repeated(zones, ring_size=ring_size)
    ring_size -= repeated
    window = min(max(count - 1, 0), (zone_count if repeated else NEIGHBOURS_MAX) - 1)
    zone_window = min(zone_count - 1, window)
    seeds = [crc32(node.encode()) for node, _ in members]
    held = [0] * count
    owners: list[int] = []
    for partition in range(ring_size):
        near = owners[-window:] if window else []
        overlap = partition + window - ring_size
        if overlap >= 0:
            near = near + owners[: overlap + 1]
        further = owners[1 - NEIGHBOURS_MAX :] if repeated else []
        zone_nearness = _zone_nearness(owners, zones, window=zone_window, ring_size=ring_size)
        floor = min(held)

        def unfitness(candidate: int) -> tuple[bool, bool, int, bool, int, int]:
            return (
                candidate in near,  # noqa: B023 - called before the loop goes on
                held[candidate] > floor + 1,  # noqa: B023
                zone_nearness.get(zones[candidate], 0),  # noqa: B023
                candidate in further,  # noqa: B023
                held[candidate],
                crc32(partition.to_bytes(4), seeds[candidate]),  # noqa: B023
            )

        owner = min(range(count), key=unfitness)
        owners.append(owner)
        held[owner] += 2 if partition < repeated else 1
    return owners + owners[:repeated]


def _repeated(zones: list[str], *, ring_size: int) -> int:
    """How many of the last partitions have the owners of the first once more.

    Three zones of equal size take turns, and that closes a ring only if three divides it. So what is left over belongs to the
    nodes that follow: a walk for replicas meets them twice in a row, counts them once, and goes on as the ring begins.
    There only three neighbours have to be distinct nodes: with two nodes in each zone four cannot be where the ring closes.
    """
    sizes = Counter(zones)
    return ring_size % 3 if len(sizes) == 3 and len(set(sizes.values())) == 1 else 0


def _zone_nearness(owners: list[int], zones: list[str], *, window: int, ring_size: int) -> dict[str, int]:
    """How near to the next partition a zone has one already: higher is nearer; those beyond the window are left out.

    A zone that cannot be kept out of the window is at least kept far: three zones of unequal size still give three neighbours.
    """
    nearness: dict[str, int] = {}
    partition = len(owners)
    for step in range(1, window + 1):
        for other in (partition - step, partition + step - ring_size):
            if 0 <= other < partition:
                nearness.setdefault(zones[owners[other]], window + 1 - step)
    return nearness
