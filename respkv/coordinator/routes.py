"""Where the reads and writes of each partition go, drawn from the ring and from who is up. Pure.

A route is drawn anew whenever the ring, the quorum or the view of the members changes, never per request.
Partitions with the same replicas in the same condition share one route, and with it a batch per turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.config.replication import Replication, steady
from respkv.placement.ring import preference_lists

if TYPE_CHECKING:
    from respkv.config.quorums import Quorums
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
    """Nodes that have been away for longer than `max-hint-window`: no write is kept for them any more."""
    sloppy: bool = True
    handoff: bool = True


class Route:
    """Where the requests for some partitions go."""

    __slots__ = (
        "beside",
        "core_set",
        "counting",
        "instant_read",
        "local_counts",
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
        "reads_own_writes",
        "spread_count",
        "stand_ins",
        "stored_w",
        "turn_peer",
        "write_all_up",
        "write_batches",
        "write_peers",
        "write_primaries_up",
        "write_up",
        "writing",
    )

    def __init__(self, primaries: tuple[NodeId, ...], *, view: View, fallbacks: list[NodeId], replication: Replication) -> None:
        """Draw a route. `fallbacks` are the nodes behind the primaries that can stand in, in the order of the preference list.

        While N changes, some of the primaries are written to and not read, or count only beside the others.
        """
        me = view.me
        self.primaries = primaries
        self.primary_set = frozenset(primaries)
        self.quorum = replication.quorum
        up = [node for node in primaries if node in view.usable]
        whole = [node for node in up if node not in view.rebuilding]
        self.core_set = core = frozenset(primaries[: replication.core_n])
        """Those of the primaries that count for W."""
        owners_of: dict[NodeId, tuple[NodeId, ...]] = {}
        spare = list(fallbacks) if view.sloppy else []
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
        counting = [node for node in whole if node in core]
        self.counting = frozenset(counting) | {node for node in standing_in if not core.isdisjoint(owners_of[node])}
        """Nodes whose acknowledgements count for W."""
        self.beside = frozenset((*whole, *standing_in)) - self.counting
        """Nodes that count only towards `stored_w`."""
        self.stored_w = replication.stored_w
        self.write_up = len(self.counting)
        self.write_all_up = len(self.counting) + len(self.beside)
        self.write_primaries_up = len(counting)
        self.local_write = me in up or me in owners_of
        self.local_owners = owners_of.get(me, ())
        self.local_counts = me in self.counting or me in self.beside
        self.write_peers = tuple(node for node in up if node != me and node not in owners_of)
        self.stand_ins = tuple((node, owners) for node, owners in owners_of.items() if node != me)
        self.writing: WriteBatch | None = None
        """This turn's batch at the default quorum."""
        self.write_batches: dict[Quorums, WriteBatch] = {}
        read = frozenset(primaries[: self.quorum.n])
        # What others took for a node before it had been away for too long they still have: better they than nobody.
        forgotten = sum(node in view.forgotten for node in read) if view.handoff else 0
        self._draw_reads(
            view,
            counting=[node for node in whole if node in read],
            standing_in=[node for node in standing_in if not read.isdisjoint(owners_of[node])],
            last=spare[:forgotten],
        )

    def _draw_reads(self, view: View, *, counting: list[NodeId], standing_in: list[NodeId], last: list[NodeId]) -> None:
        """Whom reads ask: primaries whose answers count, those who stand in for others of them, and those who did."""
        me, quorum = view.me, self.quorum
        self.local_read = me in counting or me in standing_in or me in last
        self.local_guest = self.local_read and me not in self.primary_set
        """Whether this node has a copy because it stands in for another, or did."""
        self.reads_own_writes = self.local_read and self.local_write
        clean = [node for node in counting if node != me and node not in view.stale]
        late = [node for node in counting if node != me and node in view.stale]
        self.read_peers = tuple(clean + [node for node in standing_in if node != me] + late + [node for node in last if node != me])
        self.spread_count = len(clean)
        """How many of the first of them are equals, among whom reads are spread."""
        self.read_primaries_up = len(counting)
        # A stand-in does not know what it lacks: it has to ask a primary.
        self.instant_read = self.local_read and me in self.primary_set and quorum.r <= 1 and quorum.pr <= 1 and me not in view.stale
        self.turn_peer = 0
        self.reading: ReadBatch | None = None
        self.read_batches: dict[Quorums, ReadBatch] = {}


class RouteTable:
    """The routes of all partitions."""

    __slots__ = ("_preference", "first_live", "held_n", "holds", "n", "ring", "routes", "stored_n")

    def __init__(self, ring: Ring, *, view: View, replication: Replication) -> None:
        """Draw all routes of a ring."""
        self.ring = ring
        quorum = replication.quorum
        if quorum.n > len(ring.members):
            replication = steady(quorum._replace(n=len(ring.members)))
        replication = replication._replace(quorum=replication.quorum.cut())
        self.n = replication.quorum.n
        """How many nodes of a preference list are read."""
        self.stored_n = replication.stored_n
        """How many are written to."""
        self.held_n = replication.held_n
        """How many of them keep their copies."""
        self._preference = preference_lists(ring)
        self.routes: list[Route] = []
        self.first_live: list[NodeId | None] = []
        """The first primary of each partition that is up: it coordinates read-then-write commands and is shown as the master."""
        self.holds: list[bool] = []
        """Whether this node is a primary of the partition."""
        shared: dict[tuple[tuple[frozenset[NodeId], ...], tuple[NodeId, ...]], Route] = {}
        n, marks = replication.stored_n, sorted({replication.core_n, self.n, replication.stored_n})
        for preference in self._preference:
            primaries = tuple(preference[:n])
            down = sum(node not in view.usable for node in primaries)
            able = [node for node in preference[n:] if node in view.usable and node not in view.rebuilding]
            # Of these the route uses the first, one for each owner that is away.
            key = (tuple(frozenset(primaries[:mark]) for mark in marks), tuple(able[:down]))
            route = shared.get(key)
            if route is None:
                route = shared[key] = Route(primaries, view=view, fallbacks=able, replication=replication)
            self.routes.append(route)
            usable = [node for node in primaries[: self.n] if node in view.usable]
            counting = [node for node in usable if node not in view.rebuilding]
            further = (node for node in preference[self.n :] if node in view.usable)
            self.first_live.append(next(iter(counting or usable or further), None))
            self.holds.append(view.me in preference[: replication.held_n])

    def preference(self, partition: int) -> list[NodeId]:
        """The whole preference list of a partition."""
        return self._preference[partition]

    def primaries(self, partition: int) -> list[NodeId]:
        """The first N of the preference list: those that are read."""
        return self._preference[partition][: self.n]

    def stored(self, partition: int) -> list[NodeId]:
        """Those that are written to: the first N, and while N changes the first of the larger N."""
        return self._preference[partition][: self.stored_n]
