"""Nodes in memory under a virtual clock: what one of them sends, the others receive a moment later. No sockets, no disk.

Their tables are dictionaries, and hold what `World.cool` moves there.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

import respkv.commands.registry  # noqa: F401 - fills the table
from respkv.config.cluster_value import founding_value
from respkv.config.founders import founders
from respkv.config.start import configure
from respkv.membership.members import MemberAddress
from respkv.placement.ring import Member, first_ring
from respkv.repair.hints import HintBook
from respkv.server import turns
from respkv.server.node import Node
from respkv.storage.store import Store
from respkv.versions.clock import HybridClock

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH_MS = 1_700_000_000_000
RING_SIZE = 64
FIRST_PORT = 7001
CLIENT_WAIT_S = 30.0


class World:
    """A cluster, its clock, and its network."""

    def __init__(
        self,
        count: int = 1,
        *,
        seed: int = 0,
        epoch_ms: int = EPOCH_MS,
        delay_s: tuple[float, float] = (0.0002, 0.002),
        **directives: str,
    ) -> None:
        """Start `count` nodes and let them meet. Names of directives are written with underscores."""
        self.epoch_ms = epoch_ms
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.delay_s = delay_s
        self.slow_s: dict[tuple[int, int], float] = {}
        """Pairs of nodes whose frames take so long one way."""
        self.skew_ms: defaultdict[int, int] = defaultdict(int)
        """How far the wall clock of a node is off."""
        self.down: set[int] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._mail: list[list[turns.Arrival]] = [[] for _ in range(count)]
        self._frame_due: defaultdict[tuple[int, int], float] = defaultdict(float)
        self._wakes = [0.0] * count
        self.tables: list[dict[tuple[int, bytes], bytes]] = [{} for _ in range(count)]
        self._client_ids = itertools.count(1)
        self.output: dict[int, bytearray] = {}
        self.closed: set[int] = set()
        self.events: list[tuple[str, str]] = []
        """What all nodes wrote to their log files."""
        options = {"replication-factor": str(min(3, count)), **{name.replace("_", "-"): text for name, text in directives.items()}}
        lines = [word for name, text in options.items() for word in (f"--{name}", text)]
        hosts = " ".join(f"127.0.0.1:{FIRST_PORT + index}@{FIRST_PORT + 10000 + index}" for index in range(count))
        self.nodes = [self._node(index, [*lines, "--cluster-nodes", hosts, "--ring-size", str(RING_SIZE)]) for index in range(count)]
        self._index_of = {node.me: index for index, node in enumerate(self.nodes)}
        for index, node in enumerate(self.nodes):
            self._mail[index] += [(turns.PEER_OPENED, other.me) for other in self.nodes if other is not node]
            self._turn(index)
        self.run(1.0 if count > 1 else 0.0)

    def _node(self, index: int, lines: list[str]) -> Node:
        settings = configure([*lines, "--port", str(FIRST_PORT + index)], read=lambda _path: []).settings
        founding = founders(settings)
        me = next(founder for founder in founding if founder.port == FIRST_PORT + index)
        return Node(
            me=me.node_id,
            actor=self.rng.randbytes(8),
            settings=settings,
            ring=first_ring([Member(founder.node_id) for founder in founding], ring_size=RING_SIZE),
            seeds=[MemberAddress.founding(host=each.host, port=each.port, cluster_port=each.cluster_port) for each in founding],
            value=founding_value(settings),
            store=Store(ring_size=RING_SIZE),
            hints=HintBook(bytes_max=1 << 30),
            clock=HybridClock(),
            rng=random.Random(self.rng.random()),
            now=self.now,
            wall_ms=self.epoch_ms,
            facts={},
        )

    # What a test does.

    def connect(self, index: int = 0, *, address: str = "127.0.0.1:50000") -> Connection:
        """A client of a node."""
        client_id = next(self._client_ids)
        self.output[client_id] = bytearray()
        self.arrive(index, (turns.CLIENT_OPENED, client_id, address, f"127.0.0.1:{FIRST_PORT + index}"))
        return Connection(self, index, client_id)

    def arrive(self, index: int, *arrivals: turns.Arrival) -> None:
        """Give a node a turn with these arrivals, now."""
        self._mail[index] += arrivals
        self._turn(index)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self._step()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float = CLIENT_WAIT_S) -> bool:
        """Let time pass until something is so. Returns whether it came to be."""
        end = self.now + within_s
        while not condition():
            if not self._events or self._events[0][0] > end:
                return False
            self._step()
        return True

    def crash(self, index: int) -> None:
        """A node is gone; the others' links to it break."""
        self.down.add(index)
        self._mail[index].clear()
        gone = self.nodes[index].me
        for other in range(len(self.nodes)):
            if other not in self.down:
                self.arrive(other, (turns.PEER_CLOSED, gone, "reset"))

    def set_wall_clock(self, wall_ms: int) -> None:
        """Set the wall clock of all nodes."""
        self.epoch_ms += wall_ms - self.wall_ms

    def cool(self) -> None:
        """Move what all nodes hold to their tables and out of memory, but for what somebody waits for. Needs `maxmemory`."""
        for node, tables in zip(self.nodes, self.tables, strict=True):
            store = node.store
            assert store.bounded
            freeze = store.freeze(1 << 20, [])
            for batch in freeze.batches():
                for partition, key, record in batch:
                    assert record is not None
                    tables[partition, key] = record
            store.flushed(freeze.number)
            store.evict(0, keep=node.parking.keys, partitions_max=RING_SIZE)

    @property
    def wall_ms(self) -> int:
        """Unix milliseconds, as a node without skew sees them."""
        return self.epoch_ms + round((self.now - 1000.0) * 1000)

    # The shells and the network.

    def _step(self) -> None:
        at, _, event = heapq.heappop(self._events)
        self.now = max(self.now, at)
        event()

    def _at(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), event))

    def _turn(self, index: int) -> None:
        if index in self.down:
            return
        arrivals, self._mail[index] = self._mail[index], []
        departures = self.nodes[index].turn(self.now, self.wall_ms + self.skew_ms[index], arrivals)
        for _, sentence in departures.events:
            assert not sentence.startswith("internal error"), sentence
        self.events += departures.events
        if departures.sync:
            self._at(self.now + 0.001, partial(self.arrive, index, (turns.LOG_DURABLE, departures.sync)))
        for name, _ in departures.saves:
            self._at(self.now + 0.001, partial(self.arrive, index, (turns.SAVED, name)))
        for token, places in departures.loads:
            found = [self.tables[index].get(place) for place in places]
            self._at(self.now + self.rng.uniform(0, 0.005), partial(self.arrive, index, (turns.LOADED, token, found)))
        for token, partition, first_hash, limit in departures.scans:
            found_rows = self._scan(index, partition, first_hash, limit)
            self._at(self.now + self.rng.uniform(0, 0.005), partial(self.arrive, index, (turns.SCANNED, token, *found_rows)))
        for peer, frame in departures.frames + departures.control:
            self._send(index, self._index_of[peer], frame)
        for client_id, replies in departures.replies:
            if client_id not in self.closed:
                self.output[client_id] += b"".join(replies)
        for client_id in departures.closes + departures.deferred_closes:
            if client_id not in self.closed:
                self.closed.add(client_id)
                self._at(self.now, partial(self.arrive, index, (turns.CLIENT_CLOSED, client_id)))
        if departures.wake_at is not None:
            self._wake(index, max(departures.wake_at, self.now + 0.00001))

    def _scan(self, index: int, partition: int, first_hash: int, limit: int) -> tuple[list[tuple[bytes, bytes]], int | None]:
        """Rows of the tables in the order of their keys' hashes, and where to go on."""
        rows = sorted((xxh64_intdigest(key), key, record) for (number, key), record in self.tables[index].items() if number == partition)
        rows = [row for row in rows if row[0] >= first_hash]
        return [(key, record) for _, key, record in rows[:limit]], rows[limit][0] if len(rows) > limit else None

    def _send(self, source: int, target: int, frame: bytes) -> None:
        """One link keeps its order, whatever the delays."""
        delay_s = self.slow_s.get((source, target)) or self.rng.uniform(*self.delay_s)
        due = max(self.now + delay_s, self._frame_due[source, target])
        self._frame_due[source, target] = due
        self._at(due, lambda: self.arrive(target, (turns.PEER_FRAME, self.nodes[source].me, frame)))

    def _wake(self, index: int, at: float) -> None:
        self._wakes[index] = at

        def wake() -> None:
            if self._wakes[index] == at:
                self._turn(index)

        self._at(at, wake)


