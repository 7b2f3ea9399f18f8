"""The table of members: what is known of each node, and how new that knowledge is.

A node speaks for itself in two numbers. Its *generation* is the wall-clock millisecond at which
its process started: a higher one replaces all that was known. Its *heartbeat* counts up while
it lives. Each entry of its application state carries the heartbeat at which it was set, so the
greatest of them (`state_version`) says whether two copies of the state are the same
(van Renesse et al., "Efficient Reconciliation and Flow Control for Anti-Entropy Protocols", LADIS 2008).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.ids import NodeId, node_id_of_address

if TYPE_CHECKING:
    from collections.abc import Iterator

ApplicationValue = int | str | float

APPLICATION_KEYS_MAX = 64
APPLICATION_KEY_LEN_MAX = 64
APPLICATION_TEXT_LEN_MAX = 256
SHORT_ID_BYTES = 8
"""Digests name a node by the first bytes of its id: 2**64 is ample for a table that is bounded."""


class MemberState(enum.Enum):
    """What this node holds of another. Never "removed": leaving is an operator's act."""

    UNKNOWN = "unknown"  # not heard since this process started
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAddress:
    """Where a node is to be found."""

    node: NodeId
    host: str
    port: int
    cluster_port: int
    zone: str = ""

    @classmethod
    def founding(cls, *, host: str, port: int, cluster_port: int, zone: str = "") -> MemberAddress:
        """The address of a node of `cluster-nodes`, whose id follows from it."""
        return cls(node=node_id_of_address(host, cluster_port), host=host, port=port, cluster_port=cluster_port, zone=zone)


class Member:
    """One node, as far as this node knows it."""

    __slots__ = ("address", "application", "generation", "heartbeat", "node", "short_id", "state", "state_version", "versions")

    def __init__(self, address: MemberAddress) -> None:
        """Know the address and nothing else."""
        self.node = address.node
        self.short_id = short_id_of(address.node)
        self.address = address
        self.generation = 0
        self.heartbeat = 0
        self.state_version = 0
        self.application: dict[str, ApplicationValue] = {}
        self.versions: dict[str, int] = {}
        self.state = MemberState.UNKNOWN

    def begin(self, *, generation: int, heartbeat: int) -> None:
        """Start over with a new incarnation: what the old one said is void."""
        self.generation = generation
        self.heartbeat = heartbeat
        self.state_version = 0
        self.application = {}
        self.versions = {}

    def set(self, key: str, value: ApplicationValue, *, version: int) -> bool:
        """Take one entry if it is newer than the one held; False if it is not, or if the state is full."""
        held = self.versions.get(key)
        if held is None:
            if len(self.versions) >= APPLICATION_KEYS_MAX:
                return False
        elif held >= version:
            return False
        self.application[key] = value
        self.versions[key] = version
        return True

    def newer_than(self, version: int) -> list[tuple[str, int, ApplicationValue]]:
        """The entries that somebody who holds the state up to `version` lacks."""
        return [(key, at, self.application[key]) for key, at in self.versions.items() if at > version]


class MemberTable:
    """All members by id and by short id. Bounded: a full table refuses."""

    def __init__(self, *, members_max: int) -> None:
        """Start empty."""
        self._members_max = members_max
        self._by_node: dict[NodeId, Member] = {}
        self._by_short_id: dict[bytes, Member] = {}

    def __len__(self) -> int:
        """How many members there are, up or down."""
        return len(self._by_node)

    def __iter__(self) -> Iterator[Member]:
        """In the order in which they were added."""
        return iter(self._by_node.values())

    def add(self, address: MemberAddress) -> Member | None:
        """Add a member, or say no: the table is full, or the node or one of the same short id is in it."""
        short_id = short_id_of(address.node)
        if len(self._by_node) >= self._members_max or short_id in self._by_short_id:
            return None
        member = Member(address)
        self._by_node[address.node] = member
        self._by_short_id[short_id] = member
        return member

    def get(self, node: NodeId) -> Member | None:
        """The member of this id."""
        return self._by_node.get(node)

    def named(self, short_id: bytes) -> Member | None:
        """The member that a digest means."""
        return self._by_short_id.get(short_id)


def short_id_of(node: NodeId) -> bytes:
    """The name of a node in digests."""
    return bytes.fromhex(node[: 2 * SHORT_ID_BYTES])
