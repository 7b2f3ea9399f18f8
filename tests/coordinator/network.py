"""A few nodes without their sessions, gossip and disks: coordinator, replica and hand-off, and links that keep their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from respkv.config.quorums import Quorums
from respkv.config.replication import steady
from respkv.coordinator.batches import Waiter
from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.replica import Replica
from respkv.coordinator.routes import RouteTable, View
from respkv.errors import ClientError
from respkv.ids import node_id_of_address
from respkv.placement.ring import Member, Ring
from respkv.repair.handoff import Handoff
from respkv.repair.hints import HintBook
from respkv.storage.parking import Parking
from respkv.storage.store import Store
from respkv.transport import frames
from respkv.transport.turn import Turn
from respkv.versions.clock import HybridClock

PARTITIONS = 16


@dataclass(eq=False)
class Set:
    """One SET: when it was said, and what became of it."""

    connection: Connection
    number: int
    key: bytes
    said_at: int
    reply: bytes | None = None
    replied_at: int = 0

    @property
    def value(self) -> bytes:
        return b"%d:%d" % (self.connection.number, self.number)


@dataclass(eq=False)
class Get:
    """One read of a key, as an operation makes it."""

    network: Network
    key: bytes
    said_at: int
    record: bytes | None = None
    """What it found; None while nothing or an error was said."""
    replied_at: int = 0

    nil: bytes = b""

    def drain(self) -> None:
        """A connection's business."""

    def receive(self, index: int, record: bytes) -> None:
        self.record, self.replied_at = record, self.network.tick()

    def failed(self, error: ClientError) -> None:
        self.replied_at = self.network.tick()

    def written(self) -> None:
        """It writes nothing."""


class Connection(Waiter):
    """A client of one machine, which sends without waiting."""

    def __init__(self, machine: Machine, number: int) -> None:
        super().__init__(b"$-1\r\n")
        self.machine = machine
        self.number = number
        self.said: list[Set] = []
        self.answered = 0

    def set(self, key: bytes) -> None:
        network = self.machine.network
        command = Set(self, len(self.said), key, network.tick())
        self.said.append(command)
        try:
            reply = self.machine.coordinator.set_plain(self, key, command.value)
        except ClientError as error:
            reply = error.reply()
        if reply is not None:
            self.pending.append([reply])
        self.drain()

    def drain(self) -> None:
        while self.pending and self.pending[0][0] is not None:
            command = self.said[self.answered]
            command.reply = self.pending.popleft()[0]
            command.replied_at = self.machine.network.tick()
            self.answered += 1


class Machine:
    """One node."""

    def __init__(self, network: Network, name: str, *, clock: int) -> None:
        self.network = network
        self.name = name
        self.turn = Turn()
        self.store = Store(ring_size=PARTITIONS)
        self.parking = Parking(self.store)
        self.clock = HybridClock(clock)
        self.hints = HintBook(bytes_max=0)
        actor = bytes.fromhex(name[:16])
        self.coordinator = Coordinator(
            me=name, actor=actor, store=self.store, clock=self.clock, turn=self.turn, hints=self.hints, parking=self.parking
        )
        recent = self.coordinator.recent
        self.replica = Replica(store=self.store, turn=self.turn, hints=self.hints, parking=self.parking, clock=self.clock, recent=recent)
        self.handoff = Handoff(
            me=name,
            turn=self.turn,
            store=self.store,
            hints=self.hints,
            parking=self.parking,
            is_replica=lambda partition: self.replica.holds[partition],
            replicas=self.coordinator.replicas,
        )
        self.cut: set[str] = set()
        """Peers that this node has no link to."""

    def draw(self) -> None:
        """Draw the routes anew."""
        usable = frozenset(self.network.machines) - self.cut
        view = View(me=self.name, usable=usable, stale=frozenset(self.hints.rows), sloppy=self.network.sloppy)
        table = RouteTable(self.network.ring, view=view, replication=steady(self.network.quorum))
        while self.coordinator.seal():
            pass
        self.coordinator.use_routes(table, self.network.quorum)
        compensation = self.coordinator.compensation
        compensation.usable, compensation.sloppy = usable, view.sloppy
        self.replica.holds = table.holds
        self.replica.others = frozenset(member.node for member in table.ring.members) - {view.me}
        self.handoff.usable = usable - {self.name}

    def link_closed(self, peer: str) -> None:
        self.cut.add(peer)
        self.draw()
        self.coordinator.on_peer_closed(peer)
        self.handoff.on_peer_closed(peer)
        self.end()

    def link_opened(self, peer: str) -> None:
        self.cut.discard(peer)
        self.draw()
        self.end()

    def take(self, peer: str, frame: bytes) -> None:
        """A frame of a peer."""
        self.clock.absorb(frames.unpack_header(frame)[0])
        coordinator, replica = self.coordinator, self.replica
        for kind, sequence, body in frames.sections(frame):
            match kind:
                case frames.WRITE:
                    replica.write(peer, sequence, body)
                case frames.STAND_IN:
                    replica.stand_in(peer, sequence, body)
                case frames.READ | frames.READ_STAND_IN:
                    replica.read(peer, sequence, body, stand_in=kind == frames.READ_STAND_IN)
                case frames.REPAIR:
                    replica.repair(peer, sequence, body)
                case frames.WRITE_ACK:
                    numbers = msgspec.msgpack.decode(body, type=list[int])
                    coordinator.writes.on_ack(peer, numbers)
                    coordinator.repairs.on_ack(peer, numbers)
                    self.handoff.on_ack(peer, numbers)
                case frames.WRITE_ACK_NEWER:
                    coordinator.writes.on_newer(peer, sequence, msgspec.msgpack.decode(body, type=list[int]))
                case frames.RECORDS:
                    coordinator.reads.on_records(peer, sequence, msgspec.msgpack.decode(body, type=list[bytes]))
                case frames.REFUSED:
                    coordinator.on_refused(peer, sequence)
                    self.handoff.on_refused(peer, sequence)
                case _:
                    raise AssertionError(kind)

    def end(self) -> None:
        """The end of a turn."""
        due = self.coordinator.next_due()
        if due is not None and due <= self.turn.now:
            self.coordinator.expire()
        self.handoff.tick()
        while self.coordinator.seal():
            pass
        self.replica.flush_acks()
        self.turn.number += 1
        header = frames.pack_header(self.clock.last, 1, 0)
        for peer, sections in self.turn.sections.items():
            if peer not in self.cut:
                self.network.links[self.name, peer].append(header + b"".join(sections))
        self.turn.sections.clear()
        self.turn.log.clear()


