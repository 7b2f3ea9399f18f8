"""What arrives from other nodes: each frame's header is checked, then every section goes to its machine. Pure.

Rule 1: every frame's clock is absorbed, and every frame is a sign of life. After a silence it may be an old one.
Rule 2: a request of a node that knows another ring is refused before it does anything; whoever is behind fetches the ring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from respkv.coordinator.recent_writes import NOT_AT_ALL
from respkv.coordinator.replica import Replica, decode_keys
from respkv.errors import PeerProtocolError
from respkv.membership.detector import NEVER
from respkv.transport import border, frames
from respkv.versions.clock import highest_credible

if TYPE_CHECKING:
    from respkv.coordinator.coordinator import Coordinator
    from respkv.coordinator.operations import Operations
    from respkv.ids import NodeId
    from respkv.membership.gossip import Membership
    from respkv.repair.handoff import Handoff
    from respkv.server.cluster import ClusterState
    from respkv.server.late_calls import LateCalls
    from respkv.transport.turn import Turn
    from respkv.versions.clock import HybridClock

_decode_numbers = border.reader(list[int])
OLD_S = 1.0
"""What comes after a silence of this length may be so old that nobody waits for it any more."""
_NEEDS_EPOCH = frozenset((frames.WRITE, frames.STAND_IN, frames.READ, frames.READ_STAND_IN))


class Peers:
    """Takes the frames of all peers."""

    __slots__ = (
        "_came_at",
        "_clock",
        "_cluster",
        "_coordinator",
        "_handlers",
        "_handoff",
        "_late_calls",
        "_membership",
        "_operations",
        "_replica",
        "_turn",
        "frames_total",
    )

    def __init__(
        self,
        *,
        turn: Turn,
        clock: HybridClock,
        membership: Membership,
        coordinator: Coordinator,
        operations: Operations,
        replica: Replica,
        handoff: Handoff,
        cluster: ClusterState,
        late_calls: LateCalls,
    ) -> None:
        """The machines that sections go to."""
        self._turn = turn
        self._clock = clock
        self._membership = membership
        self._coordinator = coordinator
        self._operations = operations
        self._replica = replica
        self._handoff = handoff
        self._cluster = cluster
        self._late_calls = late_calls
        self._came_at: dict[NodeId, float] = {}
        """When the last frame of each peer came. Membership forgives silences, for which this node itself is to blame; this does not."""
        self.frames_total = 0
        self._handlers: dict[int, Callable[[NodeId, int, bytes], None]] = {
            frames.WRITE: replica.write,
            frames.WRITE_ACK: self._on_write_ack,
            frames.WRITE_ACK_NEWER: self._on_write_newer,
            frames.STAND_IN: replica.stand_in,
            frames.READ: lambda peer, sequence, body: replica.read(peer, sequence, body, stand_in=False),
            frames.READ_STAND_IN: lambda peer, sequence, body: replica.read(peer, sequence, body, stand_in=True),
            frames.RECORDS: self._on_records,
            frames.TOO_LONG: self._on_too_long,
            frames.REQUEST: operations.on_request,
            frames.RESULT: operations.on_result,
            frames.GOSSIP: self._on_gossip,
            frames.REPAIR: replica.repair,
            frames.REFUSED: self._on_refused,
            frames.CLUSTER_VALUE: cluster.on_value,
            frames.RING: cluster.on_ring,
        }

    def receive(self, peer: NodeId, frame: bytes) -> None:
        """One frame. Raises PeerProtocolError: then the link is to be closed."""
        self.frames_total += 1
        turn = self._turn
        stamp, epoch, value_mark = frames.unpack_header(frame)
        if stamp > self._clock.last:
            if stamp > highest_credible(turn.wall_ms):
                msg = f"its clock is {(stamp >> 16) - turn.wall_ms} ms ahead"
                raise PeerProtocolError(msg)
            self._clock.last = stamp
        now = turn.now
        if now - self._came_at.get(peer, NEVER) >= OLD_S:
            self._late_calls.doubt(peer)
        self._came_at[peer] = now
        self._membership.heard(peer, now)
        cluster = self._cluster
        if value_mark != cluster.value_mark:
            cluster.on_other_value(peer, value_mark)
        same_ring = epoch == cluster.ring.epoch and peer not in cluster.conflicts
        if not same_ring:
            cluster.on_other_epoch(peer, epoch)
        handlers = self._handlers
        for kind, sequence, body in frames.sections(frame):
            if not same_ring and kind in _NEEDS_EPOCH:
                turn.post(peer, frames.REFUSED, sequence, b"another ring")
                continue
            handler = handlers.get(kind)
            if handler is None:
                msg = f"unknown section {kind}"
                raise PeerProtocolError(msg)
            handler(peer, sequence, body)

    def _on_records(self, peer: NodeId, sequence: int, body: bytes) -> None:
        self._coordinator.reads.on_records(peer, sequence, decode_keys(body))

    def _on_too_long(self, peer: NodeId, sequence: int, body: bytes) -> None:
        self._coordinator.reads.on_too_long(peer, sequence, _decode_numbers(body))

    def _on_write_ack(self, peer: NodeId, sequence: int, body: bytes) -> None:
        sequences = _decode_numbers(body)
        self._coordinator.writes.on_ack(peer, sequences)
        if self._coordinator.repairs:
            self._coordinator.repairs.on_ack(peer, sequences)
        self._handoff.on_ack(peer, sequences)

    def _on_write_newer(self, peer: NodeId, sequence: int, body: bytes) -> None:
        numbers = _decode_numbers(body)
        self._coordinator.writes.on_newer(peer, sequence, numbers)
        if NOT_AT_ALL not in numbers[2::3]:
            self._handoff.on_ack(peer, [sequence])

    def _on_refused(self, peer: NodeId, sequence: int, body: bytes) -> None:
        self._turn.events.append(("notice", f"{peer[:8]} refused a request: {body[:100].decode('utf-8', 'replace')}"))
        self._coordinator.on_refused(peer, sequence)
        self._handoff.on_refused(peer, sequence)

    def _on_gossip(self, peer: NodeId, sequence: int, body: bytes) -> None:
        for target, payload in self._membership.receive(peer, body, self._turn.now):
            self._turn.post(target, frames.GOSSIP, 0, payload)
