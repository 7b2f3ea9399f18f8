"""What status, INFO and the log may read of `Membership`: frozen copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.membership.members import ApplicationValue, MemberAddress, MemberState


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member for `respkv status` and CLUSTER NODES."""

    address: MemberAddress
    state: MemberState
    link_open: bool
    phi: float
    generation: int
    """Start of its process, in unix milliseconds; 0 while nothing was heard of it."""
    heartbeat: int
    application: dict[str, ApplicationValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class RingConflict:
    """Another node has the ring of our epoch with other contents: neither may serve the other."""

    node: NodeId
    epoch: int
    our_hash: str
    their_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficStatistics:
    """What one protocol cost since the start."""

    messages_sent_total: int
    messages_received_total: int
    bytes_sent_total: int
    bytes_received_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipStatistics:
    """Counters of `Membership`, this node among those that are up."""

    up_count: int
    suspect_count: int
    down_count: int
    unknown_count: int
    gossip: TrafficStatistics
    broadcast: TrafficStatistics
    suspicions_total: int
    downs_total: int
    refutations_total: int
    late_answers_total: int
    outbid_total: int
    strangers_total: int


class Traffic:
    """Counts messages and their bytes, frame headers not included."""

    __slots__ = ("_bytes_received", "_bytes_sent", "_messages_received", "_messages_sent")

    def __init__(self) -> None:
        """Start at nothing."""
        self._messages_sent = self._messages_received = 0
        self._bytes_sent = self._bytes_received = 0

    def sent(self, size: int) -> None:
        """Count a message that goes out."""
        self._messages_sent += 1
        self._bytes_sent += size

    def received(self, size: int) -> None:
        """Count a message that came in."""
        self._messages_received += 1
        self._bytes_received += size

    def statistics(self) -> TrafficStatistics:
        """The counts so far."""
        return TrafficStatistics(
            messages_sent_total=self._messages_sent,
            messages_received_total=self._messages_received,
            bytes_sent_total=self._bytes_sent,
            bytes_received_total=self._bytes_received,
        )