class Network:
    """Machines and the links between them. Nothing arrives unless it is delivered."""

    def __init__(self, count: int, quorum: Quorums, *, sloppy: bool = True, skew: list[int] | None = None) -> None:
        names = sorted(node_id_of_address("127.0.0.1", 17001 + number) for number in range(count))
        self.ring = Ring(1, tuple(map(Member, names)), tuple(partition % count for partition in range(PARTITIONS)))
        self.quorum = quorum
        self.sloppy = sloppy
        self.links: dict[tuple[str, str], deque[bytes]] = {(left, right): deque() for left in names for right in names if left != right}
        self.machines = {name: Machine(self, name, clock=(skew or [0])[place % len(skew or [0])]) for place, name in enumerate(names)}
        self._ticks = 0
        for machine in self.machines.values():
            machine.draw()

    def tick(self) -> int:
        """A number for each moment at which a client says or hears something."""
        self._ticks += 1
        return self._ticks

    def deliver(self, left: str, right: str) -> bool:
        """Let one frame arrive. Returns whether there was one."""
        if not self.links[left, right]:
            return False
        frame = self.links[left, right].popleft()
        machine = self.machines[right]
        machine.take(left, frame)
        machine.end()
        return True

    def exchange(self, name: str, *, late: tuple[str, str] | None = None) -> bool:
        """Let all arrive that a node has sent, and then all that was sent to it; but what is on one link stays there.

        Returns whether there was anything.
        """
        self.machines[name].end()
        any_arrived = False
        for outwards in (True, False):
            for left, right in self.links:
                while (left if outwards else right) == name and (left, right) != late and self.deliver(left, right):
                    any_arrived = True
        return any_arrived

    def cut(self, left: str, right: str) -> None:
        """Both links between two nodes break; what was on them is lost."""
        for source, target in ((left, right), (right, left)):
            self.links[source, target].clear()
            if target not in self.machines[source].cut:
                self.machines[source].link_closed(target)

    def heal(self, left: str, right: str) -> None:
        """Both links are open again."""
        for source, target in ((left, right), (right, left)):
            if target in self.machines[source].cut:
                self.machines[source].link_opened(target)

    def pass_time(self, seconds: float) -> None:
        """Time passes, on all machines."""
        for machine in self.machines.values():
            machine.turn.now += seconds
            machine.end()

    def settle(self) -> None:
        """Heal, and let everything arrive until nothing happens any more."""
        for left, right in list(self.links):
            self.heal(left, right)
        for _ in range(60):
            while waiting := [link for link, mail in self.links.items() if mail]:
                for left, right in waiting:
                    self.deliver(left, right)
            self.pass_time(0.5)
