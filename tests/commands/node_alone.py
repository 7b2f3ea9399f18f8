"""Whole nodes in memory: turns, links and tables without a shell, under a clock that tests move."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import hiredis
from xxhash import xxh64_intdigest

from respkv.commands import registry
from respkv.config.changes import apply
from respkv.config.cluster_value import founding_value
from respkv.config.settings import Settings
from respkv.membership.members import MemberAddress
from respkv.placement.ring import Member, first_ring
from respkv.repair.hints import HintBook
from respkv.server import turns
from respkv.server.node import Node
from respkv.storage.store import Store
from respkv.versions.clock import HybridClock

assert registry.MODULES
EPOCH_MS = 1_700_000_000_000
TURNS_MAX = 20_000


class Process:
    """A node, what is on its way to it, and its disk."""

    def __init__(self, world: World, address: MemberAddress, directives: dict[str, str]) -> None:
        self.world = world
        self.address = address
        self.settings = Settings()
        apply(self.settings, directives)
        self.settings.port = address.port
        self.arrivals: list[turns.Arrival] = []
        self.wake_at = world.now
        self.is_alive = True
        self.stopped: int | None = None
        self.saved: dict[str, bytes] = {}
        self.scans_total = 0
        self.tables: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.replies: dict[int, bytearray] = defaultdict(bytearray)
        self.closed: set[int] = set()
        self.turned_away: list[str] = []
        """Peers whose links were closed because of what they sent."""
        self.events: list[tuple[str, str]] = []
        rng = random.Random(address.node)
        self.node = Node(
            me=address.node,
            actor=rng.randbytes(8),
            settings=self.settings,
            ring=world.ring,
            seeds=world.addresses,
            value=founding_value(self.settings),
            store=Store(ring_size=world.ring.size),
            hints=HintBook(bytes_max=1 << 30),
            clock=HybridClock(),
            rng=rng,
            now=world.now,
            wall_ms=world.wall_ms,
        )

    def turn(self) -> None:
        arrivals, self.arrivals = self.arrivals, []
        out = self.node.turn(self.world.now, self.world.wall_ms, arrivals)
        self.wake_at = out.wake_at if out.wake_at is not None else self.world.now + 1
        self.events += out.events
        for peer, frame in out.frames + out.control:
            self.world.deliver(self.address.node, peer, frame)
        for client_id, replies in out.replies:
            self.replies[client_id] += b"".join(replies)
        self.closed.update(out.closes, out.deferred_closes)
        self.turned_away += out.peer_closes
        if out.sync:
            self.arrivals.append((turns.LOG_DURABLE, out.sync))
        for name, data in out.saves:
            self.saved[name] = data
            self.arrivals.append((turns.SAVED, name))
        if out.stop is not None:
            self.stopped = out.stop
        self._disk(out)

    def _disk(self, out: turns.Departures) -> None:
        for token, wanted in out.loads:
            self.arrivals.append((turns.LOADED, token, [self.tables[partition].get(key) for partition, key in wanted]))
        self.scans_total += len(out.scans)
        for token, partition, first_hash, limit in out.scans:
            order = sorted((xxh64_intdigest(key), key) for key in self.tables[partition])
            rest = [(place, key) for place, key in order if place >= first_hash]
            rows = [(key, self.tables[partition][key]) for _, key in rest[:limit]]
            self.arrivals.append((turns.SCANNED, token, rows, rest[limit][0] if limit < len(rest) else None))
        if out.freeze is not None:
            for batch in out.freeze.batches():
                for partition, key, record in batch:
                    if record is None:
                        self.tables[partition].pop(key, None)
                    else:
                        self.tables[partition][key] = record
            self.arrivals.append((turns.FLUSHED, out.freeze.number))

    def flush_to_tables(self) -> None:
        """Bring everything to the tables and let go of what memory need not hold."""
        store = self.node.store
        freeze = store.freeze(10**6, [])
        for batch in freeze.batches():
            for partition, key, record in batch:
                if record is not None:
                    self.tables[partition][key] = record
        store.flushed(10**6)
        store.bound(1)
        while store.evict(0, keep={}, partitions_max=len(store.shards)):
            pass


class World:
    """Some nodes whose links are open."""

    def __init__(self, count: int = 1, *, ring_size: int = 64, **directives: str) -> None:
        self.now = 1000.0
        self.addresses = [MemberAddress.founding(host="127.0.0.1", port=7001 + index, cluster_port=17001 + index) for index in range(count)]
        self.ring = first_ring([Member(address.node) for address in self.addresses], ring_size=ring_size)
        named = {"replication-factor": str(min(count, 3))} | {name.replace("_", "-"): text for name, text in directives.items()}
        self.processes = [Process(self, address, named) for address in self.addresses]
        self.by_node = {process.address.node: process for process in self.processes}
        self._next_client_id = 0
        for process in self.processes:
            process.arrivals += [(turns.PEER_OPENED, other.node) for other in self.addresses if other != process.address]
        self.advance(3.0)

    @property
    def wall_ms(self) -> int:
        return EPOCH_MS + int(self.now * 1000)

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        process = self.by_node[target]
        if process.is_alive:
            process.arrivals.append((turns.PEER_FRAME, source, frame))

    def step(self) -> bool:
        """Run every node that has something to do now. Returns whether there was one."""
        ready = [process for process in self.processes if process.is_alive and (process.arrivals or process.wake_at <= self.now)]
        for process in ready:
            process.turn()
        return bool(ready)

    def settle(self) -> None:
        """Run until nobody has anything to do at this moment."""
        for _ in range(TURNS_MAX):
            if not self.step():
                return
        raise AssertionError("the nodes do not come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self.settle()
            due = min(process.wake_at for process in self.processes if process.is_alive)
            if due >= end:
                break
            self.now = max(due, self.now)
        self.now = end
        self.settle()

    def kill(self, index: int) -> None:
        """A process dies; the others see its links break."""
        victim = self.processes[index]
        victim.is_alive = False
        for process in self.processes:
            if process.is_alive:
                process.arrivals.append((turns.PEER_CLOSED, victim.address.node, "closed"))
                process.arrivals.append((turns.PEER_CLOSED, victim.address.node, "refused"))
        self.settle()

    def client(self, index: int = 0) -> Caller:
        """A connection to a node."""
        self._next_client_id += 1
        return Caller(self, self.processes[index], self._next_client_id)


class Caller:
    """A client: sends one command and waits for its reply."""

    def __init__(self, world: World, process: Process, client_id: int) -> None:
        self._world = world
        self.process = process
        self.client_id = client_id
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        process.arrivals.append((turns.CLIENT_OPENED, client_id, "127.0.0.1:50000", "127.0.0.1:7001"))

    def __call__(self, *words: str | bytes | int) -> Any:
        """The reply of one command, parsed; an error as an exception object."""
        self.send(*words)
        return self.receive()

    def send(self, *words: str | bytes | int) -> None:
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        line = b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        self.process.arrivals.append((turns.CLIENT_DATA, self.client_id, line))

    def receive(self, *, within_s: float = 10.0) -> Any:
        end = self._world.now + within_s
        while True:
            self._world.settle()
            out = self.process.replies[self.client_id]
            if out:
                self._reader.feed(bytes(out))
                out.clear()
            reply = self._reader.gets()
            if reply is not Ellipsis:
                return reply
            assert self._world.now < end, "no reply"
            due = min(process.wake_at for process in self._world.processes if process.is_alive)
            self._world.now = max(due, self._world.now + 0.001)

    def raw(self, *words: str | bytes | int) -> bytes:
        """The bytes of the reply of one command that is answered at once."""
        self.send(*words)
        self._world.settle()
        out = bytes(self.process.replies[self.client_id])
        self.process.replies[self.client_id].clear()
        return out
