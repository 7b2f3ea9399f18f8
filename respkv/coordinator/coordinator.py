"""Open the batches of a turn, count the answers, give up at the deadline. Pure.

Rule 1: what decides whether a read or a write succeeds lives in `reads` and `writes`; neither learns how an answer arrived.
Rule 2: a turn's reads stand before its writes in every frame, so a GET that came before a SET of the same turn reads the old value.
A GET that came after it finds the new one in this node's own copy; where this node has no copy, the session waits.
Rule 3: a record is merged and on its way to the log before anything about it is sent or answered.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from respkv.config.quorums import Quorums
from respkv.coordinator.batches import Cell, Ended, Gatherer, ReadBatch, Waiter, WriteBatch
from respkv.coordinator.compensation import Compensation
from respkv.coordinator.read_repairs import ReadRepairs
from respkv.coordinator.reads import Reads
from respkv.coordinator.recent_writes import RecentWrites
from respkv.coordinator.succession import Succession
from respkv.coordinator.writes import OK, Writes
from respkv.errors import NoQuorumError
from respkv.metrics import LatencyHistogram
from respkv.placement.slots import key_slot
from respkv.resp.writer import bulk
from respkv.transport.bounds import LONG_BYTES, transfer_s
from respkv.versions.records import ABSENT, HEADER_BYTES, VALUE, pack_stamp, string_tail, value_of

if TYPE_CHECKING:
    from respkv.coordinator.routes import Route, RouteTable
    from respkv.ids import NodeId
    from respkv.repair.hints import HintBook
    from respkv.storage.parking import Parking
    from respkv.storage.store import Store
    from respkv.transport.turn import Turn
    from respkv.versions.clock import HybridClock


NEVER_SLOW = 1 << 62
SPECULATION_START = 1000
"""Keys that may be asked for twice before the budget has been earned."""


class CoordinatorStatistics:
    """Counters since the start of the process."""

    __slots__ = (
        "blocking_repair_timeouts_total",
        "blocking_repairs_total",
        "plain_misses_total",
        "read_latencies",
        "read_repairs_total",
        "read_timeouts_total",
        "reads_refused_total",
        "reads_total",
        "resends_total",
        "speculative_reads_total",
        "speculative_writes_total",
        "write_latencies",
        "write_timeouts_total",
        "writes_refused_total",
        "writes_total",
    )

    def __init__(self) -> None:
        """All at zero."""
        self.reads_total = 0
        self.reads_refused_total = 0
        self.read_timeouts_total = 0
        self.read_repairs_total = 0
        self.blocking_repairs_total = 0
        self.blocking_repair_timeouts_total = 0
        self.speculative_reads_total = 0
        self.plain_misses_total = 0
        self.writes_total = 0
        self.writes_refused_total = 0
        self.write_timeouts_total = 0
        self.resends_total = 0
        self.speculative_writes_total = 0
        self.read_latencies = LatencyHistogram()
        self.write_latencies = LatencyHistogram()
        """From sending a batch to its quorum, counted once for each of its keys."""


class Coordinator:
    """The reads and writes that this node coordinates."""

    def __init__(
        self, *, me: NodeId, actor: bytes, store: Store, clock: HybridClock, turn: Turn, hints: HintBook, parking: Parking
    ) -> None:
        """Routes come later, by `use_routes`."""
        self.me = me
        self.tail = string_tail(actor)
        self.actor = actor
        self.store = store
        self.clock = clock
        self.turn = turn
        self.hints = hints
        self.parking = parking
        self.table: RouteTable | None = None
        self.routes: list[Route] = []
        self.shift = store.shift
        self.quorum = Quorums(3, 2, 2, 0, 0)
        self.request_timeout_s = 1.0
        self.speculative_retry_s = 0.05
        self.speculation_allowed = True
        self.speculation_ratio = 0.05
        """Of all keys read and written, at most this part is asked for a second time because of slowness."""
        self.waiting_count = 0
        """Keys whose reads and writes wait for their quorum."""
        self.on_late: Callable[[NodeId], None] = lambda _: None
        """Called for a replica that is slower than `speculative-retry`: evidence for the failure detector."""
        self.on_long_hinted: Callable[[NodeId, int, list[bytes]], None] = lambda _peer, _sequence, _pairs: None
        """Called with what an owner was sent and gets hints of, because it takes long: it may be under way still."""
        self.slow_us = NEVER_SLOW
        self.on_ended: Callable[[Ended], None] = lambda _: None
        """Called for plain GETs or SETs that took `slow_us`, or failed, and for what failed without any."""
        self.skew_ms: int | None = None
        """How far this node's clock is off, once that is too far to stamp writes."""
        self.writes_disabled = ""
        """Why this node stores no more at present (no disk space), or empty."""
        self.statistics = CoordinatorStatistics()
        self.recent = RecentWrites()
        self.compensation = Compensation(self)
        self.reads = Reads(self)
        self.repairs = ReadRepairs(self)
        self.writes = Writes(self)
        self.succession = Succession(self)
        self._slow: deque[tuple[float, ReadBatch | WriteBatch]] = deque()
        self._slow_long: list[tuple[float, ReadBatch | WriteBatch]] = []
        """Those that are slow, as they should be: what they carry is long."""
        self._deadlines: deque[tuple[float, ReadBatch | WriteBatch]] = deque()

    def use_actor(self, actor: bytes) -> None:
        """Go on as a new incarnation."""
        self.actor = actor
        self.tail = string_tail(actor)

    def primary_of(self, key: bytes) -> NodeId:
        """The first live primary of a key: who runs the commands that read it before they write it."""
        table = self.table
        assert table is not None
        node = table.first_live[key_slot(key) >> self.shift]
        if node is None:
            msg = "no replica of this key is up; nothing was done"
            raise NoQuorumError(msg)
        return node

    def use_routes(self, table: RouteTable, quorum: Quorums) -> None:
        """Take new routes. Between turns only: the open batches of a turn belong to its routes."""
        self.table = table
        self.routes = table.routes
        self.quorum = quorum

    def replicas(self, partition: int) -> list[NodeId]:
        """The nodes that a partition is written to."""
        assert self.table is not None
        return self.table.stored(partition)

    def set_plain(self, conn: Waiter, key: bytes, value: bytes) -> bytes | None:
        """SET without options at the default quorum. Returns the reply, or None: its cell is among the connection's.

        The caller has checked that the key is in memory where that matters (`is_ready`).
        """
        partition = (crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> self.shift
        route: Route = self.routes[partition]
        batch: WriteBatch | None = route.writing
        if batch is None:
            batch = self.writes.open(route, None)
        clock = self.clock
        clock.last += 1
        record = pack_stamp(clock.last) + self.tail + value
        if route.local_write:
            self.store.merge(partition, key, record)
        items = batch.items
        items.append(key)
        items.append(record)
        if len(value) > LONG_BYTES:
            self.writes.grow(batch, len(record))
        conn.last = batch
        if batch.instant:
            return OK
        if route.reads_own_writes:
            conn.setting.add(key)
        else:
            conn.mutating.add(key)
        conn.pending.append(batch.cell)
        if batch.last_conn is not conn:
            batch.last_conn = conn
            batch.conns.append(conn)
        return None

    def get_plain(self, conn: Waiter, key: bytes) -> bytes | None:
        """GET at the default quorum. Returns the reply, or None: its cell is among the connection's."""
        partition = (crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> self.shift
        route: Route = self.routes[partition]
        if route.local_read:
            store = self.store
            shard: dict[bytes, bytes] = store.shards[partition]
            record = shard.get(key, ABSENT)
            if store.floor and record < store.floor:
                record = ABSENT
            if route.instant_read:
                if not record:
                    self.statistics.plain_misses_total += 1
                    return conn.nil
                if record[16] == VALUE:
                    return bulk(record[HEADER_BYTES:])
                value = value_of(record, self.turn.wall_ms)
                return conn.nil if value is None else bulk(value)
        else:
            record = ABSENT
        batch: ReadBatch | None = route.reading
        if batch is None:
            batch = self.reads.open(route, None)
        cell: Cell = [None]
        batch.keys.append(key)
        batch.best.append(record)
        batch.cells.append(cell)
        batch.conns.append(conn)
        conn.pending.append(cell)
        conn.reading.add(key)
        conn.last = batch
        return None

    def is_ready(self, key: bytes) -> bool:
        """Whether this node's own part of a request for a key can be done at once (its record is in memory, or not here at all)."""
        if self.store.resident and not self.parking.keys:
            return True
        partition = key_slot(key) >> self.shift
        route = self.routes[partition]
        return not (route.local_read or route.local_write) or self.parking.is_clear(key, partition)

    def reads_own_writes(self, key: bytes) -> bool:
        """Whether a read of this turn would see a write of this turn."""
        return self.routes[key_slot(key) >> self.shift].reads_own_writes

    def check_write(self, keys: list[bytes], quorum: Quorums | None) -> None:
        """Raise NoQuorumError unless all these keys can be written now."""
        for route in dict.fromkeys([self.routes[key_slot(key) >> self.shift] for key in keys]):
            self.writes.check(route, quorum or route.quorum)

    def check_read(self, keys: list[bytes], quorum: Quorums | None) -> None:
        """Raise NoQuorumError unless all these keys can be read now."""
        for route in dict.fromkeys([self.routes[key_slot(key) >> self.shift] for key in keys]):
            self.reads.check(route, quorum or route.quorum)

    def read(self, operation: Gatherer, keys: list[bytes], quorum: Quorums | None) -> list[ReadBatch]:
        """Read records for an operation, which receives each with its index. The keys are in memory where that matters.

        Returns the batches that the keys went into.
        """
        self.check_read(keys, quorum)
        batches: dict[int, ReadBatch] = {}
        for index, key in enumerate(keys):
            partition = key_slot(key) >> self.shift
            route = self.routes[partition]
            record = self.store.get(key) if route.local_read else ABSENT
            if quorum is None and route.instant_read:
                operation.receive(index, record)
                continue
            batch = self.reads.batch(route, quorum)
            batches[id(batch)] = batch
            batch.keys.append(key)
            batch.best.append(record)
            batch.cells.append(index)
            batch.conns.append(operation)
        return list(batches.values())

    def write(self, operation: Gatherer, pairs: list[tuple[bytes, bytes]], quorum: Quorums | None) -> list[WriteBatch]:
        """Write records for an operation. Returns the batches that they went into; those that are not `instant` tell it."""
        self.check_write([key for key, _ in pairs], quorum)
        batches: dict[int, WriteBatch] = {}
        for key, record in pairs:
            partition = key_slot(key) >> self.shift
            route = self.routes[partition]
            batch = self.writes.batch(route, quorum)
            if route.local_write:
                self.store.merge(partition, key, record)
            batch.gathered.add(len(batch.items))
            batch.items += (key, record)
            batches[id(batch)] = batch
            self.writes.grow(batch, len(key) + len(record))
        for batch in batches.values():
            if not batch.instant:
                batch.operations.append(operation)
        return list(batches.values())

    def take_in(self, pairs: list[bytes], logged: tuple[int, bytes], then: Callable[[], None]) -> bool:
        """Merge [key, record, ...] into this node's own copies, and append `logged` to the log of the same turn.

        A freeze drops what earlier turns have logged, and takes to the tables what they have merged: what is logged before it is
        merged may end up in neither. `then` is called once it is in the log. Returns whether all of it was merged at once.
        """

        def merge() -> None:
            self.recent.note_copies(pairs, self.turn.now, held=self.store.get)
            self.store.merge_pairs(pairs)
            self.turn.log.append(logged)
            self.turn.when_logged(then)

        return self.parking.when_loaded(pairs[::2], merge, len(logged[1]))

    def seal(self) -> bool:
        """Ask the replicas, for all batches that this turn opened. Returns whether there were any.

        What is answered in here may open further batches: call it until it returns False.
        """
        reads, writes = self.reads.take(), self.writes.take()
        for read in reads:
            self.reads.send(read)
        for write in writes:
            self.writes.send(write)
        return bool(reads or writes)

    def watch(self, batch: ReadBatch | WriteBatch) -> None:
        """See to it that a batch is asked about when it is slow, and given up when it is late."""
        now = self.turn.now
        batch.asked_at = now - self.turn.late_s
        if self.speculative_retry_s:
            self._slow.append((now + self.speculative_retry_s, batch))
        self._deadlines.append((now + self.request_timeout_s, batch))

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """A node did not carry out a read or a write."""
        self.writes.on_refused(peer, sequence)
        self.reads.on_refused(peer, sequence)
        self.repairs.on_refused(peer, sequence)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to a peer broke."""
        self.writes.on_peer_closed(peer)
        self.reads.on_peer_closed(peer)
        self.repairs.on_peer_closed(peer)

    def next_due(self) -> float | None:
        """When `expire` is to be called again."""
        slow, deadlines = self._slow, self._deadlines
        while slow and not slow[0][1].open:
            slow.popleft()
        while deadlines and not deadlines[0][1].open and not deadlines[0][1].waiting:
            deadlines.popleft()
        due = [queue[0][0] for queue in (slow, deadlines) if queue]
        if self._slow_long:
            due += [at for at, _ in self._slow_long]
        if self.repairs:
            due.append(self.repairs.next_due())
        return min(due) if due else None

    def expire(self) -> None:
        """Ask further nodes about what is slow; give up what is late."""
        now = self.turn.now
        slow, deadlines = self._slow, self._deadlines
        while slow and slow[0][0] <= now:
            at, batch = slow.popleft()
            extra_s = transfer_s(batch.carried_bytes())
            if extra_s:
                self._slow_long.append((at + extra_s, batch))
            else:
                self._on_slow(batch)
        if self._slow_long:
            waiting, self._slow_long = self._slow_long, []
            for at, batch in waiting:
                if at <= now:
                    self._on_slow(batch)
                elif batch.open:
                    self._slow_long.append((at, batch))
        while deadlines and deadlines[0][0] <= now:
            batch = deadlines.popleft()[1]
            if isinstance(batch, WriteBatch):
                self.writes.give_up(batch)
            else:
                self.reads.give_up(batch)
        if self.repairs:
            self.repairs.expire()

    def _on_slow(self, batch: ReadBatch | WriteBatch) -> None:
        for peer in batch.waiting:
            if peer != self.me:
                self.on_late(peer)
        if batch.open and self.speculation_allowed and self._may_speculate():
            if isinstance(batch, WriteBatch):
                self.writes.speculate(batch)
            else:
                self.reads.speculate(batch)

    def _may_speculate(self) -> bool:
        """Whether the budget allows to ask twice: a cluster that is slow all over must not be asked for more."""
        statistics = self.statistics
        spent = statistics.speculative_reads_total + statistics.speculative_writes_total
        earned = self.speculation_ratio * (statistics.reads_total + statistics.writes_total)
        return bool(spent <= earned + SPECULATION_START)

    def in_flight_count(self) -> int:
        """Batches that wait for answers."""
        return len(self.reads) + len(self.writes)
