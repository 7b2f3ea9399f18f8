"""What the answers of a read show to be stale gets the newer records. Pure.

Rule 1 (`blocking`): of a key whose answers differ, the newest record is on N - R + 1 primaries before anybody hears of it, so
that no later read of R replicas misses it, even if its write reached a minority and timed out. With R of at least a majority,
answers that agree prove as much by themselves: reads without a difference pay nothing. R below a majority promises nothing.
Rule 2: while the quorum is strict, a reader to whom this cannot be promised in time hears -TIMEOUT. While it is sloppy, stand-ins
count as well, and a reader is answered when nobody is left to wait for, or at the deadline: nodes are away, and reads go on.
Rule 3: a stand-in gets nothing: a copy without a hint row would stay with it for ever.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.coordinator.batches import Waiter, lacks, stale_indices
from respkv.coordinator.quorum import repair_timeout
from respkv.placement.slots import key_slot
from respkv.transport import frames
from respkv.transport.bounds import LONG_BYTES, transfer_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from respkv.coordinator.batches import ReadBatch
    from respkv.coordinator.coordinator import Coordinator
    from respkv.ids import NodeId

LOG_WRITES = 1
BLOCKING = "blocking"
OFF = "off"
_encode = msgspec.msgpack.Encoder().encode


class _Nobody(Waiter):
    """Stands in a batch for a reader who is answered elsewhere."""

    def drain(self) -> None:
        """Nobody waits."""


NOBODY = _Nobody(b"")


class Repair:
    """The keys of one read whose readers wait until enough primaries have what was found."""

    __slots__ = ("batch", "due", "have", "mine", "needed", "readers", "sent", "sequence", "slow_at", "told")

    def __init__(self, batch: ReadBatch, *, needed: int) -> None:
        """Nobody waits yet."""
        self.batch = batch
        self.needed = needed
        self.sequence = 0
        self.due = self.slow_at = math.inf
        self.have: dict[int, int] = {}
        """For each index of a key that waits: how many nodes are known to have what was found."""
        self.readers: dict[int, tuple[Any, Any]] = {}
        """The cell and the connection of each."""
        self.sent: dict[NodeId, list[int]] = {}
        """To whom which of them were sent, and are not acknowledged yet."""
        self.mine: list[bytes] = []
        """[key, record, ...] that this node itself lacks."""
        self.told: set[NodeId] = {peer for peer, _ in batch.answers}
        """Who has answered, or was sent something: it is not sent again."""


class ReadRepairs:
    """The repairs of a coordinator's reads."""

    __slots__ = ("_coordinator", "_repairs", "mode")

    def __init__(self, coordinator: Coordinator) -> None:
        """Nobody waits. `mode` follows the directive `read-repair`."""
        self._coordinator = coordinator
        self._repairs: dict[int, Repair] = {}
        self.mode = BLOCKING

    def __len__(self) -> int:
        """How many reads have keys that wait."""
        return len(self._repairs)

    def begin(self, batch: ReadBatch) -> int:
        """Repair what the answers of a read show. Returns how many of its readers wait for that: they are no longer in the batch."""
        if self.mode == OFF:
            return 0
        repair = self._hold_back(batch) if self.mode == BLOCKING else None
        held = len(repair.readers) if repair is not None else 0
        for peer, records in batch.answers:
            self._send(batch, peer, stale_indices(batch, records), repair)
        if repair is not None:
            waiting = list(repair.readers)
            self._extend(repair, [index for index in waiting if self._in_sight(repair, index) < repair.needed])
            if repair.mine:
                self._take_in(repair.mine, repair.sequence)
            self._judge(repair, waiting)
        return held

    def _hold_back(self, batch: ReadBatch) -> Repair | None:
        """Take the readers out of a batch to whom what was found cannot be told yet."""
        coordinator, count = self._coordinator, batch.route.quorum.n
        quorum = max(min(batch.quorum.r, batch.route.quorum.r), count // 2 + 1)
        repair = Repair(batch, needed=min(count - quorum + 1, batch.quorum.r))
        for index, newest in enumerate(batch.best):
            have = sum(not lacks(newest, records[index]) for _, records in batch.answers)
            if have < repair.needed and newest and batch.conns[index] is not NOBODY:
                repair.have[index] = have
                repair.readers[index] = batch.cells[index], batch.conns[index]
                batch.cells[index], batch.conns[index] = [None], NOBODY
        if not repair.readers:
            return None
        repair.sequence = coordinator.turn.next_sequence()
        repair.due = batch.asked_at + coordinator.request_timeout_s
        if coordinator.speculative_retry_s:
            size = sum(len(batch.best[index]) for index in repair.readers)
            repair.slow_at = coordinator.turn.now + coordinator.speculative_retry_s + transfer_s(size)
        self._repairs[repair.sequence] = batch.repair = repair
        coordinator.waiting_count += len(repair.readers)
        coordinator.statistics.blocking_repairs_total += len(repair.readers)
        return repair

    def late(self, batch: ReadBatch, peer: NodeId, records: list[bytes]) -> None:
        """An answer that came when the quorum had answered already: it may be stale, or be what somebody waits for."""
        if self.mode == OFF:
            return
        repair = batch.repair
        if repair is None or peer in repair.told:
            self._send(batch, peer, stale_indices(batch, records), None)
            return
        repair.told.add(peer)
        if peer in batch.route.primary_set or self._coordinator.compensation.sloppy:
            self._found(repair, [index for index in repair.readers if not lacks(batch.best[index], records[index])])
        self._send(batch, peer, stale_indices(batch, records), repair)

    def _send(self, batch: ReadBatch, peer: NodeId, indices: list[int], repair: Repair | None) -> None:
        """Send a primary what it lacks; with a repair, its acknowledgement counts for those who wait."""
        if not indices or peer not in batch.route.primary_set:
            return
        coordinator = self._coordinator
        pairs: list[bytes] = []
        for index in indices:
            pairs += (batch.keys[index], batch.best[index])
        body = _encode(pairs)
        if len(body) > LONG_BYTES and not self._may_send_long(peer, body, is_awaited=repair is not None):
            return
        coordinator.statistics.read_repairs_total += len(indices)
        sequence = 0
        if repair is not None:
            awaited = [index for index in indices if index in repair.readers]
            if awaited:
                sequence = repair.sequence
                repair.told.add(peer)
                repair.sent[peer] = awaited
        if peer != coordinator.me:
            coordinator.turn.post(peer, frames.REPAIR, sequence, body)
            return
        if repair is None:
            self._take_in(pairs, sequence)
        else:
            # What is here may end the waiting at once: others are asked first.
            repair.mine = pairs

    def _may_send_long(self, peer: NodeId, body: bytes, *, is_awaited: bool) -> bool:
        """Whether a long repair may be sent: if nobody waits for it, not while much is on its way to the replica, for it may be this."""
        coordinator = self._coordinator
        if peer == coordinator.me:
            return True
        return (is_awaited or peer not in coordinator.turn.backlog) and coordinator.turn.fits(peer, body)

    def _take_in(self, pairs: list[bytes], sequence: int) -> None:
        """Give this node's own copy what it lacks. The keys may have left memory since they were read."""
        coordinator = self._coordinator
        coordinator.take_in(pairs, (LOG_WRITES, _encode(pairs)), lambda: self.on_ack(coordinator.me, (sequence,)))

    # --- who waits

    def on_ack(self, peer: NodeId, sequences: Iterable[int]) -> None:
        """A replica has what it was sent in its log."""
        for sequence in sequences:
            repair = self._repairs.get(sequence)
            if repair is not None:
                self._found(repair, repair.sent.pop(peer, []))

    def _found(self, repair: Repair, indices: list[int]) -> None:
        """One more node has what was found of these keys."""
        waiting = [index for index in indices if index in repair.readers]
        for index in waiting:
            repair.have[index] += 1
        self._judge(repair, waiting)

    def _judge(self, repair: Repair, indices: list[int]) -> None:
        """Answer those who have waited long enough, or for whom there is nothing left to wait for."""
        for index in indices:
            if index not in repair.readers:
                continue
            if repair.have[index] >= repair.needed:
                self._answer(repair, index)
            elif self._in_sight(repair, index) < repair.needed and not any(index in sent for sent in repair.sent.values()):
                self._end(repair, index)
        if not repair.readers:
            self._repairs.pop(repair.sequence, None)

    @staticmethod
    def _in_sight(repair: Repair, index: int) -> int:
        """How many have what was found, or were sent it."""
        return repair.have[index] + sum(index in sent for sent in repair.sent.values())

    def _answer(self, repair: Repair, index: int) -> None:
        cell, conn = repair.readers.pop(index)
        coordinator, batch = self._coordinator, repair.batch
        coordinator.waiting_count -= 1
        microseconds = int((coordinator.turn.now - batch.asked_at) * 1_000_000)
        coordinator.statistics.read_latencies.record(microseconds, 1)
        if microseconds >= coordinator.slow_us:
            coordinator.reads.account(batch, [(batch.keys[index], cell, conn)])
        coordinator.reads.tell(batch.best[index], cell, conn)

    def _end(self, repair: Repair, index: int) -> None:
        """Nobody is left who could be asked to keep it, or it is too late."""
        coordinator = self._coordinator
        if coordinator.compensation.sloppy:
            self._answer(repair, index)
            return
        cell, conn = repair.readers.pop(index)
        coordinator.waiting_count -= 1
        coordinator.statistics.blocking_repair_timeouts_total += 1
        error = repair_timeout(needed=repair.needed, answered=repair.have[index])
        coordinator.reads.account(repair.batch, [(repair.batch.keys[index], cell, conn)], error.reply())
        if cell.__class__ is int:
            conn.failed(error)
        else:
            cell[0] = error.reply()
            conn.drain()

    def _extend(self, repair: Repair, indices: list[int]) -> None:
        """Send what was found to further primaries, as many as are lacking; first to those who were not asked anything."""
        if not indices:
            return
        coordinator, batch = self._coordinator, repair.batch
        route = coordinator.routes[key_slot(batch.keys[0]) >> coordinator.shift]
        further = [peer for peer in route.read_peers if peer in batch.route.primary_set and peer not in repair.told]
        further.sort(key=lambda peer: peer in batch.asked)
        lacking = repair.needed - min(self._in_sight(repair, index) for index in indices)
        for peer in further[: max(lacking, 1)]:
            self._send(batch, peer, indices, repair)

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """A node did not take what it was sent."""
        repair = self._repairs.get(sequence)
        if repair is not None:
            self._lost(repair, peer)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to a peer broke."""
        for repair in [repair for repair in self._repairs.values() if peer in repair.sent]:
            self._lost(repair, peer)

    def _lost(self, repair: Repair, peer: NodeId) -> None:
        waiting = [index for index in repair.sent.pop(peer, []) if index in repair.readers]
        self._extend(repair, waiting)
        self._judge(repair, waiting)

    def next_due(self) -> float:
        """When `expire` is to be called again."""
        return min((min(repair.due, repair.slow_at) for repair in self._repairs.values()), default=math.inf)

    def expire(self) -> None:
        """Send what waits for too long to one more primary; give up at the deadline of the read."""
        coordinator = self._coordinator
        now = coordinator.turn.now
        for repair in list(self._repairs.values()):
            if repair.slow_at <= now:
                repair.slow_at = math.inf
                for peer in repair.sent:
                    if peer != coordinator.me:
                        coordinator.on_late(peer)
                if coordinator.speculation_allowed:
                    self._extend(repair, list(repair.readers))
            if repair.due <= now:
                for index in list(repair.readers):
                    self._end(repair, index)
                del self._repairs[repair.sequence]
