"""When a frame leaves at once, and when it waits for the answer to the last one."""

from __future__ import annotations

import pytest

from respkv.ids import NodeId
from respkv.server.framing import FRAME_HELD_S, Framing
from respkv.server.turns import Departures
from respkv.transport import frames
from respkv.transport.turn import Turn

PEER = NodeId("p" * 40)
HEADER = b"h" * frames.HEADER_BYTES


class Sender:
    """The turns of a node that has one peer."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.framing = Framing(self.turn)

    def sends(self, now: float) -> tuple[list[bytes], float | None]:
        """The bodies that leave in a turn, and when the next turn is wanted."""
        self.turn.now = now
        out = Departures()
        self.framing.frame(out, HEADER, {PEER})
        return [frame[len(HEADER) :] for _, frame in out.frames], out.wake_at

    def reads(self) -> bytes:
        """A read is to be sent; its section."""
        section = frames.pack_section(frames.READ, 1, b"key")
        self.turn.sections[PEER].append(section)
        return section


def test_requests_wait_for_the_answer_to_the_last_ones_and_travel_together() -> None:
    sender = Sender()
    first = sender.reads()
    assert sender.sends(1.0) == ([first], None)
    second = sender.reads()
    assert sender.sends(1.0001) == ([], 1.0 + FRAME_HELD_S)
    third = sender.reads()
    # As the node does when a frame of the peer arrives.
    sender.framing.unanswered.pop(PEER)
    assert sender.sends(1.0003) == ([second + third], None)


def test_they_wait_for_a_moment_at_most() -> None:
    sender = Sender()
    sender.reads()
    sender.sends(1.0)
    late = sender.reads()
    assert sender.sends(1.0 + FRAME_HELD_S) == ([late], None)


@pytest.mark.parametrize("kind", [frames.GOSSIP, frames.REQUEST, frames.RESULT, frames.WRITE_ACK])
def test_nothing_waits_for_the_answer_to_what_is_no_read_or_write(kind: int) -> None:
    sender = Sender()
    sender.turn.post(PEER, kind, 7, b"body")
    sender.sends(1.0)
    read = sender.reads()
    assert sender.sends(1.0001) == ([read], None)


def test_what_somebody_waits_for_takes_along_what_was_held() -> None:
    sender = Sender()
    sender.reads()
    sender.sends(1.0)
    held = sender.reads()
    assert sender.sends(1.0001)[0] == []
    sender.turn.post(PEER, frames.WRITE_ACK, 7, b"body")
    assert sender.sends(1.0002) == ([held + frames.pack_section(frames.WRITE_ACK, 7, b"body")], None)
