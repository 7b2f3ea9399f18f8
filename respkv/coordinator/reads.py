"""The reads of a turn: which replicas are asked, and when enough have answered. Pure.

Rule: "not found" counts only if a primary is among those who answered; an ignorant stand-in proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from respkv.coordinator.batches import Ended, ReadBatch, Waiter, merge_answers
from respkv.coordinator.quorum import crowding, read_timeout, refusal
from respkv.coordinator.read_repairs import NOBODY
from respkv.coordinator.replica import check_records
from respkv.errors import ClientError, PeerProtocolError
from respkv.placement.slots import key_slot
from respkv.resp.writer import bulk
from respkv.transport import frames
from respkv.transport.bounds import LONG_BYTES, SECTION_BYTES_MAX
from respkv.versions.records import ABSENT, HEADER_BYTES, VALUE, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from respkv.config.quorums import Quorums
    from respkv.coordinator.coordinator import Coordinator
    from respkv.coordinator.routes import Route
    from respkv.ids import NodeId

_encode = msgspec.msgpack.Encoder().encode


class Reads:
    """The read batches of a coordinator."""

    __slots__ = ("_coordinator", "_in_flight", "_opened")

    def __init__(self, coordinator: Coordinator) -> None:
        """Nothing is asked yet."""
        self._coordinator = coordinator
        self._opened: list[ReadBatch] = []
        self._in_flight: dict[int, ReadBatch] = {}

    def __len__(self) -> int:
        """Batches that wait for answers."""
        return len(self._in_flight)

    def batch_count_opened(self) -> int:
        """Batches of this turn that were not sent yet."""
        return len(self._opened)

    def check(self, route: Route, quorum: Quorums) -> None:
        """Raise NoQuorumError unless the partitions of a route can be read now."""
        up = len(route.read_peers) + route.local_read
        if up < quorum.r or route.read_primaries_up < quorum.pr:
            self._coordinator.statistics.reads_refused_total += 1
            raise refusal("read", needed=quorum.r, up=up, primaries_needed=quorum.pr, primaries_up=route.read_primaries_up)

    def open(self, route: Route, quorum: Quorums | None) -> ReadBatch:
        """A batch for this turn. Raises NoQuorumError."""
        chosen = quorum or route.quorum
        self.check(route, chosen)
        batch = ReadBatch(route, chosen, local=route.local_read)
        if route.local_guest and chosen.r <= route.spread_count:
            # Enough primaries are up: what this node holds as a stand-in is taken into account, but does not count.
            batch.need += 1
        if quorum is None:
            route.reading = batch
        else:
            route.read_batches[quorum] = batch
        self._opened.append(batch)
        return batch

    def batch(self, route: Route, quorum: Quorums | None) -> ReadBatch:
        """This turn's batch of a route at a quorum; None is the cluster's."""
        if quorum is None or quorum == route.quorum:
            return route.reading or self.open(route, None)
        return route.read_batches.get(quorum) or self.open(route, quorum)

    def take(self) -> list[ReadBatch]:
        """This turn's batches, closed for further keys."""
        opened, self._opened = self._opened, []
        for batch in opened:
            batch.route.reading = None
            if batch.route.read_batches:
                batch.route.read_batches.clear()
        return opened

    def send(self, batch: ReadBatch) -> None:
        """Ask the replicas."""
        route = batch.route
        self._coordinator.statistics.reads_total += len(batch.keys)
        if batch.local and self._coordinator.me in route.primary_set:
            batch.primary_answers = 1
        if batch.local:
            batch.answers.append((self._coordinator.me, list(batch.best)))
        if batch.need <= 0 and batch.primary_answers >= batch.quorum.pr and (batch.primary_answers or ABSENT not in batch.best):
            self._finish(batch)
            return
        batch.sequence = self._coordinator.turn.next_sequence()
        self._in_flight[batch.sequence] = batch
        self._coordinator.waiting_count += len(batch.keys)
        self._coordinator.watch(batch)
        spread, body = route.spread_count, _encode(batch.keys)
        if len(body) > SECTION_BYTES_MAX and len(starts := frames.cuts(batch.keys)) > 1:
            self._divide(batch, _parts(starts, len(batch.keys)))
            return
        if 0 < batch.need < spread and not batch.quorum.pr:
            peers = route.read_peers
            first = route.turn_peer
            route.turn_peer = (first + 1) % spread
            for step in range(batch.need):
                self._ask(batch, peers[(first + step) % spread], body)
            if batch.crowded:
                self._ask_missing(batch, body)
        else:
            self._ask_missing(batch, body)
        if not batch.waiting:
            if batch.crowded:
                self._nobody_is_left(batch)
            else:
                self._finish(batch)

    def _ask(self, batch: ReadBatch, peer: NodeId, body: bytes) -> None:
        batch.asked.add(peer)
        if len(body) > LONG_BYTES and not self._coordinator.turn.fits(peer, body):
            batch.crowded = True
            return
        batch.waiting.add(peer)
        kind = frames.READ if peer in batch.route.primary_set else frames.READ_STAND_IN
        self._coordinator.turn.sections[peer].append(frames.pack_section(kind, batch.sequence, body))

    def on_records(self, peer: NodeId, sequence: int, records: list[bytes]) -> None:
        """A replica's answer to a read: a record for each key, ABSENT where it has none. Raises PeerProtocolError."""
        batch = self._in_flight.get(sequence)
        wall_ms = self._coordinator.turn.wall_ms
        if batch is None or peer not in batch.waiting:
            check_records(records, wall_ms=wall_ms)
            return
        if len(records) != len(batch.keys):
            msg = "answers another number of records than was asked"
            raise PeerProtocolError(msg)
        differs = batch.best != records
        if differs:
            # What equals this node's own needs no further look.
            check_records(records, wall_ms=wall_ms)
        batch.waiting.discard(peer)
        if batch.open:
            if not batch.answers:
                batch.best = list(records)
            elif differs:
                merge_answers(batch.best, records)
                batch.differs = True
            batch.answers.append((peer, records))
            batch.need -= 1
            if peer in batch.route.primary_set:
                batch.primary_answers += 1
            if batch.need <= 0 and batch.primary_answers >= batch.quorum.pr:
                self._finish(batch)
            elif not batch.waiting:
                self._ask_missing(batch)
                if not batch.waiting:
                    self._nobody_is_left(batch)
        elif differs or batch.repair is not None:
            self._coordinator.repairs.late(batch, peer, records)
        if not batch.waiting and not batch.open:
            self._in_flight.pop(sequence, None)

    def _finish(self, batch: ReadBatch) -> None:
        if batch.primary_answers or ABSENT not in batch.best or not self._awaits_primary(batch):
            self._answer(batch)

    def _answer(self, batch: ReadBatch) -> None:
        """The quorum has answered: tell everybody who waits, or repair first what it shows."""
        batch.open = False
        held = self._coordinator.repairs.begin(batch) if batch.differs else 0
        if batch.sequence:
            coordinator, count = self._coordinator, len(batch.keys)
            coordinator.waiting_count -= count
            count -= held
            microseconds = int((coordinator.turn.now - batch.asked_at) * 1_000_000)
            coordinator.statistics.read_latencies.record(microseconds, count)
            if microseconds >= coordinator.slow_us:
                self.account(batch, zip(batch.keys, batch.cells, batch.conns, strict=True))
        last: Waiter | None = None
        record: bytes
        for record, cell, conn in zip(batch.best, batch.cells, batch.conns, strict=True):
            if cell.__class__ is int:
                conn.receive(cell, record)
                continue
            if record and record[16] == VALUE:
                cell[0] = bulk(record[HEADER_BYTES:])
            else:
                cell[0] = self._reply(record, conn)
            if conn is not last:
                if last is not None:
                    last.drain()
                last = conn
        if last is not None:
            last.drain()
        batch.cells, batch.conns, batch.answers = [], [], []
        if not batch.waiting and batch.sequence:
            self._in_flight.pop(batch.sequence, None)

    def _reply(self, record: bytes, conn: Waiter) -> bytes:
        value = value_of(record, self._coordinator.turn.wall_ms)
        if value is None:
            self._coordinator.statistics.plain_misses_total += conn is not NOBODY
            return conn.nil
        return bulk(value)

    def tell(self, record: bytes, cell: Any, conn: Any) -> None:
        """Answer one reader."""
        if cell.__class__ is int:
            conn.receive(cell, record)
        else:
            cell[0] = self._reply(record, conn)
            conn.drain()

    def _awaits_primary(self, batch: ReadBatch) -> bool:
        """Whether a primary is still to say that keys which no stand-in knows do not exist. Where none can, their readers hear so."""
        self._ask_missing(batch)
        if not batch.waiting.isdisjoint(batch.route.primary_set):
            return True
        self._fail_unfound(batch, refusal("read", needed=1, up=0, primaries_needed=1, primaries_up=0))
        return False

    def _fail_unfound(self, batch: ReadBatch, error: ClientError) -> None:
        """Those who read keys of which no answer knows hear an error; the others of the batch are left to be answered."""
        self._coordinator.statistics.read_timeouts_total += 1
        unfound = [index for index, record in enumerate(batch.best) if not record]
        self.account(batch, [(batch.keys[index], batch.cells[index], batch.conns[index]) for index in unfound], error.reply())
        for index in unfound:
            cell, conn = batch.cells[index], batch.conns[index]
            batch.cells[index], batch.conns[index] = [None], NOBODY
            if cell.__class__ is int:
                conn.failed(error)
            else:
                cell[0] = error.reply()
                conn.drain()

    def _conclude(self, batch: ReadBatch) -> None:
        """Nobody is left to answer, or it is too late: tell the truth."""
        error = crowding() if batch.crowded else read_timeout(needed=batch.quorum.r, answered=len(batch.answers))
        if batch.need <= 0 and batch.primary_answers >= batch.quorum.pr:
            # Only the word of a primary on what was not found is lacking.
            self._fail_unfound(batch, error)
            self._answer(batch)
        else:
            self._fail(batch, error)

    def _fail(self, batch: ReadBatch, error: ClientError) -> None:
        batch.open = False
        self._coordinator.waiting_count -= len(batch.keys)
        self._coordinator.statistics.read_timeouts_total += 1
        reply = error.reply()
        self.account(batch, zip(batch.keys, batch.cells, batch.conns, strict=True), reply)
        for cell, conn in zip(batch.cells, batch.conns, strict=True):
            if cell.__class__ is int:
                conn.failed(error)
            else:
                cell[0] = reply
                conn.drain()
        batch.cells, batch.conns, batch.answers = [], [], []
        self._in_flight.pop(batch.sequence, None)

    def account(self, batch: ReadBatch, readers: Iterable[tuple[bytes, Any, Any]], error: bytes = b"") -> None:
        """Tell of the plain GETs among the readers of a batch, (key, cell, connection) each, that were slow or failed."""
        coordinator = self._coordinator
        gets: list[tuple[Waiter | None, list[bytes]]] = [
            (conn, [b"GET", key]) for key, cell, conn in readers if cell.__class__ is not int and conn is not NOBODY
        ]
        if gets or error:
            microseconds = int((coordinator.turn.now - batch.asked_at) * 1_000_000)
            coordinator.on_ended(Ended("GET", gets, count=len(gets), microseconds=microseconds, error=error))

    def _lost(self, batch: ReadBatch, peer: NodeId) -> None:
        batch.waiting.discard(peer)
        if not batch.open:
            if not batch.waiting:
                self._in_flight.pop(batch.sequence, None)
            return
        self._ask_missing(batch)
        if not batch.waiting:
            self._nobody_is_left(batch)

    def _unasked(self, batch: ReadBatch) -> list[NodeId]:
        """Who could be asked beside those who were, as the routes are now, best first."""
        route = self._coordinator.routes[key_slot(batch.keys[0]) >> self._coordinator.shift]
        return [peer for peer in route.read_peers if peer not in batch.asked]

    def _ask_missing(self, batch: ReadBatch, body: bytes = b"") -> None:
        """Ask as many further nodes as the quorum lacks beside those whose answers are on their way."""
        while chosen := self._lacking(batch):
            body = body or _encode(batch.keys)
            for peer in chosen:
                self._ask(batch, peer, body)
            if not batch.crowded:
                return

    def _lacking(self, batch: ReadBatch) -> list[NodeId]:
        unasked, primary_set = self._unasked(batch), batch.route.primary_set
        # With enough answers and none of a primary, one is asked to prove what was not found.
        primaries_lacking = (batch.quorum.pr or int(batch.need <= 0)) - batch.primary_answers - len(batch.waiting & primary_set)
        chosen = [peer for peer in unasked if peer in primary_set][: max(primaries_lacking, 0)]
        lacking = batch.need - len(batch.waiting) - len(chosen)
        return chosen + [peer for peer in unasked if peer not in chosen][: max(lacking, 0)]

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """A node did not carry out a read."""
        batch = self._in_flight.get(sequence)
        if batch is not None:
            self._lost(batch, peer)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to a peer broke: what it was asked will not be answered."""
        for batch in [batch for batch in self._in_flight.values() if peer in batch.waiting]:
            self._lost(batch, peer)

    def on_too_long(self, peer: NodeId, sequence: int, cuts: list[int]) -> None:
        """The answer would have been too long: ask for the keys in parts, which begin at these; none: there is no room for it at all."""
        batch = self._in_flight.get(sequence)
        if batch is None or peer not in batch.waiting:
            return
        count = len(batch.keys)
        if cuts and (cuts[0] or sorted(set(cuts)) != cuts or cuts[-1] >= count):
            msg = "cuts what was asked where nothing is"
            raise PeerProtocolError(msg)
        parts = [] if not batch.open else _parts(cuts, count) if cuts else self._readers(batch)
        if len(parts) > 1:
            self._divide(batch, parts)
        else:
            batch.crowded = True
            self._lost(batch, peer)

    def _nobody_is_left(self, batch: ReadBatch) -> None:
        """Nobody is left to ask. Where that is for lack of room, each reader is given another chance."""
        parts = self._readers(batch) if batch.crowded else []
        if len(parts) > 1:
            self._divide(batch, parts)
        else:
            self._conclude(batch)

    @staticmethod
    def _readers(batch: ReadBatch) -> list[list[int]]:
        """What of a batch each reader asks for: it may be one who asks for too much, and the others must not suffer from it."""
        readers: dict[tuple[int, int], list[int]] = {}
        for index, (cell, conn) in enumerate(zip(batch.cells, batch.conns, strict=True)):
            readers.setdefault((id(conn), -1 if cell.__class__ is int else index), []).append(index)
        return list(readers.values())

    def _divide(self, batch: ReadBatch, parts: list[list[int]]) -> None:
        """Ask once more, for some of the keys at a time. What was answered already is asked again with them."""
        batch.open = False
        batch.waiting.clear()
        self._in_flight.pop(batch.sequence, None)
        self._coordinator.waiting_count -= len(batch.keys)
        self._coordinator.statistics.reads_total -= len(batch.keys)
        local = batch.answers[0][1] if batch.local else [ABSENT] * len(batch.keys)
        for part in parts:
            share = ReadBatch(batch.route, batch.quorum, local=batch.local)
            share.need = batch.need + len(batch.answers) - batch.local
            share.keys = [batch.keys[index] for index in part]
            share.best = [local[index] for index in part]
            share.cells = [batch.cells[index] for index in part]
            share.conns = [batch.conns[index] for index in part]
            self._opened.append(share)
        batch.cells, batch.conns, batch.answers = [], [], []

    def speculate(self, batch: ReadBatch) -> None:
        """A batch is slow: ask one more node."""
        for peer in self._unasked(batch)[:1]:
            self._ask(batch, peer, _encode(batch.keys))
            self._coordinator.statistics.speculative_reads_total += len(batch.keys)

    def give_up(self, batch: ReadBatch) -> None:
        """A batch is late."""
        if batch.open:
            self._conclude(batch)
        self._in_flight.pop(batch.sequence, None)


def _parts(starts: list[int], count: int) -> list[list[int]]:
    """The numbers below a count, in parts that begin at these."""
    return [list(range(start, end)) for start, end in zip(starts, [*starts, count][1:], strict=True)]
