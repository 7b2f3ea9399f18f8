"""Bugs that exist in the simulator only, each a known way to lose data: checks that find none of them prove nothing.

A bug replaces methods of the node's classes while a seed is played; the node itself knows nothing of it. Each says what has
to go wrong for it to show, and what the cluster has to promise for that to be wrong.

One famous bug is not here: an actor that is reused. Versions that are only compared, as under last write wins, do not need
actors to be new; it joins the list together with version vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.reads import Reads
from respkv.coordinator.replica import Replica
from respkv.coordinator.writes import Writes
from respkv.errors import NoQuorumError
from respkv.placement.slots import key_slot
from respkv.repair.handoff import Handoff
from respkv.repair.hints import HintBook
from respkv.server import topology
from respkv.server.dispatch import Dispatcher
from respkv.server.peers import Peers
from respkv.server.restore import Restoration
from respkv.server.session import Session
from respkv.simulation.disk import Disk
from respkv.storage.store import Store
from respkv.versions import records

if TYPE_CHECKING:
    from respkv.server.restore import LogRecord
    from respkv.simulation.scenario import Scenario
    from respkv.versions.clock import HybridClock

Patch = tuple[Any, str, Callable[..., Any]]


class Bugs:
    """No bug at all; the base of those that follow."""

    faults: ClassVar[tuple[str, ...] | None] = None
    """What has to go wrong; None: whatever the seed says."""
    directives: ClassVar[dict[str, str]] = {}
    others: ClassVar[dict[str, Any]] = {}
    """What else the scenario has to be."""

    def patches(self) -> list[Patch]:
        """(class or module, name, what takes its place)."""
        return []

    def log_of(self, log: Iterable[LogRecord]) -> Iterable[LogRecord]:
        """What a start reads of its log."""
        return log


@contextlib.contextmanager
def planted(bugs: Bugs) -> Iterator[None]:
    """Play with bugs, and go on without them."""
    patches = bugs.patches()
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def made_for(scenario: Scenario, bugs: Bugs) -> Scenario:
    """The scenario in which a bug may show."""
    faults = scenario.faults if bugs.faults is None else bugs.faults
    return replace(scenario, faults=faults, directives={**scenario.directives, **bugs.directives}, **bugs.others)


STRICT = {"replication-factor": "3", "read-quorum": "quorum", "write-quorum": "quorum", "sloppy-quorum": "no"}
SLOPPY = {"replication-factor": "3", "read-quorum": "quorum", "write-quorum": "quorum", "sloppy-quorum": "yes"}


class HintLost(Bugs):
    """Every third hint row is counted and forgotten."""

    faults = ("cut", "stop")

    def patches(self) -> list[Patch]:
        """Take rows and keep fewer."""
        add, count = HintBook.add, 0

        def forgetful(self: HintBook, owner: str, pairs: list[bytes], now: float) -> list[bytes]:
            nonlocal count
            taken = add(self, owner, pairs, now)
            for key in taken[::2]:
                count += 1
                if count % 3 == 0:
                    self.drop(owner, [key])
            return taken

        return [(HintBook, "add", forgetful)]


class HintDroppedEarly(Bugs):
    """A hint row is dropped when its record was sent, not when the owner has it."""

    faults = ("cut", "reset", "stop")

    def patches(self) -> list[Patch]:
        """Drop behind the send."""
        send = Handoff._send  # noqa: SLF001

        def hasty(self: Handoff, owner: str, flow: Any, keys: list[bytes]) -> None:
            send(self, owner, flow, keys)
            self._drop(owner, list(flow.sent), reason=None)

        return [(Handoff, "_send", hasty)]


class TieBrokenByPlace(Bugs):
    """Of two versions with one stamp a node keeps the one that it had first."""

    directives = SLOPPY
    others: ClassVar[dict[str, Any]] = {"skew_ms": 0.0, "keys": 2, "think_s": 0.005, "clients": 9}

    def patches(self) -> list[Patch]:
        """Compare stamps alone."""
        merge = Store.merge

        def first_wins(self: Store, partition: int, key: bytes, record: bytes) -> bool:
            old = self.shards[partition].get(key)
            if old and old[:8] == record[:8] and old != record:
                return False
            return merge(self, partition, key, record)

        return [(Store, "merge", first_wins)]


class RepairAssigns(Bugs):
    """A repair or a hint is written over whatever is there."""

    def patches(self) -> list[Patch]:
        """Assign instead of merging."""

        def assign(self: Replica, *arguments: Any) -> None:
            peer, sequence, pairs, body = arguments
            store = self._store
            for key, record in zip(pairs[::2], pairs[1::2], strict=True):
                partition = store.partition(key)
                store.shards[partition].pop(key, None)
                store.merge(partition, key, record)
            self._turn.log.append((1, body))
            if sequence:
                self._acknowledge(peer, sequence, [])

        return [(Replica, "_merge_repair", assign)]


class AckBeforeAppend(Bugs):
    """What a turn acknowledges gets into the log a tenth of a second later."""

    faults = ("kill",)
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def patches(self) -> list[Patch]:
        """Append late, unless the process is dead by then."""
        append = Disk.append

        def late(self: Disk, log: list[tuple[int, bytes]]) -> None:
            self._later((0.1, 0.1), append, self, log)

        return [(Disk, "append", late)]


class SyncLies(Bugs):
    """`appendfsync always` answers before the sync has returned."""

    faults = ("power",)
    directives: ClassVar[dict[str, str]] = {"appendfsync": "always", "write-quorum": "one", "read-quorum": "quorum"}

    def patches(self) -> list[Patch]:
        """Report at once, sync later."""
        begin = Disk._begin_sync  # noqa: SLF001

        def lie(self: Disk) -> None:
            turn = self._sync_wanted
            begin(self)
            self._report((7, turn))

        return [(Disk, "_begin_sync", lie)]


class ExpiryFromArrival(Bugs):
    """A replica counts a time to live from when the record arrived."""

    def patches(self) -> list[Patch]:
        """Move the expiry of what arrives by a moment."""
        merge = Replica._merge  # noqa: SLF001

        def moved(record: bytes, wall_ms: int) -> bytes:
            when = records.expiry_of(record)
            if when is None or len(record) <= records.EXPIRED_BYTES:
                return record
            ttl_ms = when - (records.stamp_of(record) >> 16)
            return record[:26] + (wall_ms + ttl_ms).to_bytes(8, "big") + record[34:]

        def from_arrival(self: Replica, *arguments: Any) -> None:
            peer, sequence, pairs, body = arguments
            wall_ms = self._turn.wall_ms
            merge(self, peer, sequence, [item if place % 2 == 0 else moved(item, wall_ms) for place, item in enumerate(pairs)], body)

        return [(Replica, "_merge", from_arrival)]


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


class TailNotReplayed(Bugs):
    """A start stops reading its log a little before the end."""

    faults = ("kill",)
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def log_of(self, log: Iterable[LogRecord]) -> Iterable[LogRecord]:
        """All but the last few."""
        return list(log)[:-3]


class TailNotOwed(Bugs):
    """A start does not send the unconfirmed end of its log to the other replicas."""

    faults = ("kill", "cut")
    others: ClassVar[dict[str, Any]] = {"nodes": 3}
    directives = SLOPPY

    def patches(self) -> list[Patch]:
        """Owe nothing."""
        owe = Restoration.owe_tail

        def forget(self: Restoration, **arguments: Any) -> Any:
            self._tail.clear()
            return owe(self, **arguments)

        return [(Restoration, "owe_tail", forget)]


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

        def insist(self: Dispatcher, request: Any, node: str) -> Any:
            reply = yield from pass_on(self, request, node)
            return (yield from pass_on(self, request, node)) if reply.startswith(b"-TIMEOUT") else reply

        return [(Dispatcher, "_pass_on", insist)]


class GuestStays(Bugs):
    """A stand-in keeps its copy when the owner has taken it over."""

    faults = ("cut", "kill", "stop")
    directives = SLOPPY
    others: ClassVar[dict[str, Any]] = {"nodes": 5}

    def patches(self) -> list[Patch]:
        """Forget nothing."""
        return [(Store, "forget", lambda self, partition, key: None)]


class LogDroppedEarly(Bugs):
    """The log before a freeze is dropped when the freeze begins, not when the tables are flushed."""

    faults = ("kill",)
    others: ClassVar[dict[str, Any]] = {"memtable_bytes": 1 << 12, "sync_s": (0.1, 0.5), "fault_pause_s": 0.4}
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def patches(self) -> list[Patch]:
        """Drop first."""
        obey = Disk.obey

        def hasty(self: Disk, departures: Any) -> None:
            obey(self, departures)
            if departures.freeze is not None:
                self.log_start += len(self.log)
                self.log.clear()

        return [(Disk, "obey", hasty)]


class ColdTakenForAbsent(Bugs):
    """A key that is not in memory is taken for one that does not exist."""

    directives: ClassVar[dict[str, str]] = {**STRICT, "maxmemory": "2000"}
    others: ClassVar[dict[str, Any]] = {"memtable_bytes": 1 << 12, "keys": 10}

    def patches(self) -> list[Patch]:
        """Nothing is ever cold."""
        return [(Store, "cold", lambda self, keys: [])]


BUGS: dict[str, type[Bugs]] = {
    "hint lost": HintLost,
    "hint dropped before ack": HintDroppedEarly,
    "tie broken by place": TieBrokenByPlace,
    "repair assigns": RepairAssigns,
    "ack before append": AckBeforeAppend,
    "sync lies": SyncLies,
    "expiry from arrival": ExpiryFromArrival,
    "stale read counted": StaleReadCounted,
    "write answered early": WriteAnsweredEarly,
    "log tail not replayed": TailNotReplayed,
    "log tail not owed": TailNotOwed,
    "clock not absorbed": ClockNotAbsorbed,
    "newer version ignored": NewerIgnored,
    "stand-ins count (strict)": StandInsCount,
    "refused yet done": RefusedYetDone,
    "replies overtake": RepliesOvertake,
    "command done twice": DoneTwice,
    "guest copy stays": GuestStays,
    "log dropped before flush": LogDroppedEarly,
    "cold taken for absent": ColdTakenForAbsent,
}
