"""Open the batches of a turn, count the answers, give up at the deadline. Pure.

Rule 1: everything that decides whether a read or a write succeeds lives in this file; it never learns how an answer arrived.
Rule 2: a turn's reads stand before its writes in every frame, so a GET that came before a SET of the same turn reads the old value.
A GET that came after it finds the new one in this node's own copy; where this node has no copy, the session waits.
Rule 3: a record is merged and on its way to the log before anything about it is sent or answered.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import deque
from typing import Any

import msgspec

from respkv.coordinator.batches import Cell, Division, Gatherer, ReadBatch, Waiter, WriteBatch, merge_answers, stale_pairs
from respkv.coordinator.compensation import Compensation
from respkv.storage.parking import Parking
from respkv.config.quorums import Quorums
from respkv.coordinator.quorum import read_timeout, refusal, write_timeout
from respkv.coordinator.routes import Route, RouteTable
from respkv.transport.turn import Turn
from respkv.errors import ClientError, ClockSkewError, PeerProtocolError
from respkv.ids import NodeId
from respkv.placement.slots import key_slot
from respkv.repair.hints import HintBook
from respkv.storage.store import Store
from respkv.transport import frames
from respkv.versions.clock import HybridClock
from respkv.versions.records import ABSENT, HEADER_BYTES, VALUE, newest_stamp_of, pack_stamp, restamped, stamp_of, string_tail, value_of

OK = b"+OK\r\n"
LOG_WRITES = 1
_encode = msgspec.msgpack.Encoder().encode


class CoordinatorStatistics:
    """Counters since the start of the process."""

    __slots__ = (
        "read_repairs_total",
        "read_timeouts_total",
        "reads_refused_total",
        "reads_total",
        "resends_total",
        "speculative_reads_total",
        "speculative_writes_total",
        "write_timeouts_total",
        "writes_refused_total",
        "writes_total",
    )

    def __init__(self) -> None:
        """All at zero."""
        for name in self.__slots__:
            setattr(self, name, 0)


class Coordinator:
    """The reads and writes that this node coordinates."""

    def __init__(self, *, me: NodeId, actor: bytes, store: Store, clock: HybridClock, turn: Turn, hints: HintBook, parking: Parking) -> None:
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
        self.skew_ms: int | None = None
        """How far this node's clock is off, once that is too far to stamp writes."""
        self.statistics: Any = CoordinatorStatistics()
        self.compensation = Compensation(self)
        self._opened_reads: list[ReadBatch] = []
        self._opened_writes: list[WriteBatch] = []
        self._reads: dict[int, ReadBatch] = {}
        self._writes: dict[int, WriteBatch] = {}
        self._slow: deque[tuple[float, ReadBatch | WriteBatch]] = deque()
        self._deadlines: deque[tuple[float, ReadBatch | WriteBatch]] = deque()

    def use_routes(self, table: RouteTable, quorum: Quorums) -> None:
        """Take new routes. Between turns only: the open batches of a turn belong to its routes."""
        self.table = table
        self.routes = table.routes
        self.quorum = quorum

    # --- the two commands that most requests are

    def set_plain(self, conn: Any, key: bytes, value: bytes) -> bytes | None:
        """SET without options at the default quorum. Returns the reply, or None: its cell is among the connection's.

        The caller has checked that the key is in memory where that matters (`is_ready`).
        """
        partition = (crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> self.shift
        route = self.routes[partition]
        batch = route.writing
        if batch is None:
            batch = self.open_write(route, None)
        clock = self.clock
        clock.last += 1
        record = pack_stamp(clock.last) + self.tail + value
        if route.local_write:
            self.store.merge(partition, key, record)
        batch.items += (key, record)
        conn.last = batch
        if batch.instant:
            return OK
        if not route.local_read:
            conn.mutating.add(key)
        conn.pending.append(batch.cell)
        if batch.last_conn is not conn:
            batch.last_conn = conn
            batch.conns.append(conn)
        return None

    def get_plain(self, conn: Any, key: bytes) -> bytes | None:
        """GET at the default quorum. Returns the reply, or None: its cell is among the connection's."""
        partition = (crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> self.shift
        route = self.routes[partition]
        if route.local_read:
            record = self.store.shards[partition].get(key, ABSENT)
            if record < self.store.floor:
                record = ABSENT
            if route.instant_read:
                if not record:
                    return conn.nil  # type: ignore[no-any-return]
                if record[16] == VALUE:
                    return b"$%d\r\n%b\r\n" % (len(record) - HEADER_BYTES, record[HEADER_BYTES:])
                value = value_of(record, self.turn.wall_ms)
                return conn.nil if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
        else:
            record = ABSENT
        batch = route.reading
        if batch is None:
            batch = self.open_read(route, None)
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
        route = self.routes[key_slot(key) >> self.shift]
        return route.local_read and route.local_write

    # --- reads and writes of operations

    def check_write(self, keys: list[bytes], quorum: Quorums | None) -> None:
        """Raise NoQuorumError unless all these keys can be written now."""
        for route in {id(route): route for route in (self.routes[key_slot(key) >> self.shift] for key in keys)}.values():
            self._check_write(route, quorum or route.quorum)

    def check_read(self, keys: list[bytes], quorum: Quorums | None) -> None:
        """Raise NoQuorumError unless all these keys can be read now."""
        for route in {id(route): route for route in (self.routes[key_slot(key) >> self.shift] for key in keys)}.values():
            self._check_read(route, quorum or route.quorum)

    def read(self, operation: Gatherer, keys: list[bytes], quorum: Quorums | None) -> None:
        """Read records for an operation, which receives each with its index. The keys are in memory where that matters."""
        self.check_read(keys, quorum)
        for index, key in enumerate(keys):
            partition = key_slot(key) >> self.shift
            route = self.routes[partition]
            record = self.store.get(key) if route.local_read else ABSENT
            if quorum is None and route.instant_read:
                operation.receive(index, record)
                continue
            batch = self._read_batch(route, quorum)
            batch.keys.append(key)
            batch.best.append(record)
            batch.cells.append(index)
            batch.conns.append(operation)

    def write(self, operation: Gatherer, pairs: list[tuple[bytes, bytes]], quorum: Quorums | None) -> int:
        """Write records for an operation. Returns for how many batches it has to wait; each tells it when it is written."""
        self.check_write([key for key, _ in pairs], quorum)
        batches: dict[int, WriteBatch] = {}
        for key, record in pairs:
            partition = key_slot(key) >> self.shift
            route = self.routes[partition]
            batch = self._write_batch(route, quorum)
            if route.local_write:
                self.store.merge(partition, key, record)
            batch.items += (key, record)
            if not batch.instant:
                batches[id(batch)] = batch
        for batch in batches.values():
            batch.operations.append(operation)
        return len(batches)

    def _read_batch(self, route: Route, quorum: Quorums | None) -> ReadBatch:
        if quorum is None or quorum == route.quorum:
            return route.reading or self.open_read(route, None)
        return route.read_batches.get(quorum) or self.open_read(route, quorum)

    def _write_batch(self, route: Route, quorum: Quorums | None) -> WriteBatch:
        if quorum is None or quorum == route.quorum:
            return route.writing or self.open_write(route, None)
        return route.write_batches.get(quorum) or self.open_write(route, quorum)

    # --- opening

    def _check_write(self, route: Route, quorum: Quorums) -> None:
        if self.skew_ms is not None:
            msg = f"this node's clock is {self.skew_ms} ms off the median of its peers': it stamps no writes"
            raise ClockSkewError(msg)
        if route.write_up < quorum.w or route.write_primaries_up < quorum.pw:
            self.statistics.writes_refused_total += 1
            raise refusal(
                "write", needed=quorum.w, up=route.write_up, primaries_needed=quorum.pw, primaries_up=route.write_primaries_up
            )

    def _check_read(self, route: Route, quorum: Quorums) -> None:
        up = len(route.read_peers) + route.local_read
        if up < quorum.r or route.read_primaries_up < quorum.pr:
            self.statistics.reads_refused_total += 1
            raise refusal("read", needed=quorum.r, up=up, primaries_needed=quorum.pr, primaries_up=route.read_primaries_up)

    def open_write(self, route: Route, quorum: Quorums | None) -> WriteBatch:
        """A batch for this turn. Raises NoQuorumError or ClockSkewError before any effect."""
        chosen = quorum or route.quorum
        self._check_write(route, chosen)
        batch = WriteBatch(route, chosen)
        batch.instant = (
            not self.turn.sync_each_turn and route.local_read and route.local_write and chosen.w <= 1 and chosen.pw <= (self.me in route.primary_set)
        )
        if quorum is None:
            route.writing = batch
        else:
            route.write_batches[quorum] = batch
        self._opened_writes.append(batch)
        return batch

    def open_read(self, route: Route, quorum: Quorums | None) -> ReadBatch:
        """A batch for this turn. Raises NoQuorumError."""
        chosen = quorum or route.quorum
        self._check_read(route, chosen)
        batch = ReadBatch(route, chosen, local=route.local_read)
        if quorum is None:
            route.reading = batch
        else:
            route.read_batches[quorum] = batch
        self._opened_reads.append(batch)
        return batch

    # --- the end of the turn

    def seal(self) -> bool:
        """Ask the replicas, for all batches that this turn opened. Returns whether there were any.

        What is answered in here may open further batches: call it until it returns False.
        """
        if not self._opened_reads and not self._opened_writes:
            return False
        reads, self._opened_reads = self._opened_reads, []
        writes, self._opened_writes = self._opened_writes, []
        for read in reads:
            read.route.reading = None
            if read.route.read_batches:
                read.route.read_batches.clear()
        for write in writes:
            write.route.writing = None
            if write.route.write_batches:
                write.route.write_batches.clear()
        for read in reads:
            self._seal_read(read)
        for write in writes:
            self._seal_write(write)
        return True

    def _seal_read(self, batch: ReadBatch) -> None:
        route = batch.route
        self.statistics.reads_total += len(batch.keys)
        if batch.local and self.me in route.primary_set:
            batch.primary_answers = 1
        if batch.local:
            batch.answers.append((self.me, list(batch.best)))
        if batch.need <= 0 and batch.primary_answers >= batch.quorum.pr:
            self._finish_read(batch)
            return
        batch.sequence = self.turn.next_sequence()
        body = _encode(batch.keys)
        peers = route.read_peers
        count = len(peers)
        route.turn_peer = first = (route.turn_peer + 1) % count if count else 0
        spread = route.read_primaries_up - batch.local
        if batch.need < spread and not batch.quorum.pr:
            chosen = [peers[(first + step) % spread] for step in range(batch.need)]
        else:
            chosen = list(peers[: max(batch.need, batch.quorum.pr)])
        for peer in chosen:
            self._ask(batch, peer, body)
        self._reads[batch.sequence] = batch
        self._watch(batch)

    def _ask(self, batch: ReadBatch, peer: NodeId, body: bytes) -> None:
        batch.waiting.add(peer)
        batch.asked.add(peer)
        self.turn.post(peer, frames.READ if peer in batch.route.primary_set else frames.READ_STAND_IN, batch.sequence, body)

    def _seal_write(self, batch: WriteBatch) -> None:
        route, turn = batch.route, self.turn
        self.statistics.writes_total += len(batch.items) >> 1
        body = _encode(batch.items)
        if route.local_write:
            turn.log.append((LOG_WRITES, body))
            if route.local_owners:
                for owner in route.local_owners:
                    self.compensation.keep(batch, owner, batch.items)
            if route.local_read:
                batch.waiting.add(self.me)
        if route.write_peers or route.stand_ins or batch.waiting:
            batch.sequence = turn.next_sequence()
            section = frames.pack_section(frames.WRITE, batch.sequence, body)
            for peer in route.write_peers:
                turn.sections[peer].append(section)
            batch.waiting.update(route.write_peers)
            for peer, owners in route.stand_ins:
                turn.post(peer, frames.STAND_IN, batch.sequence, frames.pack_owners(owners) + body)
                batch.waiting.add(peer)
            if batch.waiting:
                self._writes[batch.sequence] = batch
                self._watch(batch)
        if self.me in batch.waiting:
            if turn.sync_each_turn:
                turn.when_logged(lambda: self.acknowledge(batch, self.me))
            else:
                self.acknowledge(batch, self.me)

    def send_part(self, part: WriteBatch, fallback: NodeId, body: bytes) -> None:
        """Ask one fallback to take a part of a batch."""
        part.sequence = self.turn.next_sequence()
        part.waiting.add(fallback)
        self.turn.post(fallback, frames.STAND_IN, part.sequence, body)
        self._writes[part.sequence] = part
        self._watch(part)

    def _watch(self, batch: ReadBatch | WriteBatch) -> None:
        now = self.turn.now
        if self.speculative_retry_s:
            self._slow.append((now + self.speculative_retry_s, batch))
        self._deadlines.append((now + self.request_timeout_s, batch))

    # --- answers to writes

    def on_write_ack(self, peer: NodeId, sequences: list[int]) -> None:
        """A replica has all of these in its log."""
        writes = self._writes
        for sequence in sequences:
            batch = writes.get(sequence)
            if batch is not None:
                self.acknowledge(batch, peer)

    def on_write_newer(self, peer: NodeId, sequence: int, numbers: list[int]) -> None:
        """A replica has all of it in its log, but held other versions that win over some: `numbers` is [its clock, index, ...].

        The client's write is later than whatever was acknowledged before it came, so it is stamped above
        what was found and sent again before it is answered. Once is enough: what a replica took in after
        that is concurrent with it.
        """
        batch = self._writes.get(sequence)
        if batch is None:
            return
        if batch.open and batch.parent is None and peer in batch.waiting:
            pairs = self._later_pairs(batch, numbers[1:])
            if pairs:
                self._resend(batch, pairs)
        self.acknowledge(batch, peer)

    def _later_pairs(self, batch: WriteBatch, indices: list[int]) -> list[bytes]:
        pairs: list[bytes] = []
        for index in indices:
            if not 0 <= 2 * index < len(batch.items):
                msg = "acknowledges what was not sent"
                raise PeerProtocolError(msg)
            key, record = batch.items[2 * index], batch.items[2 * index + 1]
            # An expiry that lost to another version of its key must not revive its own.
            if newest_stamp_of(record) == stamp_of(record):
                pairs += (key, restamped(record, self.clock.next()))
        return pairs

    def _resend(self, batch: WriteBatch, pairs: list[bytes]) -> None:
        self.statistics.resends_total += len(pairs) >> 1
        child = WriteBatch(batch.route, batch.quorum)
        child.parent = batch
        child.items = pairs
        batch.resends += 1
        if batch.route.local_write:
            self.store.merge_pairs(pairs)
        self._opened_writes.append(child)

    def acknowledge(self, batch: WriteBatch, node: NodeId) -> None:
        """A node has the whole batch in its log."""
        waiting = batch.waiting
        if node not in waiting:
            return
        waiting.discard(node)
        route = batch.route
        if node in route.counting or batch.parent.__class__ is Division:
            batch.acks += 1
            if node in route.primary_set:
                batch.primary_acks += 1
            if batch.open and batch.reached():
                self.written(batch)
        if not waiting:
            self._retire(batch)

    def _retire(self, batch: WriteBatch) -> None:
        if not batch.open:
            self._writes.pop(batch.sequence, None)
            batch.items = []

    def written(self, batch: WriteBatch) -> None:
        """The quorum is met: answer everybody who waits."""
        batch.open = False
        batch.cell[0] = OK
        for conn in batch.conns:
            conn.drain()
        for operation in batch.operations:
            operation.written()
        batch.conns, batch.operations, batch.last_conn = [], [], None
        parent = batch.parent
        if parent is None:
            return
        if isinstance(parent, Division):
            self.compensation.part_written(parent)
        else:
            parent.resends -= 1
            if parent.open and parent.reached():
                self.written(parent)

    def _fail_write(self, batch: WriteBatch, error: ClientError) -> None:
        batch.open = False
        self.statistics.write_timeouts_total += 1
        batch.cell[0] = error.reply()
        for conn in batch.conns:
            conn.drain()
        for operation in batch.operations:
            operation.failed(error)
        batch.conns, batch.operations, batch.last_conn = [], [], None

    # --- answers to reads

    def on_records(self, peer: NodeId, sequence: int, records: list[bytes]) -> None:
        """A replica's answer to a read: a record for each key, ABSENT where it has none."""
        batch = self._reads.get(sequence)
        if batch is None or peer not in batch.waiting:
            return
        if len(records) != len(batch.keys):
            msg = "answers another number of records than was asked"
            raise PeerProtocolError(msg)
        batch.waiting.discard(peer)
        if batch.open:
            if merge_answers(batch.best, records):
                batch.differs = True
            batch.answers.append((peer, records))
            batch.need -= 1
            if peer in batch.route.primary_set:
                batch.primary_answers += 1
            if batch.need <= 0 and batch.primary_answers >= batch.quorum.pr:
                self._finish_read(batch)
        elif batch.best != records:
            self._repair(peer, stale_pairs(batch, records))
        if not batch.waiting and not batch.open:
            self._reads.pop(sequence, None)

    def _finish_read(self, batch: ReadBatch) -> None:
        if not batch.primary_answers and ABSENT in batch.best and self._ask_primary(batch):
            return
        batch.open = False
        now_ms = self.turn.wall_ms
        last: Waiter | None = None
        for record, cell, conn in zip(batch.best, batch.cells, batch.conns, strict=True):
            if cell.__class__ is int:
                conn.receive(cell, record)
                continue
            if record and record[16] == VALUE:
                cell[0] = b"$%d\r\n%b\r\n" % (len(record) - HEADER_BYTES, record[HEADER_BYTES:])
            else:
                value = value_of(record, now_ms)
                cell[0] = conn.nil if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
            if conn is not last:
                if last is not None:
                    last.drain()
                last = conn
        if last is not None:
            last.drain()
        batch.cells, batch.conns = [], []
        if batch.differs:
            for peer, records in batch.answers:
                self._repair(peer, stale_pairs(batch, records))
        batch.answers = []
        if not batch.waiting and batch.sequence:
            self._reads.pop(batch.sequence, None)

    def _ask_primary(self, batch: ReadBatch) -> bool:
        """An ignorant stand-in proves nothing: "not found" counts only if a primary says so."""
        for peer in batch.route.read_peers:
            if peer in batch.route.primary_set and peer not in batch.asked:
                batch.need = 1
                self._ask(batch, peer, _encode(batch.keys))
                return True
        if not batch.waiting:
            self._fail_read(batch, refusal("read", needed=1, up=0, primaries_needed=1, primaries_up=0))
        return True

    def _fail_read(self, batch: ReadBatch, error: ClientError) -> None:
        batch.open = False
        self.statistics.read_timeouts_total += 1
        reply = error.reply()
        for cell, conn in zip(batch.cells, batch.conns, strict=True):
            if cell.__class__ is int:
                conn.failed(error)
            else:
                cell[0] = reply  # type: ignore[index]
                conn.drain()
        batch.cells, batch.conns, batch.answers = [], [], []
        self._reads.pop(batch.sequence, None)

    def _repair(self, peer: NodeId, pairs: list[bytes]) -> None:
        """Send a replica that answered with older records the newer ones. It is not waited for."""
        if not pairs:
            return
        self.statistics.read_repairs_total += len(pairs) >> 1
        body = _encode(pairs)
        if peer == self.me:
            self.store.merge_pairs(pairs)
            self.turn.log.append((LOG_WRITES, body))
        else:
            self.turn.post(peer, frames.REPAIR, 0, body)

    # --- what does not come

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """A node did not carry out a read or a write."""
        write = self._writes.get(sequence)
        if write is not None:
            self._lost_write(write, peer)
        read = self._reads.get(sequence)
        if read is not None:
            self._lost_read(read, peer)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to a peer broke: nothing that it was asked will be answered."""
        for write in [batch for batch in self._writes.values() if peer in batch.waiting]:
            self._lost_write(write, peer)
        for read in [batch for batch in self._reads.values() if peer in batch.waiting]:
            self._lost_read(read, peer)

    def _lost_write(self, batch: WriteBatch, peer: NodeId) -> None:
        if peer not in batch.waiting:
            return
        batch.waiting.discard(peer)
        self.compensation.divert(batch, peer)
        if not batch.waiting:
            self._retire(batch)

    def _lost_read(self, batch: ReadBatch, peer: NodeId) -> None:
        batch.waiting.discard(peer)
        if batch.open and not self._ask_another(batch) and not batch.waiting:
            self._fail_read(batch, self._read_error(batch))

    def _ask_another(self, batch: ReadBatch) -> bool:
        for peer in self.routes[key_slot(batch.keys[0]) >> self.shift].read_peers:
            if peer not in batch.asked:
                self._ask(batch, peer, _encode(batch.keys))
                return True
        return False

    def _read_error(self, batch: ReadBatch) -> ClientError:
        return read_timeout(needed=batch.quorum.r, answered=len(batch.answers))

    def next_due(self) -> float | None:
        """When `expire` is to be called again."""
        slow, deadlines = self._slow, self._deadlines
        while slow and not slow[0][1].open:
            slow.popleft()
        while deadlines and not deadlines[0][1].open and not deadlines[0][1].waiting:
            deadlines.popleft()
        due = [queue[0][0] for queue in (slow, deadlines) if queue]
        return min(due) if due else None

    def expire(self) -> None:
        """Ask further nodes about what is slow; give up what is late."""
        now = self.turn.now
        slow, deadlines = self._slow, self._deadlines
        while slow and slow[0][0] <= now:
            batch = slow.popleft()[1]
            if batch.open and self.speculation_allowed:
                self._speculate(batch)
        while deadlines and deadlines[0][0] <= now:
            batch = deadlines.popleft()[1]
            if isinstance(batch, WriteBatch):
                self._give_up_write(batch)
            elif batch.open:
                self._fail_read(batch, self._read_error(batch))
            else:
                self._reads.pop(batch.sequence, None)

    def _speculate(self, batch: ReadBatch | WriteBatch) -> None:
        if isinstance(batch, ReadBatch):
            if self._ask_another(batch):
                self.statistics.speculative_reads_total += len(batch.keys)
        elif batch.parent is None:
            for peer in sorted(batch.waiting - {self.me}):
                if self.compensation.stand_in_for(batch, peer):
                    self.statistics.speculative_writes_total += len(batch.items) >> 1

    def _give_up_write(self, batch: WriteBatch) -> None:
        late = sorted(batch.waiting - {self.me})
        batch.waiting -= set(late)
        for peer in late:
            self.compensation.keep_for(batch, peer)
        if batch.open:
            self._fail_write(batch, write_timeout(needed=batch.quorum.w, answered=batch.acks, hinted=batch.hinted))
        if not batch.waiting:
            self._retire(batch)

    def in_flight_count(self) -> int:
        """Batches that wait for answers."""
        return len(self._reads) + len(self._writes)

    def everything_is_confirmed(self) -> bool:
        """Whether every write that this node coordinated is on its replicas or a hint."""
        return not self._writes
