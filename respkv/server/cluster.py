"""The ring and the cluster-wide value of settings, as this node knows them; and their way to the other nodes. Pure.

Rule 1: a value is merged, persisted, and only then confirmed.
Rule 2: while a change of the quorum is on its way, the stricter of old and new is in force everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from respkv.config import changes, cluster_value
from respkv.coordinator.operations import Ask, Call, Steps, Until
from respkv.errors import PeerProtocolError
from respkv.placement.ring import Ring, decode_ring
from respkv.transport import frames
from respkv.versions.clock import highest_credible

if TYPE_CHECKING:
    from respkv.config.changes import Staged
    from respkv.config.cluster_value import ClusterValue
    from respkv.config.settings import Settings
    from respkv.ids import NodeId
    from respkv.transport.turn import Turn
    from respkv.versions.clock import HybridClock

VALUE_FILE = "cluster-value"
RING_FILE = "ring"
SAVE_S = 5.0
"""A disk that takes longer than this for a small file is in trouble: CONFIG SET says so."""
FLUSH_LEAD_MS = 20
"""How far FLUSHALL's floor lies ahead of the clock: most nodes learn of it before they stamp above it, and forget all at once."""


class ClusterState:
    """What all nodes share."""

    def __init__(
        self,
        *,
        me: NodeId,
        actor: bytes,
        settings: Settings,
        turn: Turn,
        clock: HybridClock,
        ring: Ring,
        value: ClusterValue,
        save: Callable[[str, bytes], None],
    ) -> None:
        """`value` is what the disk holds, or the founding value."""
        self.me = me
        self.actor = actor
        self.settings = settings
        self.turn = turn
        self.clock = clock
        self.ring = ring
        self.value = value
        # Whatever this node stamps from now on is later, even if its wall clock was set back meanwhile.
        clock.absorb(max(value.stamp, value.flush_floor - 1))
        self.value_mark = cluster_value.fingerprint(value)
        self.on_change: Callable[[], None] = lambda: None
        """Called after the ring or the value changed: routes are to be drawn anew."""
        self.live_peers: Callable[[], list[NodeId]] = list
        self._save = save
        self._saves_begun = self._saves_ended = 0
        self._when_saved: deque[tuple[int, Callable[[], None]]] = deque()
        """Who waits until so many saves have ended; they end in their order."""
        self._asked_value: dict[NodeId, float] = {}
        self._asked_ring: dict[NodeId, float] = {}
        self.conflicts: frozenset[NodeId] = frozenset()
        """Nodes with another ring of the same epoch: neither serves the other."""

    @property
    def members_count(self) -> int:
        """How many members the ring has."""
        return len(self.ring.members)

    # --- the value

    def adopt(self, value: ClusterValue) -> bool:
        """Merge a value into ours. Returns whether it changed."""
        merged = cluster_value.merge(self.value, value)
        if merged == self.value:
            return False
        self.value = merged
        self.value_mark = cluster_value.fingerprint(merged)
        # What is written after FLUSHALL was answered must not lie below its floor, which is ahead of the time.
        self.clock.absorb(max(merged.stamp, merged.flush_floor - 1))
        changes.apply(self.settings, cluster_value.shared_settings(merged))
        self._save(VALUE_FILE, cluster_value.encode(merged))
        self._saves_begun += 1
        self.on_change()
        return True

    def on_saved(self, name: str) -> None:
        """A small file is on the disk."""
        if name != VALUE_FILE:
            return
        self._saves_ended += 1
        while self._when_saved and self._when_saved[0][0] <= self._saves_ended:
            self._when_saved.popleft()[1]()

    def on_other_value(self, peer: NodeId, mark: int) -> None:
        """A frame's header names another value than ours: send ours, at most ten times a second. Whoever is behind learns."""
        now = self.turn.now
        if now - self._asked_value.get(peer, -1.0) >= 0.1:
            self._asked_value[peer] = now
            self.turn.post(peer, frames.CLUSTER_VALUE, 0, cluster_value.encode(self.value))

    def on_value(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """Another node's value."""
        before = self.value
        if self.adopt(self._read(body)):
            for name, _, text in cluster_value.differences_between(before, self.value):
                self.turn.events.append(("notice", f"{name} is now {text}, as set by the cluster (learnt from {peer[:8]})"))

    def serve_value(self, call: Call) -> None:
        """The call "value": merge a value; the answer says that it is in force here, and on the disk."""
        self.adopt(self._read(call.argument))
        if self.is_saved():
            call.answer(b"+OK\r\n")
        else:
            self._when_saved.append((self._saves_begun, lambda: call.answer(b"+OK\r\n")))

    def _read(self, body: bytes) -> ClusterValue:
        value = cluster_value.decode(body)
        marks = [stamp for stamps in value.rebuilds.values() for stamp in stamps]
        if max(value.stamp, value.flush_floor, *marks) > highest_credible(self.turn.wall_ms):
            msg = "cluster value of the far future"
            raise PeerProtocolError(msg)
        return value

    def spread(self, value: ClusterValue) -> Steps:
        """Adopt a value and bring it to all live nodes. Returns b"" or the error that says who did not confirm."""
        self.adopt(value)
        saves_begun = self._saves_begun
        peers = [node for node in self.live_peers() if node != self.me]
        answers = (yield Ask(peers, "value", cluster_value.encode(self.value))) if peers else {}
        if not (yield Until(lambda: self._saves_ended >= saves_begun, self.turn.now + SAVE_S)):
            return b"-TIMEOUT it is in force, but not on this node's disk yet\r\n"
        missing = sorted(node[:8] for node, answer in answers.items() if answer != b"+OK\r\n" and node in self.live_peers())
        if missing:
            return b"-TIMEOUT not confirmed by %b; it will reach them by gossip\r\n" % ", ".join(missing).encode()
        return b""

    def change(self, staged: Staged) -> Steps:
        """Carry out a checked CONFIG SET."""
        if staged.cluster:
            value = cluster_value.successor(
                self.value, staged.cluster, stamp=self.clock.next(), actor=self.actor, members=self.members_count
            )
            failure = yield from self.spread(value)
            if failure:
                return failure
            if self.value.transition:
                value = cluster_value.settled(self.value, stamp=self.clock.next(), actor=self.actor)
                failure = yield from self.spread(value)
                if failure:
                    return failure
        if staged.node:
            changes.apply(self.settings, staged.node)
            self.on_change()
        return b"+OK\r\n"

    def settle(self) -> Steps:
        """End a transition that its CONFIG SET could not end: by now all live nodes have its value."""
        failure = yield from self.spread(cluster_value.settled(self.value, stamp=self.clock.next(), actor=self.actor))
        return failure or b"+OK\r\n"

    def flush_all(self) -> Steps:
        """Raise the floor below which no record exists, on all live nodes."""
        floor = self.clock.next() + (FLUSH_LEAD_MS << 16)
        failure = yield from self.spread(cluster_value.flushed(self.value, floor, stamp=self.clock.next(), actor=self.actor))
        return failure or b"+OK\r\n"

    def is_saved(self) -> bool:
        """Whether the value is on the disk."""
        return self._saves_ended == self._saves_begun

    def mark(self, node: NodeId) -> Steps:
        """Say that a node must be rebuilt."""
        return (yield from self.spread(cluster_value.with_mark(self.value, node, self.clock.next()))) or b"+OK\r\n"

    def report_rebuilt(self, stamp: int) -> Steps:
        """Say that this node was rebuilt because of the mark of this stamp."""
        return (yield from self.spread(cluster_value.without_mark(self.value, self.me, stamp))) or b"+OK\r\n"

    # --- the ring

    def on_other_epoch(self, peer: NodeId, epoch: int) -> None:
        """A frame's header names another ring epoch: if ours is the newer one, the peer gets it."""
        now = self.turn.now
        if epoch < self.ring.epoch and now - self._asked_ring.get(peer, -1.0) >= 0.1:
            self._asked_ring[peer] = now
            self.turn.post(peer, frames.RING, 0, self.ring.encode())

    def on_ring(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """Another node's ring: a newer epoch replaces ours."""
        try:
            ring = decode_ring(body)
        except msgspec.MsgspecError as error:
            raise PeerProtocolError(str(error)) from None
        if ring.epoch > self.ring.epoch and ring.size == self.ring.size:
            self.ring = ring
            self._save(RING_FILE, body)
            self.turn.events.append(("notice", f"the ring is now of epoch {ring.epoch}, learnt from {peer[:8]}"))
            self.on_change()
