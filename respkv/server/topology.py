"""Who can be reached, and the routes that follow from it. Pure.

Rule 1: a node is asked for data only while the link to it is open, it is not DOWN, and it has the same ring.
Rule 2: the routes are drawn anew when one of these changes, before the next request is coordinated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.published import hints_outstanding
from respkv.config.cluster_value import effective_replication, effective_sloppy, mark_of, marked_nodes
from respkv.coordinator.routes import RouteTable, View
from respkv.versions.clock import BELIEVED_AFTER_S, CLOCK_AHEAD_MAX_MS, STEP_MS_MAX_MIN, WallClock, milliseconds

if TYPE_CHECKING:
    from respkv.config.replication import Replication
    from respkv.config.settings import Settings
    from respkv.coordinator.coordinator import Coordinator
    from respkv.coordinator.operations import Operations
    from respkv.coordinator.replica import Replica
    from respkv.ids import NodeId
    from respkv.membership.gossip import Membership
    from respkv.placement.ring import Ring
    from respkv.repair.handoff import Handoff
    from respkv.repair.hints import HintBook
    from respkv.server.cluster import ClusterState
    from respkv.transport.turn import Turn

REDRAW_INTERVAL_S = 1.0
ACQUAINTANCE_S = 1.0
"""For how long a node that starts may wait for its peers before it lets clients in."""
TRANSITION_PATIENCE_S = 5.0
"""A CONFIG SET that lives has ended its own transition by then."""


class Topology:
    """Links, members and routes."""

    def __init__(
        self,
        *,
        turn: Turn,
        settings: Settings,
        membership: Membership,
        cluster: ClusterState,
        coordinator: Coordinator,
        operations: Operations,
        replica: Replica,
        handoff: Handoff,
        hints: HintBook,
    ) -> None:
        """No link is open yet."""
        self._turn = turn
        self.wall = WallClock(turn.now, turn.wall_ms)
        self._settings = settings
        self._membership = membership
        self._cluster = cluster
        self._coordinator = coordinator
        self._operations = operations
        self._replica = replica
        self._handoff = handoff
        self._hints = hints
        self.links: set[NodeId] = set()
        """Peers to which this node's link is open."""
        self.mute: list[NodeId] = []
        """Links on which nothing was heard for so long that they are to be dialled anew."""
        self.rebuilding = False
        """Whether this node itself lacks data that it may have acknowledged: it stores, and counts for nothing."""
        self.held = False
        """Whether it waits to hear if what it holds is to be set aside."""
        self.dropping = False
        """Whether nobody sends any more what an earlier, larger N put here: it is refused, and dropped."""
        self.acquainted = False
        """Whether it has met all peers, or waited long enough. Clients that it took before would hear -NOQUORUM, or of stand-ins."""
        self._started_at = turn.now
        self.redraw_due = True
        self._drawn_at = turn.now
        self._away_since: dict[NodeId, float] = {}
        self.returns: dict[NodeId, int] = {}
        """How many times each node has become usable: whoever looks now and then would miss a short absence."""
        self._drawn: tuple[View, Replication, Ring, bool] | None = None
        self._is_wall_doubted = self._is_far_ahead = False
        """What of this node's clocks the log tells already."""
        self._transition_mark = 0
        self._transition_since = 0.0

    def usable(self) -> frozenset[NodeId]:
        """The nodes that take requests now; this one among them."""
        membership = self._membership
        return frozenset(node for node in self.links - self._cluster.conflicts if membership.usable(node)) | {self._cluster.me}

    def link_opened(self, peer: NodeId) -> None:
        """This node's link to a peer takes frames."""
        self.links.add(peer)
        self._membership.link_opened(peer, self._turn.now)
        self.redraw_due = True

    def link_closed(self, peer: NodeId, *, refused: bool) -> None:
        """This node's link to a peer broke, or could not be opened."""
        was_open = peer in self.links
        self.links.discard(peer)
        self._turn.sections.pop(peer, None)
        self._turn.queued.pop(peer, None)
        self._membership.link_closed(peer, self._turn.now, refused=refused)
        if was_open:
            self.redraw()
            self._coordinator.on_peer_closed(peer)
            self._operations.on_peer_closed(peer)
            self._handoff.on_peer_closed(peer)

    def look(self) -> None:
        """Once a turn: take in what membership has found, and draw the routes if they are due."""
        changes = self._membership.changes()
        for node, before, after, reason in changes:
            self._turn.events.append(("notice", f"node {node[:8]} is {after.value} (was {before.value}): {reason}"))
        now = self._turn.now
        if changes or now - self._drawn_at >= REDRAW_INTERVAL_S:
            self.redraw_due = True
            self._look_for_conflicts()
            self._end_transition(now)
            self.mute += self._membership.mute_links(now)
        if self.redraw_due:
            self.redraw()
        if not self.acquainted:
            self.acquainted = len(self.usable()) == len(self._cluster.ring.members) or now - self._started_at >= ACQUAINTANCE_S

    def watch_clock(self) -> None:
        """See whether this node's clock is too far from its peers' to stamp writes, or even for them to listen."""
        self._watch_wall()
        skew = self._membership.clock_skew_ms(self._turn.wall_ms, self._turn.now)
        limit = self._settings.max_clock_skew
        was = self._coordinator.skew_ms
        self._coordinator.skew_ms = skew if limit and skew is not None and abs(skew) > limit else None
        if (was is None) != (self._coordinator.skew_ms is None):
            text = "no longer" if was is not None else "now"
            self._turn.events.append(("warning", f"this node's clock is {text} too far from its peers' (by {skew} ms)"))

        stamps_ms = milliseconds(self._coordinator.clock.last)
        ahead_ms = self._membership.clock_skew_ms(stamps_ms, self._turn.now, peers_min=1)
        was_far_ahead = self._is_far_ahead
        self._is_far_ahead = ahead_ms is not None and ahead_ms > CLOCK_AHEAD_MAX_MS
        if self._is_far_ahead and not was_far_ahead:
            text = f"this node's stamps are {ahead_ms} ms ahead of its peers' clocks: they refuse all that it sends"
            self._turn.events.append(("warning", f"{text}. Set its clock right and start it again."))

    def _watch_wall(self) -> None:
        """A wall clock that has jumped: the peers know whether it is right now or was before."""
        limit = self._settings.max_clock_skew
        self.wall.step_ms_max = max(limit, STEP_MS_MAX_MIN)
        step_ms = self.wall.doubted_step_ms
        if step_ms is not None and not self._is_wall_doubted:
            text = f"this node's wall clock has jumped by {step_ms} ms: it is not believed before it has stood for {BELIEVED_AFTER_S:.0f} s"
            self._turn.events.append(("warning", f"{text}, or the peers agree"))
        self._is_wall_doubted = step_ms is not None
        if step_ms is not None:
            skew = self._membership.clock_skew_ms(self._turn.wall_ms + step_ms, self._turn.now)
            if skew is not None and abs(skew) <= limit:
                self.wall.believe()

    def _look_for_conflicts(self) -> None:
        conflicts = self._membership.ring_conflicts()
        found = frozenset(conflict.node for conflict in conflicts)
        for conflict in conflicts:
            if conflict.node not in self._cluster.conflicts:
                text = f"node {conflict.node[:8]} has ring {conflict.their_hash} of epoch {conflict.epoch}, ours is {conflict.our_hash}"
                self._turn.events.append(("warning", f"{text}: neither serves the other. Compare cluster-nodes and ring-size of both."))
        self._cluster.conflicts = found

    def _end_transition(self, now: float) -> None:
        """A change of the quorum that its CONFIG SET left open, because a node did not confirm in time or the asking one died.

        Once all live nodes have the value, one of them ends it: else the stricter of both rules would be in force for good.
        """
        cluster, membership = self._cluster, self._membership
        mark = cluster.value_mark
        if not cluster.value.transition or mark != self._transition_mark:
            self._transition_mark, self._transition_since = mark, now
            return
        live = self.usable()
        if now - self._transition_since < TRANSITION_PATIENCE_S or min(live) != cluster.me:
            return
        if all(membership.application_value(node, "value_mark") == f"{mark:016x}" for node in live if node != cluster.me):
            self._transition_since = now
            self._operations.start(cluster.settle(), on_done=lambda _: None)

    def lacks_data(self, node: NodeId) -> bool:
        """Whether what another node holds proves nothing: it says so, or is marked and may not know it."""
        return bool(self._membership.application_value(node, "rebuilding")) or bool(mark_of(self._cluster.value, node))

    def _distrusted(self) -> frozenset[NodeId]:
        """Nodes that are marked and have not set aside yet what they hold."""
        marked = marked_nodes(self._cluster.value) - {self._cluster.me}
        return frozenset(node for node in marked if not self._membership.application_value(node, "rebuilding"))

    def view(self) -> View:
        """What this node believes of the others now."""
        membership, me = self._membership, self._cluster.me
        usable = self.usable()
        set_aside = marked_nodes(self._cluster.value) - usable
        self._hints.closed = self._forgotten(usable) | set_aside
        rebuilding = {node for node in usable if node != me and self.lacks_data(node)}
        if self.rebuilding:
            rebuilding.add(me)
        return View(
            me=me,
            usable=usable,
            rebuilding=frozenset(rebuilding),
            forgotten=frozenset(self._hints.closed),
            stale=self._lagging() | (usable - membership.prompt() - {me}),
            sloppy=effective_sloppy(self._cluster.value),
            handoff=self._settings.hinted_handoff,
        )

    def _forgotten(self, usable: frozenset[NodeId]) -> set[NodeId]:
        """Members that have been away, as far as this process knows, for longer than `max-hint-window`."""
        now, window_s = self._turn.now, self._settings.max_hint_window
        away = {member.node for member in self._cluster.ring.members} - usable
        for node in self._away_since.keys() - away:
            self.returns[node] = self.returns.get(node, 0) + 1
        self._away_since = {node: self._away_since.get(node, now) for node in away}
        return {node for node, since in self._away_since.items() if now - since > window_s}

    def _lagging(self) -> frozenset[NodeId]:
        """Nodes that lack writes, as far as this node and those that it hears hold hints for them."""
        members = (member.node for member in self._cluster.ring.members)
        return frozenset(hints_outstanding(members, me=self._cluster.me, membership=self._membership, hints=self._hints))

    def redraw(self) -> None:
        """Draw the routes anew, if anything that they depend on has changed."""
        self.redraw_due = False
        self._drawn_at = self._turn.now
        cluster, coordinator = self._cluster, self._coordinator
        view = self.view()
        replication = effective_replication(cluster.value, members=len(cluster.ring.members))
        if self.dropping:
            replication = replication._replace(held_n=replication.stored_n)
        self._replica.distrusted = self._distrusted()
        self._handoff.set_aside = marked_nodes(cluster.value) - view.usable
        drawn = (view, replication, cluster.ring, self.held)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        quorum = replication.quorum
        table = RouteTable(cluster.ring, view=view, replication=replication)
        # Batches that this turn has opened belong to the old routes: they go out first.
        while coordinator.seal():
            pass
        coordinator.use_routes(table, quorum)
        coordinator.compensation.usable = view.usable - view.rebuilding
        coordinator.compensation.sloppy = view.sloppy
        coordinator.compensation.handoff = view.handoff
        self._replica.holds = table.holds
        self._replica.others = frozenset(member.node for member in table.ring.members) - {view.me}
        self._replica.rebuilding = self.rebuilding
        # What a node holds that may have been away for too long is nobody's yet.
        self._handoff.usable = frozenset() if self.held else view.usable - {cluster.me}
