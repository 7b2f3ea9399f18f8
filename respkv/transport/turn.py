"""What the machines of a node share during a turn: the time, and the effects that they add up. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from respkv.transport import bounds
from respkv.transport.frames import pack_section

if TYPE_CHECKING:
    from respkv.ids import NodeId

SEQUENCE_MODULUS = 1 << 32


class Turn:
    """The present turn. One object, reused."""

    __slots__ = (
        "backlog",
        "events",
        "frame_bytes_max",
        "held",
        "late_s",
        "log",
        "long_bytes_max",
        "now",
        "number",
        "queued",
        "record_bytes_max",
        "sections",
        "sequence",
        "sync_each_turn",
        "urgent",
        "wall_ms",
    )

    def __init__(self) -> None:
        """Before the first turn."""
        self.now = 0.0
        self.late_s = 0.0
        """How long what arrived may have waited for this turn."""
        self.wall_ms = 0
        self.number = 0
        self.log: list[tuple[int, bytes]] = []
        self.sections: defaultdict[NodeId, list[bytes]] = defaultdict(list)
        """For each peer the packed sections of this turn's frame, in order."""
        self.backlog: dict[NodeId, int] = {}
        """Bytes that links had not sent yet when they told of it last, where it is much."""
        self.queued: dict[NodeId, int] = {}
        """Bytes of the long ones among `sections`."""
        self.frame_bytes_max = self.long_bytes_max = self.record_bytes_max = 0
        """The last: what is always sent one day, with short ones beside it."""
        self.bound(bulk_bytes_max=64 << 20, queue_bytes_max=256 << 20)
        self.urgent: set[NodeId] = set()
        """Peers whose frame must not wait for the answer to the last one: somebody there waits for what is in it."""
        self.events: list[tuple[str, str]] = []
        """(level, sentence) for the node's log file."""
        self.sequence = 0
        self.sync_each_turn = False
        """`appendfsync always`: nothing of a turn counts before its log is durable."""
        self.held: deque[tuple[int, Callable[[], None]]] = deque()
        """(turn number, action): what waits for the log of that turn to be durable."""

    def next_sequence(self) -> int:
        """A fresh sequence number for a request to peers."""
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS
        return self.sequence

    def post(self, peer: NodeId, kind: int, sequence: int, body: bytes) -> None:
        """Add a section to this turn's frame for a peer. It does not wait for the answer to an earlier frame."""
        self.urgent.add(peer)
        self.sections[peer].append(pack_section(kind, sequence, body))

    def bound(self, *, bulk_bytes_max: int, queue_bytes_max: int) -> None:
        """Follow the settings."""
        self.frame_bytes_max = bounds.frame_bytes_max(bulk_bytes_max)
        self.long_bytes_max = bounds.long_bytes_max(queue_bytes_max, bulk_bytes_max)
        self.record_bytes_max = min(self.frame_bytes_max, self.long_bytes_max) - 2 * bounds.LONG_BYTES

    def queue_is(self, peer: NodeId, size: int) -> None:
        """A link told how much it has not sent yet; 0: next to nothing."""
        if size:
            self.backlog[peer] = size
        else:
            self.backlog.pop(peer, None)

    def make_room(self, peer: NodeId, size: int) -> bool:
        """Whether so many bytes, which are many, may be posted to a peer now (`peer-queue-limit`). They count as posted then."""
        queued = self.queued.get(peer, 0)
        if self.backlog.get(peer, 0) + queued + size > self.long_bytes_max:
            return False
        self.queued[peer] = queued + size
        return True

    def fits(self, peer: NodeId, body: bytes) -> bool:
        """The same for a section that cannot be cut up."""
        size = len(body)
        return size <= bounds.LONG_BYTES or (size < self.frame_bytes_max - bounds.LONG_BYTES and self.make_room(peer, size))

    def when_logged(self, action: Callable[[], None]) -> None:
        """Run an action once what this turn appends is in the log at the level of `appendfsync`."""
        if self.sync_each_turn:
            self.held.append((self.number, action))
        else:
            action()

    def when_durable(self, action: Callable[[], None]) -> None:
        """Run an action once all that has been appended to the log so far is on the disk."""
        self.held.append((self.number, action))

    def is_awaited(self) -> bool:
        """Whether somebody waits for the log to be durable up to this turn, even if the turn itself appends nothing."""
        return bool(self.held) and self.held[-1][0] == self.number

    def durable(self, number: int) -> None:
        """The log of all turns up to `number` is durable."""
        while self.held and self.held[0][0] <= number:
            self.held.popleft()[1]()
