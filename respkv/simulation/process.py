"""The shell of one node: what arrives becomes mail, a turn takes mail, and what departs goes to the disk, peers and clients.

It obeys departures in the order that `server.turns` prescribes. A turn takes a moment of virtual time, so mail gathers
and turns have several arrivals. A stopped process (SIGSTOP) takes no turn while its mail piles up.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from respkv.config import changes, cluster_value
from respkv.ids import NodeId, new_actor
from respkv.placement.ring import decode_ring, preference_lists
from respkv.repair.hints import HintBook
from respkv.server import turns
from respkv.server.cluster import RING_FILE, VALUE_FILE
from respkv.server.downtime import SEEN_FILE
from respkv.server.node import Node
from respkv.server.rebuild import MARKER_FILE, SET_ASIDE_FILE
from respkv.server.resizing import DONE_FILE
from respkv.server.restore import restore
from respkv.storage.store import Store
from respkv.versions.clock import HybridClock

if TYPE_CHECKING:
    from respkv.simulation.disk import Disk
    from respkv.simulation.network import Link
    from respkv.simulation.world import World

EPOCH_MS = 1_700_000_000_000
TURN_S = (20e-6, 200e-6)
MAIL_PER_TURN_MAX = 512
IDLE_TURNS_MAX = 300


class SimulationError(Exception):
    """The node did what no node may do."""


class Channel(Protocol):
    """A client's end of a connection."""

    def receive(self, data: bytes) -> None:
        """Bytes of the node."""

    def hang_up(self) -> None:
        """The node, or its process, has closed the connection."""


@dataclass(slots=True)
class WallClock:
    """What a node's machine takes for the time."""

    offset_ms: float = 0.0
    """How far off it was when it was last set ..."""
    set_at: float = 0.0
    """... which was then."""
    drift: float = 0.0
    """How much further off it is each second since, in seconds."""

    def read(self, now: float) -> int:
        """Unix milliseconds."""
        return EPOCH_MS + int(self.offset_ms + (now + (now - self.set_at) * self.drift) * 1000.0)

    def put(self, offset_ms: float, *, now: float) -> None:
        """Somebody sets it, right or wrong: it jumps."""
        self.offset_ms, self.set_at = offset_ms, now