class Connection:
    """A client's connection to one node."""

    def __init__(self, world: World, index: int, client_id: int) -> None:
        """See `World.connect`."""
        self.world = world
        self.index = index
        self.client_id = client_id

    @property
    def is_closed(self) -> bool:
        """Whether the node closed it."""
        return self.client_id in self.world.closed

    def post(self, *commands: str | list[bytes]) -> None:
        """Send commands in one packet, and wait for nothing."""
        self.send(b"".join(packed(each) for each in commands))

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.world.arrive(self.index, (turns.CLIENT_DATA, self.client_id, data))

    def take(self) -> bytes:
        """What the node has replied so far."""
        output = self.world.output[self.client_id]
        taken = bytes(output)
        output.clear()
        return taken

    def ask(self, *commands: str | list[bytes]) -> bytes:
        """Send commands in one packet; their replies, once all have come."""
        self.post(*commands)
        return self.replies(len(commands))

    def replies(self, count: int) -> bytes:
        """The bytes of so many replies, once they have come, or of what came before the connection was closed."""
        output = self.world.output[self.client_id]
        self.world.run_until(lambda: count_replies(output) >= count or self.is_closed)
        return self.take()


def packed(command: str | list[bytes]) -> bytes:
    """A command as clients send it; a text is cut at its blanks."""
    words = [word.encode() for word in command.split()] if isinstance(command, str) else command
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def split_replies(data: bytes) -> list[bytes]:
    """Each whole reply in the bytes of a server."""
    found = []
    position = 0
    while position < len(data):
        end = _reply_end(data, position)
        if end < 0:
            break
        found.append(data[position:end])
        position = end
    return found


def count_replies(data: bytes | bytearray) -> int:
    """How many whole replies there are."""
    return len(split_replies(bytes(data)))


def _reply_end(data: bytes, position: int) -> int:
    """Where a reply ends; -1 if it is not complete."""
    line_end = data.find(b"\r\n", position)
    if line_end < 0:
        return -1
    kind, end = data[position : position + 1], line_end + 2
    if kind in b"+-:_,#(":
        return end
    size = int(data[position + 1 : line_end])
    if kind in b"$=!":
        end += max(size, 0) + 2 * (size >= 0)
        return end if end <= len(data) else -1
    for _ in range(size * (2 if kind == b"%" else 1)):
        end = _reply_end(data, end) if end < len(data) else -1
        if end < 0:
            return -1
    return end
