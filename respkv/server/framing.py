"""What a turn has for each peer, made into frames. Pure.

While a peer has not answered the last reads and writes, the next ones wait for its answer, a moment at most, and travel together: under
load the frames grow and the turns of all nodes become fewer, without load nothing waits. For no other answer is waited: to gossip there
is none, and work behind the scenes takes its time over each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.transport import frames
from respkv.transport.bounds import SECTION_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.ids import NodeId
    from respkv.server import turns
    from respkv.transport.turn import Turn

FRAME_HELD_S = 0.002


class Framing:
    """The frames of a node."""

    __slots__ = ("_turn", "unanswered")

    def __init__(self, turn: Turn) -> None:
        """Nobody was sent anything."""
        self._turn = turn
        self.unanswered: dict[NodeId, float] = {}
        """Peers of whom nothing was heard since they were sent nothing but reads and writes, and when that was."""

    def frame(self, out: turns.Departures, header: bytes, links: set[NodeId]) -> None:
        """One frame to each peer to whom there is a link; more, where it would be very long."""
        turn, unanswered = self._turn, self.unanswered
        held: list[NodeId] = []
        for peer, sections in turn.sections.items():
            if peer not in links:
                continue
            sent_at = unanswered.get(peer)
            if sent_at is not None and peer not in turn.urgent and turn.now < sent_at + FRAME_HELD_S:
                held.append(peer)
                continue
            if peer not in turn.urgent:
                unanswered[peer] = turn.now
            if sum(map(len, sections)) <= SECTION_BYTES_MAX:
                out.frames.append((peer, header + b"".join(sections)))
            else:
                out.frames += [(peer, header + part) for part in self._parts(peer, sections)]
        turn.urgent.clear()
        if not held:
            turn.sections.clear()
            turn.queued.clear()
            return
        for peer in list(turn.sections):
            if peer not in held:
                del turn.sections[peer]
                turn.queued.pop(peer, None)
        out.wake_at = min(unanswered[peer] for peer in held) + FRAME_HELD_S

    def _parts(self, peer: NodeId, sections: list[bytes]) -> Iterator[bytes]:
        """What is too much for one frame, cut between its sections. What the peer would not take at all is not sent: the link lives on."""
        size_max = self._turn.frame_bytes_max - frames.HEADER_BYTES
        for part in frames.joined(sections):
            if len(part) <= size_max:
                yield part
            else:
                self._turn.events.append(("warning", f"did not send {peer[:8]} {len(part)} bytes: more than fits into a frame"))