class Process:
    """One node of the world: a machine with a disk and a clock, and on it one process after another."""

    def __init__(self, world: World, index: int, *, me: NodeId, disk: Disk, rng: random.Random) -> None:
        """It does not run yet."""
        self.world = world
        self.index = index
        self.me = me
        self.disk = disk
        self.clock = WallClock()
        self.monotonic_offset = rng.uniform(0.0, 1e5)
        self.node: Node | None = None
        self.incarnation = 0
        self.is_off = False
        """Whether the whole machine is dark: dials get no answer."""
        self.stopped_until = 0.0
        self.links: dict[NodeId, Link] = {}
        self.incoming: dict[NodeId, Link] = {}
        self.channels: dict[int, Channel] = {}
        self.turns_total = 0
        self._pauses: list[tuple[float, float]] = []
        self._rng = rng
        self._mail: list[turns.Arrival] = []
        self._busy_until = 0.0
        self._due: float | None = None
        self._idle_turns = 0
        self._next_client_id = 0
        self._restart_after_s = 0.0

    def is_running(self, incarnation: int) -> bool:
        """Whether the same process still lives."""
        return self.node is not None and self.incarnation == incarnation

    # --- life and death

    def start(self) -> None:
        """Begin a process: read the disk, build a node, dial the others."""
        assert self.node is None
        world = self.world
        self.incarnation += 1
        self.is_off = False
        self._mail, self._due, self._busy_until, self._idle_turns = [], None, 0.0, 0
        now = world.schedule.now
        self.disk.attach(self.deliver)
        self.node = self._build(now + self.monotonic_offset, self.clock.read(now))
        world.note(f"n{self.index} starts as process {self.incarnation}: {len(self.disk.log)} records of log, {len(self.disk.tables)} rows")
        for other in world.processes:
            if other is not self:
                world.network.dial(self, other.index)
        self._request_turn(now)

    def _build(self, now: float, wall_ms: int) -> Node:
        world, files = self.world, self.disk.files
        settings = world.settings.copy()
        ring = decode_ring(files[RING_FILE]) if RING_FILE in files else world.ring
        value = cluster_value.founding_value(settings)
        if VALUE_FILE in files:
            value = cluster_value.merge(value, cluster_value.decode(files[VALUE_FILE]))
            changes.apply(settings, cluster_value.shared_settings(value))
        mark = cluster_value.mark_of(value, self.me)
        if mark > int(files.get(SET_ASIDE_FILE, b"0")):
            world.note(f"n{self.index} sets aside what it holds")
            world.wipes.append((world.schedule.now, self.index))
            self.disk.set_aside(MARKER_FILE, DONE_FILE, SEEN_FILE)
            files[SET_ASIDE_FILE] = b"%d" % mark
        store, hints, clock = Store(ring_size=ring.size), HintBook(bytes_max=settings.max_hints_size), HybridClock()
        store.floor = value.flush_floor.to_bytes(8) if value.flush_floor else store.floor
        store.bound(settings.maxmemory)
        members = cluster_value.effective_replication(value, members=len(ring.members)).stored_n
        preference = preference_lists(ring)
        restored = restore(
            me=self.me,
            primaries=lambda partition: preference[partition][:members],
            store=store,
            hints=hints,
            clock=clock,
            log=world.bugs.log_of(self.disk.records()),
            rows=self.disk.rows(),
            memory_bytes_max=settings.maxmemory,
            now=now,
        )
        self.disk.append(restored.owed)
        node = Node(
            me=self.me,
            actor=new_actor(self._rng),
            settings=settings,
            ring=ring,
            seeds=world.seeds,
            value=value,
            store=store,
            hints=hints,
            clock=clock,
            rng=random.Random(self._rng.random()),
            now=now,
            wall_ms=wall_ms,
        )
        node.rebuild.set_aside = int(files.get(SET_ASIDE_FILE, b"0"))
        node.resizing.restore(files.get(DONE_FILE, b""))
        if MARKER_FILE not in files:
            node.rebuild.begin("this node is new, or its directory was emptied")
        node.downtime.restore(files.get(SEEN_FILE, b""))
        return node

    def kill(self, *, power_lost: bool = False, wiped: bool = False) -> None:
        """The process dies at once (SIGKILL), or its machine loses its power; its directory may be gone, too."""
        assert self.node is not None
        world = self.world
        how = "loses its power" if power_lost else "is killed"
        world.note(f"n{self.index} {how}{', and its directory is deleted' if wiped else ''}")
        world.retire(self)
        self.node = None
        self.is_off = power_lost
        self.stopped_until = 0.0
        self.disk.crash(power_lost=power_lost)
        if wiped:
            self.disk.wipe()
        self._mail.clear()
        world.network.process_died(self, silently=power_lost)
        self.links.clear()
        self.incoming.clear()
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            if not power_lost:
                world.schedule.after(world.client_delay(), channel.hang_up)

    def restart(self) -> None:
        """Begin again after a death."""
        if self.node is not None:
            return
        was_off = self.is_off
        self.start()
        if was_off:
            self.world.network.machine_is_back(self)

    def _restart_if_down(self, incarnation: int) -> None:
        if self.node is None and self.incarnation == incarnation:
            self.restart()

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        now = self.world.schedule.now
        self.stopped_until = max(self.stopped_until, now + seconds)
        self._pauses.append((now, self.stopped_until))
        self.world.note(f"n{self.index} is stopped for {seconds:.2f} s")

    def go_on(self) -> None:
        """SIGCONT, now; a process that was told to stop and has not yet is started again when it has."""
        now = self.world.schedule.now
        self.stopped_until = min(self.stopped_until, now)
        if self.node is not None:
            self._request_turn(now)

    def terminate(self, *, restart_after_s: float) -> None:
        """SIGTERM; some time after the process has ended it is started again."""
        self.world.note(f"n{self.index} is told to stop")
        self._restart_after_s = restart_after_s
        self.deliver((turns.SIGNALLED, "TERM"))

    def press(self, *, free_bytes: int) -> None:
        """The room on the disk has changed."""
        self.deliver((turns.PRESSURE, free_bytes, False))

    def stopped_between(self, start: float, end: float) -> float:
        """For how long it was stopped in a stretch of time, at most."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in self._pauses)

    # --- clients

    def open_channel(self, channel: Channel) -> int | None:
        """A client connects; None: nobody listens."""
        if self.node is None:
            return None
        self._next_client_id += 1
        self.channels[self._next_client_id] = channel
        self.deliver((turns.CLIENT_OPENED, self._next_client_id, "127.0.0.1:50000", "127.0.0.1:7000"))
        return self._next_client_id

    def client_data(self, incarnation: int, client_id: int, data: bytes) -> None:
        """Bytes of a client, if its connection is still there."""
        if self.incarnation == incarnation and client_id in self.channels:
            self.deliver((turns.CLIENT_DATA, client_id, data))

    def close_channel(self, incarnation: int, client_id: int) -> None:
        """A client has closed its connection."""
        if self.incarnation == incarnation and self.channels.pop(client_id, None) is not None:
            self.deliver((turns.CLIENT_CLOSED, client_id))

    # --- turns

    def deliver(self, arrival: turns.Arrival) -> None:
        """Put something into the mail."""
        if self.node is not None:
            self._mail.append(arrival)
            self._request_turn(self.world.schedule.now)

    def _request_turn(self, when: float) -> None:
        when = max(when, self._busy_until, self.stopped_until)
        if self._due is None or when < self._due:
            self._due = when
            self.world.schedule.at(when, self._run, self.incarnation, when)

    def _run(self, incarnation: int, when: float) -> None:
        if not self.is_running(incarnation) or self._due != when:
            return
        self._due = None
        if self.stopped_until > self.world.schedule.now:
            self._request_turn(self.stopped_until)
            return
        self._turn()

    def _turn(self) -> None:
        world, node = self.world, self.node
        assert node is not None
        now = world.schedule.now
        mail = self._mail
        arrivals, self._mail = mail[:MAIL_PER_TURN_MAX], mail[MAIL_PER_TURN_MAX:]
        self.turns_total += 1
        departures = node.turn(now + self.monotonic_offset, self.clock.read(now), arrivals)
        self._busy_until = now + self._rng.uniform(*TURN_S)
        self._obey(departures)
        if self.node is None:
            return
        if self._mail:
            self._request_turn(self._busy_until)
        elif departures.wake_at is not None:
            self._watch_idleness(arrivals, departures)
            self._request_turn(departures.wake_at - self.monotonic_offset)

    def _watch_idleness(self, arrivals: list[turns.Arrival], departures: turns.Departures) -> None:
        now = self.world.schedule.now + self.monotonic_offset
        assert departures.wake_at is not None
        if arrivals or departures.wake_at > now:
            self._idle_turns = 0
            return
        self._idle_turns += 1
        if self._idle_turns > IDLE_TURNS_MAX:
            msg = f"n{self.index} spins: {IDLE_TURNS_MAX} turns in a row asked to be woken at once and nothing arrived"
            raise SimulationError(msg)

    def _obey(self, departures: turns.Departures) -> None:
        world = self.world
        self.disk.obey(departures)
        trace, network, links = world.trace, world.network, self.links
        for peer, frame in departures.frames:
            trace.add(frame)
            link = links.get(peer)
            if link is not None:
                network.send(link, frame)
        for client_id, replies in departures.replies:
            data = b"".join(replies)
            trace.add(data)
            channel = self.channels.get(client_id)
            if channel is not None:
                channel.receive(data)
        for peer, frame in departures.control:
            trace.add(frame)
            link = links.get(peer)
            if link is not None:
                network.send(link, frame, control=True)
        for client_id in (*departures.closes, *departures.deferred_closes):
            channel = self.channels.pop(client_id, None)
            if channel is not None:
                channel.hang_up()
                self.deliver((turns.CLIENT_CLOSED, client_id))
        self._close_links(departures)
        for level, text in departures.events:
            world.on_event(self, level, text)
        if departures.stop is not None:
            self.kill()
            world.schedule.after(self._restart_after_s, self._restart_if_down, self.incarnation)

    def _close_links(self, departures: turns.Departures) -> None:
        for peer in departures.peer_closes:
            link = self.incoming.pop(peer, None)
            if link is not None:
                self.world.schedule.after(0.001, self.world.network.close, link, "closed by the peer")
        for peer in departures.link_closes:
            link = self.links.get(peer)
            if link is not None:
                self.world.network.close(link, "mute")
