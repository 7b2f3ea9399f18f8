"""Where the reads and writes of each partition go, drawn from the ring and from who is up. Pure.

A route is drawn anew whenever the ring, the quorum or the view of the members changes, never per request.
Partitions with the same replicas in the same condition share one route, and with it a batch per turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.config.quorums import Quorums
from respkv.placement.ring import preference_lists

if TYPE_CHECKING:
    from respkv.coordinator.batches import ReadBatch, WriteBatch
    from respkv.ids import NodeId
    from respkv.placement.ring import Ring


@dataclass(frozen=True, slots=True)
class View:
    """What this node believes of the others."""

    me: NodeId
    usable: frozenset[NodeId]
    """Nodes that take requests now; this node among them."""
    rebuilding: frozenset[NodeId] = frozenset()
    """Nodes that store, but whose acknowledgements and answers do not count."""
    stale: frozenset[NodeId] = frozenset()
    """Nodes for which hints are outstanding: read last."""
    forgotten: frozenset[NodeId] = frozenset()
    """Nodes that have been away for longer than `max-hint-window`: nobody stands in for them any more."""
    sloppy: bool = True
    handoff: bool = True


class Route:
    """Where the requests for some partitions go."""

    __slots__ = (
        "counting",
        "instant_read",
        "local_guest",
        "local_owners",
        "local_read",
        "local_write",
        "primaries",
        "primary_set",
        "quorum",
        "read_batches",
        "read_peers",
        "read_primaries_up",
        "reading",
        "spread_count",
        "stand_ins",
        "turn_peer",
        "write_batches",
        "write_peers",
        "write_primaries_up",
        "write_up",
        "writing",
    )

    def __init__(self, primaries: tuple[NodeId, ...], *, view: View, fallbacks: list[NodeId], quorum: Quorums) -> None:
        """Draw a route. `fallbacks` are the nodes behind the primaries in the preference list, in order."""
        me = view.me
        self.primaries = primaries
        self.primary_set = frozenset(primaries)
        self.quorum = quorum
        up = [node for node in primaries if node in view.usable]
        counting = [node for node in up if node not in view.rebuilding]
        owners_of: dict[NodeId, tuple[NodeId, ...]] = {}
        spare = [node for node in fallbacks if node in view.usable and node not in view.rebuilding] if view.sloppy else []
        for owner in primaries:
            if owner in up or owner in view.forgotten or not view.handoff:
                continue
            if spare:
                owners_of[spare.pop(0)] = (owner,)
            elif keepers := up or list(owners_of):
                # No fallback is left: a live primary keeps the hint, or else one that stands in for another owner already.
                # That counts for nothing more than its own copy.
                keeper = me if me in keepers else keepers[0]
                owners_of[keeper] = (*owners_of.get(keeper, ()), owner)
        standing_in = [node for node in owners_of if node not in self.primary_set]
        self.counting = frozenset(counting) | frozenset(standing_in)
        self.write_up = len(self.counting)
        self.write_primaries_up = len(counting)
        self.local_write = me in up or me in owners_of
        self.local_owners = owners_of.get(me, ())
        self.local_read = me in self.counting
        self.local_guest = self.local_read and me not in self.primary_set
        """Whether this node has a copy because it stands in for another."""
        self.write_peers = tuple(node for node in up if node != me and node not in owners_of)
        self.stand_ins = tuple((node, owners) for node, owners in owners_of.items() if node != me)
        clean = [node for node in counting if node != me and node not in view.stale]
        late = [node for node in counting if node != me and node in view.stale]
        self.read_peers = tuple(clean + [node for node in standing_in if node != me] + late)
        self.spread_count = len(clean)
        """How many of the first of them are equals, among whom reads are spread."""
        self.read_primaries_up = len(counting)
        # A stand-in does not know what it lacks: it has to ask a primary.
        self.instant_read = self.local_read and me in self.primary_set and quorum.r <= 1 and quorum.pr <= 1 and me not in view.stale
        self.turn_peer = 0
        self.writing: WriteBatch | None = None
        """This turn's batch at the default quorum."""
        self.reading: ReadBatch | None = None
        self.write_batches: dict[Quorums, WriteBatch] = {}
        self.read_batches: dict[Quorums, ReadBatch] = {}


class RouteTable:
    """The routes of all partitions."""

    __slots__ = ("_preference", "first_live", "holds", "n", "ring", "routes")

    def __init__(self, ring: Ring, *, view: View, quorum: Quorums) -> None:
        """Draw all routes of a ring."""
        self.ring = ring
        self.n = min(quorum.n, len(ring.members))
        quorum = Quorums(*(min(number, self.n) for number in quorum))
        self._preference = preference_lists(ring)
        self.routes: list[Route] = []
        self.first_live: list[NodeId | None] = []
        """The first primary of each partition that is up: it coordinates read-then-write commands and is shown as the master."""
        self.holds: list[bool] = []
        """Whether this node is a primary of the partition."""
        shared: dict[tuple[frozenset[NodeId], tuple[NodeId, ...]], Route] = {}
        n = self.n
        for preference in self._preference:
            primaries = tuple(preference[:n])
            down = sum(node not in view.usable for node in primaries)
            live_fallbacks = [node for node in preference[n:] if node in view.usable]
            key = (frozenset(primaries), tuple(live_fallbacks[:down]))
            route = shared.get(key)
            if route is None:
                route = shared[key] = Route(primaries, view=view, fallbacks=live_fallbacks, quorum=quorum)
            self.routes.append(route)
            usable = [node for node in primaries if node in view.usable]
            counting = [node for node in usable if node not in view.rebuilding]
            self.first_live.append(next(iter(counting or usable or live_fallbacks), None))
            self.holds.append(view.me in primaries)

    def preference(self, partition: int) -> list[NodeId]:
        """The whole preference list of a partition."""
        return self._preference[partition]

    def primaries(self, partition: int) -> list[NodeId]:
        """The first N of the preference list."""
        return self._preference[partition][: self.n]
