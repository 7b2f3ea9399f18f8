"""Planted bugs of coordinators: quorums, clocks, the order of replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.read_repairs import ReadRepairs
from respkv.coordinator.reads import Reads
from respkv.coordinator.writes import Writes
from respkv.errors import NoQuorumError
from respkv.placement.slots import key_slot
from respkv.server import topology
from respkv.server.dispatch import Dispatcher
from respkv.server.peers import Peers
from respkv.server.session import Session
from respkv.simulation.bug import STRICT, Bugs, Patch
from respkv.versions import records

if TYPE_CHECKING:
    from respkv.versions.clock import HybridClock


class StaleReadCounted(Bugs):
    """A read is answered after the first answer, whatever its quorum."""

    directives = STRICT

    def patches(self) -> list[Patch]:
        """Need one answer less."""
        opened = Reads.open

        def hasty(self: Reads, route: Any, quorum: Any) -> Any:
            batch = opened(self, route, quorum)
            batch.need -= 1
            return batch

        return [(Reads, "open", hasty)]


class RepairNotWaitedFor(Bugs):
    """A read answers, and leaves it to hints to bring what it found to enough replicas: the next one may not find it."""

    faults = ("cut", "stop", "slow-link")
    directives: ClassVar[dict[str, str]] = {**STRICT, "read-repair": "blocking", "request-timeout": "300"}
    others: ClassVar[dict[str, Any]] = {
        "keys": 2,
        "clients": 9,
        "think_s": 0.03,
        "fault_pause_s": 0.4,
        "load_s": 10.0,
        "skew_ms": 5.0,
        "factors": (),
    }

    def patches(self) -> list[Patch]:
        """Nobody waits, and nothing is sent: hints come later."""
        return [(ReadRepairs, "begin", lambda self, batch: 0), (ReadRepairs, "late", lambda self, batch, peer, records: None)]


class WriteAnsweredEarly(Bugs):
    """A write is answered when one acknowledgement less than its quorum has come."""

    directives = STRICT

    def patches(self) -> list[Patch]:
        """Count the coordinator's own wish as an acknowledgement."""
        opened = Writes.open

        def hasty(self: Writes, route: Any, quorum: Any) -> Any:
            batch = opened(self, route, quorum)
            batch.acks = 1
            return batch

        return [(Writes, "open", hasty)]


class ClockNotAbsorbed(Bugs):
    """A node does not learn the time from the frames of others."""

    directives = STRICT
    others: ClassVar[dict[str, Any]] = {"skew_ms": 1500.0}

    def patches(self) -> list[Patch]:
        """Put the clock back after each frame."""
        receive = Peers.receive

        def deaf(self: Peers, peer: str, frame: bytes) -> None:
            clock: HybridClock = self._clock
            before = clock.last
            receive(self, peer, frame[:0] + before.to_bytes(8, "big") + frame[8:])

        return [(Peers, "receive", deaf)]


class NewerIgnored(Bugs):
    """A coordinator does not send again what a replica says it has something newer than."""

    directives = STRICT
    others: ClassVar[dict[str, Any]] = {"skew_ms": 1500.0}

    def patches(self) -> list[Patch]:
        """Take it for a plain acknowledgement."""

        def plain(self: Writes, peer: str, sequence: int, numbers: list[int]) -> None:
            self.on_ack(peer, [sequence])

        return [(Writes, "on_newer", plain)]


class StandInsCount(Bugs):
    """Stand-ins count although the quorum is strict."""

    faults = ("cut", "kill")
    directives = STRICT
    others: ClassVar[dict[str, Any]] = {"nodes": 5}

    def patches(self) -> list[Patch]:
        """Always sloppy."""
        return [(topology, "effective_sloppy", lambda value: True)]


class RefusedYetDone(Bugs):
    """A write that is refused for want of a quorum is in the node's own copy all the same."""

    faults = ("cut", "kill")
    directives = STRICT

    def patches(self) -> list[Patch]:
        """Merge first, check then."""
        set_plain = Coordinator.set_plain

        def eager(self: Coordinator, conn: Any, key: bytes, value: bytes) -> bytes | None:
            try:
                return set_plain(self, conn, key, value)
            except NoQuorumError:
                partition = key_slot(key) >> self.shift
                if self.routes[partition].local_write:
                    self.store.merge(partition, key, records.pack_stamp(self.clock.next()) + self.tail + value)
                raise

        return [(Coordinator, "set_plain", eager)]


class RepliesOvertake(Bugs):
    """Replies leave when they are there, not in the order of their commands."""

    def patches(self) -> list[Patch]:
        """Let finished replies pass unfinished ones."""
        drain = Session.drain

        def overtake(self: Session) -> None:
            finished = [cell for cell in self.pending if cell[0] is not None]
            rest = [cell for cell in self.pending if cell[0] is None]
            self.pending.clear()
            self.pending.extend(finished + rest)
            drain(self)

        return [(Session, "drain", overtake)]


class DoneTwice(Bugs):
    """A command that was passed on and not answered in time is passed on again."""

    faults = ("cut", "stop")

    def patches(self) -> list[Patch]:
        """Ask twice."""
        pass_on = Dispatcher._pass_on  # noqa: SLF001

        def insist(self: Dispatcher, *passed: Any) -> Any:
            reply = yield from pass_on(self, *passed)
            return (yield from pass_on(self, *passed)) if reply.startswith(b"-TIMEOUT") else reply

        return [(Dispatcher, "_pass_on", insist)]
