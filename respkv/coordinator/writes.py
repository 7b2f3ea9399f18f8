"""The writes of a turn: to whom they go, when enough have them in their logs, what is sent again. Pure.

Rule: a record is merged and on its way to the log before anything about it is sent or answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.coordinator.batches import ENDED_SHOWN_MAX, Division, Ended, WriteBatch
from respkv.coordinator.quorum import refusal, write_timeout
from respkv.coordinator.recent_writes import NOT_AT_ALL
from respkv.errors import ClientError, ClockSkewError, OverloadedError, PeerProtocolError
from respkv.transport import frames
from respkv.transport.bounds import LONG_BYTES, SECTION_BYTES_MAX
from respkv.versions.clock import ahead_us
from respkv.versions.records import ABSENT, SIBLINGS, newest_stamp_of, restamped, stamp_of, value_of
from respkv.versions.vectors import merge

if TYPE_CHECKING:
    from respkv.config.quorums import Quorums
    from respkv.coordinator.coordinator import Coordinator
    from respkv.coordinator.routes import Route
    from respkv.ids import NodeId

LOG_WRITES = 1
OK = b"+OK\r\n"
USUAL_ACKS = 16
"""So many acknowledgements make a habit."""
_encode = msgspec.msgpack.Encoder().encode


class Writes:
    """The write batches of a coordinator."""

    __slots__ = ("_coordinator", "_in_flight", "_opened", "_parts", "_usual_us")

    def __init__(self, coordinator: Coordinator) -> None:
        """Nothing is sent yet."""
        self._coordinator = coordinator
        self._opened: list[WriteBatch] = []
        self._in_flight: dict[int, WriteBatch] = {}
        self._parts: dict[int, WriteBatch] = {}
        """Those of them that are a fallback's share of an earlier batch."""
        self._usual_us: dict[NodeId, float] = {}
        """How long each node takes to acknowledge what is not long, of late."""

    def __len__(self) -> int:
        """Batches that wait for acknowledgements."""
        return len(self._in_flight)

    def oldest_turn(self) -> int | None:
        """The turn in which the oldest write that is not confirmed began."""
        for batch in self._in_flight.values():
            if self._parts:
                return min(batch.turn, *(part.turn for part in self._parts.values()))
            return batch.turn
        return None

    def unconfirmed(self) -> list[tuple[int, bytes]]:
        """Log records of what earlier turns wrote into this node's own copy and is not confirmed yet."""
        number = self._coordinator.turn.number
        batches = [batch for batch in (*self._in_flight.values(), *self._parts.values()) if batch.route.local_write and batch.turn < number]
        kept = filter(None, map(self._coordinator.compensation.kept_here, batches))
        return [(LOG_WRITES, _encode(pairs)) for pairs in kept]

    def check(self, route: Route, quorum: Quorums) -> None:
        """Raise NoQuorumError unless the partitions of a route can be written now."""
        if self._coordinator.writes_disabled and route.local_write:
            raise OverloadedError(f"{self._coordinator.writes_disabled}; nothing was done")
        if self._coordinator.skew_ms is not None:
            msg = f"this node's clock is {self._coordinator.skew_ms} ms off the median of its peers': it stamps no writes"
            raise ClockSkewError(msg)
        if route.write_up < quorum.w or route.write_primaries_up < quorum.pw:
            self._coordinator.statistics.writes_refused_total += 1
            raise refusal("write", needed=quorum.w, up=route.write_up, primaries_needed=quorum.pw, primaries_up=route.write_primaries_up)
        if route.write_all_up < route.stored_w and quorum.w >= route.quorum.w:
            self._coordinator.statistics.writes_refused_total += 1
            raise refusal("write", needed=route.stored_w, up=route.write_all_up, primaries_needed=0, primaries_up=0)

    def open(self, route: Route, quorum: Quorums | None) -> WriteBatch:
        """A batch for this turn. Raises NoQuorumError or ClockSkewError before any effect."""
        chosen = quorum or route.quorum
        self.check(route, chosen)
        batch = WriteBatch(route, chosen)
        batch.instant = (
            not self._coordinator.turn.sync_each_turn
            and route.local_write
            and chosen.w <= 1
            and chosen.pw <= 1
            and batch.stored_w <= 1
            and self._coordinator.me in route.counting
            # The copy of a stand-in counts only once it has its hint row.
            and self._coordinator.me in route.primary_set
        )
        if quorum is None:
            route.writing = batch
        else:
            route.write_batches[quorum] = batch
        self._opened.append(batch)
        return batch

    def batch(self, route: Route, quorum: Quorums | None) -> WriteBatch:
        """This turn's batch of a route at a quorum; None is the cluster's."""
        if quorum is None or quorum == route.quorum:
            return route.writing or self.open(route, None)
        return route.write_batches.get(quorum) or self.open(route, quorum)

    def grow(self, batch: WriteBatch, size: int) -> None:
        """A batch took in a record. Once it is long it takes in nothing more: what comes next goes into another section."""
        batch.size += size
        if batch.size > SECTION_BYTES_MAX:
            if batch.route.writing is batch:
                batch.route.writing = None
            else:
                batch.route.write_batches.pop(batch.quorum, None)

    def take(self) -> list[WriteBatch]:
        """This turn's batches, closed for further records."""
        opened, self._opened = self._opened, []
        for batch in opened:
            batch.route.writing = None
            if batch.route.write_batches:
                batch.route.write_batches.clear()
        return opened

    def send(self, batch: WriteBatch) -> None:
        """Ask the replicas."""
        route, turn = batch.route, self._coordinator.turn
        batch.count = len(batch.items) >> 1
        batch.stamp = stamp_of(batch.items[-1])
        self._coordinator.statistics.writes_total += batch.count
        body = _encode(batch.items)
        if route.local_write:
            turn.log.append((LOG_WRITES, body))
            self._coordinator.recent.note(batch.items, turn.now)
            counts = not route.local_owners or self._coordinator.compensation.stand_in_here(batch)
            if counts and route.local_counts:
                batch.waiting.add(self._coordinator.me)
        batch.sequence = turn.next_sequence()
        batch.turn, batch.sent_at = turn.number, turn.now
        section = frames.pack_section(frames.WRITE, batch.sequence, body)
        crowded = self._crowded(route, body) if len(body) > LONG_BYTES else ()
        for peer in route.write_peers:
            if peer not in crowded:
                turn.sections[peer].append(section)
        batch.waiting.update(route.write_peers)
        for peer, owners in route.stand_ins:
            if peer not in crowded:
                turn.post(peer, frames.STAND_IN, batch.sequence, frames.pack_owners(owners) + body)
            batch.waiting.add(peer)
        self._in_flight[batch.sequence] = batch
        self._coordinator.waiting_count += len(batch.items) >> 1
        self._coordinator.watch(batch)
        for peer in crowded:
            self._lost(batch, peer)
        if self._coordinator.me in batch.waiting:
            if turn.sync_each_turn:
                turn.when_logged(lambda: self.acknowledge(batch, self._coordinator.me))
            else:
                self.acknowledge(batch, self._coordinator.me)

    def _crowded(self, route: Route, body: bytes) -> list[NodeId]:
        """For whom of those who are to take a long batch too much waits already: they count as away for it."""
        asked = (*route.write_peers, *(peer for peer, _ in route.stand_ins))
        return [peer for peer in asked if not self._coordinator.turn.fits(peer, body)]

    def send_part(self, part: WriteBatch, fallback: NodeId, body: bytes) -> None:
        """Ask one fallback to take a part of a batch."""
        assert isinstance(part.parent, Division)
        # What it carries has been in the log since its batch was sent.
        part.turn = part.parent.batch.turn
        part.sent_at = self._coordinator.turn.now
        part.sequence = self._coordinator.turn.next_sequence()
        part.waiting.add(fallback)
        self._in_flight[part.sequence] = self._parts[part.sequence] = part
        self._coordinator.watch(part)
        if self._coordinator.turn.fits(fallback, body):
            self._coordinator.turn.post(fallback, frames.STAND_IN, part.sequence, body)
        else:
            self._lost(part, fallback)

    def on_ack(self, peer: NodeId, sequences: list[int]) -> None:
        """A replica has all of these in its log."""
        in_flight, now = self._in_flight, self._coordinator.turn.now
        for sequence in sequences:
            batch = in_flight.get(sequence)
            if batch is not None:
                if batch.size <= LONG_BYTES:
                    took_us = (now - batch.sent_at) * 1e6
                    usual_us = self._usual_us.get(peer, took_us)
                    self._usual_us[peer] = usual_us + (took_us - usual_us) / USUAL_ACKS
                self.acknowledge(batch, peer)

    def on_newer(self, peer: NodeId, sequence: int, numbers: list[int]) -> None:
        """A replica has all of it in its log, but held other versions that win over some.

        `numbers` is [its clock, index, for how many us it has held the winner, the winner's stamp, index, ...].

        The client's write is later than whatever was acknowledged before it came. So it is stamped above what was there before it was
        sent, and sent again before it is answered. What came after it was sent is concurrent with it, or by somebody who had read it
        already: that stays the winner. Once is enough, for the same reason.

        What the replica took in while the write or this answer was on its way may be either. As long as both together took no longer
        than usual, it counts as having come earlier: only a slow write can have been read and written over meanwhile. Of a slow one it
        counts as having come later, unless its stamp lies so far above the write's that only a clock that is ahead explains it.
        """
        batch = self._in_flight.get(sequence)
        if batch is None or peer not in batch.waiting:
            return
        if len(numbers) % 3 != 1:
            msg = "acknowledges parts of something"
            raise PeerProtocolError(msg)
        whole = batch.parent.batch if isinstance(batch.parent, Division) else batch
        lacking = {index for index, held_us in zip(numbers[1::3], numbers[2::3], strict=True) if held_us == NOT_AT_ALL}
        if batch.open and whole.open and whole.parent is None:
            settled, pairs = self._outdone(batch, whole, numbers, usual_us=self._usual_us.get(peer, 0.0))
            if pairs:
                self._resend(whole, pairs)
            lacking -= settled
        if lacking:
            # It is not there at all, and nothing else brings it.
            self._lost(batch, peer)
        else:
            self.acknowledge(batch, peer)

    def _outdone(self, batch: WriteBatch, whole: WriteBatch, numbers: list[int], *, usual_us: float) -> tuple[set[int], list[bytes]]:
        """What has to be sent again, under later stamps; and the indices of that and of what nobody need care for any more.

        Not what this node has written over since, in this batch or a later one: it would overtake its own successor. A later
        batch is still in flight: the replica that answers has not answered it yet. Where that has no quorum yet, neither
        this write nor what follows it is visible to everybody, so the answer waits for it.
        """
        keys = batch.items[::2]
        last = {key: index for index, key in enumerate(keys)}
        successors = self._in_flight_beside(whole)
        since_us = int((self._coordinator.turn.now - batch.sent_at) * 1_000_000)
        settled: set[int] = set()
        pairs: list[bytes] = []
        for index, held_us, stamp in zip(numbers[1::3], numbers[2::3], numbers[3::3], strict=True):
            if not 0 <= index < len(keys):
                msg = "acknowledges what was not sent"
                raise PeerProtocolError(msg)
            key, record = keys[index], batch.items[2 * index + 1]
            if record[16] == SIBLINGS:
                continue
            successor = successors.get(key)
            if last[key] != index:
                settled.add(index)
            elif successor is not None and merge(successor[0], record) != record:
                settled.add(index)
                if not successor[1].reached():
                    whole.resends += 1
                    successor[1].predecessors.append(whole)
            # An expiry that lost to another version of its key must not revive its own.
            elif newest_stamp_of(record) == stamp_of(record) and (
                held_us == NOT_AT_ALL or held_us >= since_us - usual_us or ahead_us(stamp, stamp_of(record)) > since_us
            ):
                settled.add(index)
                pairs += (key, restamped(record, self._coordinator.clock.next()))
        return settled, pairs

    def _in_flight_beside(self, batch: WriteBatch) -> dict[bytes, tuple[bytes, WriteBatch]]:
        """The newest records that are on their way in other batches, by key, and in which. A fallback's share is its batch's."""
        newest: dict[bytes, tuple[bytes, WriteBatch]] = {}
        for other in (*self._in_flight.values(), *self._opened):
            whole = other.parent.batch if isinstance(other.parent, Division) else other
            if whole is not batch and whole.parent is not batch:
                items = iter(other.items)
                for key, record in zip(items, items, strict=True):
                    held = newest[key][0] if key in newest else ABSENT
                    if merge(held, record) != held:
                        newest[key] = (record, whole)
        return newest

    def _resend(self, batch: WriteBatch, pairs: list[bytes]) -> None:
        self._coordinator.statistics.resends_total += len(pairs) >> 1
        child = WriteBatch(batch.route, batch.quorum)
        child.parent = batch
        child.items = pairs
        batch.resends += 1
        if batch.route.local_write:
            self._coordinator.parking.when_loaded(pairs[::2], lambda: self._merge(child))
        else:
            self._opened.append(child)

    def _merge(self, child: WriteBatch) -> None:
        """Its keys may have left memory since: it is logged and sent in the turn in which it is merged, as any other."""
        self._coordinator.store.merge_pairs(child.items)
        self._opened.append(child)

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
        elif node in route.beside:
            batch.acks_beside += 1
            if batch.open and batch.reached():
                self.written(batch)
        if not waiting:
            self._retire(batch)

    def _retire(self, batch: WriteBatch) -> None:
        if not batch.open:
            self._in_flight.pop(batch.sequence, None)
            if self._parts:
                self._parts.pop(batch.sequence, None)
            batch.items = []

    def written(self, batch: WriteBatch) -> None:
        """The quorum is met: answer everybody who waits."""
        batch.open = False
        if batch.sequence and batch.parent.__class__ is not Division:
            coordinator, count = self._coordinator, len(batch.items) >> 1
            coordinator.waiting_count -= count
            microseconds = int((coordinator.turn.now - batch.asked_at) * 1_000_000)
            coordinator.statistics.write_latencies.record(microseconds, count)
            if microseconds >= coordinator.slow_us:
                self._account(batch)
        batch.cell[0] = OK
        for conn in batch.conns:
            conn.drain()
        for operation in batch.operations:
            operation.written()
        batch.conns, batch.operations, batch.last_conn = [], [], None
        if not batch.waiting:
            # The last acknowledgement came before what was sent again had its quorum.
            self._retire(batch)
        if isinstance(batch.parent, Division):
            self._coordinator.compensation.part_written(batch.parent)
        elif batch.parent is not None:
            self._one_less(batch.parent)
        predecessors, batch.predecessors = batch.predecessors, []
        for predecessor in predecessors:
            self._one_less(predecessor)

    def _one_less(self, batch: WriteBatch) -> None:
        """Something that the answer of a batch waited for is done."""
        batch.resends -= 1
        if batch.open and batch.reached():
            self.written(batch)

    def _fail(self, batch: WriteBatch, error: ClientError) -> None:
        batch.open = False
        if batch.parent.__class__ is Division:
            # Whoever waits, waits for the batch that it is a part of.
            return
        self._coordinator.waiting_count -= len(batch.items) >> 1
        self._coordinator.statistics.write_timeouts_total += 1
        batch.cell[0] = error.reply()
        if batch.parent is None:
            self._account(batch, error.reply())
        for conn in batch.conns:
            conn.drain()
        for operation in batch.operations:
            operation.failed(error)
        batch.conns, batch.operations, batch.last_conn = [], [], None

    def _account(self, batch: WriteBatch, error: bytes = b"") -> None:
        """Tell of the plain SETs of a batch that were slow or failed. Where several connections wait, nobody knows which SET is whose."""
        coordinator, items, conns = self._coordinator, batch.items, batch.conns
        places = [place for place in range(0, len(items), 2) if place not in batch.gathered] if conns else []
        if places or error:
            conn = conns[0] if conns and all(other is conns[0] for other in conns) else None
            wall_ms = coordinator.turn.wall_ms
            lines = [(conn, [b"SET", items[place], value_of(items[place + 1], wall_ms) or b""]) for place in places[:ENDED_SHOWN_MAX]]
            microseconds = int((coordinator.turn.now - batch.asked_at) * 1_000_000)
            coordinator.on_ended(Ended("SET", lines, count=len(places), microseconds=microseconds, error=error))

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """A node did not carry out a write."""
        batch = self._in_flight.get(sequence)
        if batch is not None:
            self._lost(batch, peer)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to a peer broke: what it was sent will not be acknowledged."""
        for batch in [batch for batch in self._in_flight.values() if peer in batch.waiting]:
            self._lost(batch, peer)

    def speculate(self, batch: WriteBatch) -> None:
        """A batch is slow: let fallbacks stand in."""
        if isinstance(batch.parent, Division):
            return
        for peer in sorted(batch.waiting - {self._coordinator.me}):
            if self._coordinator.compensation.stand_in_for(batch, peer):
                self._coordinator.statistics.speculative_writes_total += len(batch.items) >> 1

    def _lost(self, batch: WriteBatch, peer: NodeId) -> None:
        if peer not in batch.waiting:
            return
        batch.waiting.discard(peer)
        self._coordinator.compensation.divert(batch, peer)
        if batch.parent.__class__ is Division:
            batch.open = False
        if not batch.waiting:
            self._retire(batch)

    def give_up(self, batch: WriteBatch) -> None:
        """A batch is late: what was not acknowledged becomes hints, and who still waits hears the truth."""
        late = sorted(batch.waiting - {self._coordinator.me})
        batch.waiting -= set(late)
        for peer in late:
            self._coordinator.compensation.keep_for(batch, peer)
            if batch.size > LONG_BYTES and peer in batch.route.write_peers:
                self._coordinator.on_long_hinted(peer, batch.sequence, batch.items)
        if batch.open:
            # What had to be sent again under a later stamp was not taken by enough.
            needed, answered = batch.quorum.w, min(batch.acks, batch.quorum.w - 1) if batch.resends else batch.acks
            if answered >= needed and batch.stored_w:
                needed, answered = batch.stored_w, answered + batch.acks_beside
            self._fail(batch, write_timeout(needed=needed, answered=answered, hinted=batch.hinted))
        if not batch.waiting:
            self._retire(batch)
