"""The ring as a value (Dynamo section 6.2, strategy 3): partitions never change, only their owners do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec

from respkv.errors import ConfigurationError
from respkv.ids import NodeId
from respkv.placement.claim import claim

RING_SIZE_MIN = 16
RING_SIZE_MAX = 16384
EPOCH_MAX = 2**32 - 1
"""Frames carry it in four bytes."""
_NODE_ID = re.compile(r"[0-9a-f]{40}")


class Member(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A member of the ring. Addresses are gossip's business, not the ring's."""

    node: NodeId
    zone: str = ""


class Ring(msgspec.Struct, frozen=True, array_like=True):
    """An epoch, the members sorted by id, and for every partition the index of its owner."""

    epoch: int
    members: tuple[Member, ...]
    owners: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of partitions."""
        return len(self.owners)

    def owner(self, partition: int) -> NodeId:
        """The node that a partition belongs to."""
        return self.members[self.owners[partition]].node

    def preference_list(self, partition: int) -> list[NodeId]:
        """All members in the order of a clockwise walk from the partition: the first N are primaries, the rest fallbacks.

        Source: Dynamo (SOSP 2007) section 4.3.
        """
        found: dict[int, None] = {}
        size, wanted = len(self.owners), len(self.members)
        for step in range(size):
            found[self.owners[(partition + step) % size]] = None
            if len(found) == wanted:
                break
        else:
            found.update(dict.fromkeys(range(wanted)))  # a member that owns nothing can still stand in
        return [self.members[index].node for index in found]

    def owned_counts(self) -> dict[NodeId, int]:
        """How many partitions each member owns."""
        counts = dict.fromkeys((member.node for member in self.members), 0)
        for index in self.owners:
            counts[self.members[index].node] += 1
        return counts

    def encode(self) -> bytes:
        """The ring as bytes, the same for equal rings."""
        return msgspec.msgpack.encode(self)

    def digest(self) -> str:
        """A fingerprint: two rings of one epoch with different fingerprints refuse each other."""
        return hashlib.sha256(self.encode()).hexdigest()[:16]


@lru_cache(maxsize=4)
def preference_lists(ring: Ring) -> list[list[NodeId]]:
    """The preference list of every partition; walked once per ring."""
    return [ring.preference_list(partition) for partition in range(ring.size)]


def decode_ring(data: bytes) -> Ring:
    """Read a ring that another node or a file holds. Raises `msgspec.DecodeError` for anything else."""
    try:
        ring = msgspec.msgpack.decode(data, type=Ring)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    problem = _problem(ring)
    if problem:
        raise msgspec.ValidationError(problem)
    return ring


def _problem(ring: Ring) -> str:
    """What is wrong with a ring that has the right form, or nothing."""
    size, nodes = ring.size, [member.node for member in ring.members]
    if not 1 <= ring.epoch <= EPOCH_MAX:
        return f"ring of epoch {ring.epoch}"
    if not RING_SIZE_MIN <= size <= RING_SIZE_MAX or size & (size - 1):
        return f"ring of {size} partitions"
    if not nodes or any(_NODE_ID.fullmatch(node) is None for node in nodes):
        return "ring with members that are no nodes"
    if any(left >= right for left, right in pairwise(nodes)):
        return "ring whose members are not in their order"
    if any(not 0 <= owner < len(nodes) for owner in ring.owners):
        return "ring names owners that are no members"
    return ""


def first_ring(members: Sequence[Member], *, ring_size: int) -> Ring:
    """The ring of the founding members: a pure function of them, at epoch 1."""
    ordered = tuple(sorted(members))
    if len({member.node for member in ordered}) != len(ordered):
        msg = "two founding members have the same id"
        raise ConfigurationError(msg)
    if len(ordered) > ring_size:
        msg = f"ring-size {ring_size} is smaller than the number of founding members ({len(ordered)})"
        raise ConfigurationError(msg)
    owners = claim([(member.node, member.zone) for member in ordered], ring_size=ring_size)
    return Ring(epoch=1, members=ordered, owners=tuple(owners))
