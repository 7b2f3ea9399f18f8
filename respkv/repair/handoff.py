"""Pay hints back to their owners (Dynamo section 4.6). Pure.

Rule 1: a row is dropped only when its owner has acknowledged the record.
Rule 2: one batch at a time per owner; nothing to an owner that does not answer in time, or links and queues would fill
just when it comes back (Scylla's hint storms). How long an answer may take grows with what was sent, and each time that nothing
comes of it; an answer that comes later still counts.
Rule 3: never slower than `handoff-rate-min`; faster while the owner answers within `handoff-latency-target`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from respkv.transport import frames
from respkv.versions.records import identity

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.repair.hints import HintBook
    from respkv.storage.parking import Parking
    from respkv.storage.store import Store
    from respkv.transport.turn import Turn

LOG_HINTS = 2
LOG_HINTS_DROPPED = 3
LOG_KEYS_DROPPED = 5
BATCH_KEYS_MAX = 500
BATCH_KEYS_FIRST = 32
"""How big the records of rows are that were found on the disk is not known before they are loaded: begin with few."""
BATCH_BYTES_MAX = 256 * 1024
ANSWER_S = 2.0
"""How long an answer may take beside what was sent itself, which may take as long as at `handoff-rate-min`."""
REST_AFTER_FAILURE_S = 1.0
PATIENCE_MAX = 32
"""How many times as long an owner is waited for, and left alone, that did not answer several times in a row."""
UNANSWERED_MAX = 16
"""Of so many batches an answer that is late still counts."""
REST_BEFORE_UNSENDABLE_S = 30.0
"""Only what is too long for any frame, or queue, is left: somebody has to resolve it, or to write it anew."""
_encode = msgspec.msgpack.Encoder().encode


class _Flow:
    """What is on its way to one owner."""

    __slots__ = (
        "due",
        "keys_max",
        "next_at",
        "patience",
        "rate",
        "sent",
        "sent_at",
        "sent_bytes",
        "sequence",
        "unsendable_count",
        "waiting",
    )

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.keys_max = BATCH_KEYS_FIRST
        self.sequence = 0
        self.sent: dict[int, dict[bytes, bytes]] = {}
        """What went out under a sequence number and is not answered yet, late or not: keys, and the identity of each record."""
        self.due = 0.0
        """When the answer to the last of them is late."""
        self.patience = 1
        self.sent_at = 0.0
        self.sent_bytes = 0
        self.next_at = 0.0
        self.waiting = False
        self.unsendable_count = 0
        """Rows that were looked at and passed over since anything was sent."""


class Handoff:
    """Delivers the rows of a hint book."""

    __slots__ = (
        "_flows",
        "_hints",
        "_is_replica",
        "_me",
        "_parking",
        "_replicas",
        "_store",
        "_turn",
        "batches_total",
        "latency_target_s",
        "rate_max",
        "rate_min",
        "set_aside",
        "usable",
    )

    def __init__(
        self,
        *,
        me: NodeId,
        turn: Turn,
        store: Store,
        hints: HintBook,
        parking: Parking,
        is_replica: Callable[[int], bool],
        replicas: Callable[[int], Sequence[NodeId]],
    ) -> None:
        """`is_replica` tells whether this node holds a partition: other copies are dropped once delivered. `replicas` are all who do."""
        self._me = me
        self._turn = turn
        self._store = store
        self._hints = hints
        self._parking = parking
        self._is_replica = is_replica
        self._replicas = replicas
        self._flows: dict[NodeId, _Flow] = {}
        self.usable: frozenset[NodeId] = frozenset()
        self.set_aside: frozenset[NodeId] = frozenset()
        """Owners that are away and will copy everything anew: what they lack goes to the other replicas."""
        self.rate_min = 1e6
        self.rate_max = 64e6
        self.latency_target_s = 0.02
        self.batches_total = 0

    def tick(self) -> None:
        """Send what may be sent now."""
        rows = self._hints.rows
        if not rows:
            self._flows.clear()
            return
        now = self._turn.now
        for owner in list(rows):
            if owner not in self.usable and owner not in self.set_aside:
                continue
            flow = self._flows.get(owner)
            if flow is None:
                flow = self._flows[owner] = _Flow(self.rate_min)
            if flow.waiting:
                if flow.sequence and now >= flow.due:
                    self._rest(flow)
                continue
            if now >= flow.next_at:
                if owner in self._turn.backlog:
                    # Much is on its way to it, and may be just this.
                    flow.next_at = now + REST_AFTER_FAILURE_S
                else:
                    self._prepare(owner, flow)

    def _prepare(self, owner: NodeId, flow: _Flow) -> None:
        keys: list[bytes] = []
        size = 0
        for key, cost in islice(self._hints.rows[owner].items(), flow.keys_max):
            keys.append(key)
            size += cost
            if size >= BATCH_BYTES_MAX:
                break
        flow.waiting = True
        flow.sequence = 0
        self._parking.when_loaded(keys, lambda: self._send(owner, flow, keys))

    def _send(self, owner: NodeId, flow: _Flow, keys: list[bytes]) -> None:
        pairs: list[bytes] = []
        gone: list[bytes] = []
        moved: list[bytes] = []
        unsendable: list[bytes] = []
        sent: dict[bytes, bytes] = {}
        size = 0
        for key in keys:
            if size >= BATCH_BYTES_MAX:
                break
            record = self._store.get(key)
            if not record:
                gone.append(key)
                continue
            size += len(key) + len(record)
            if owner in self.set_aside or owner not in self._replicas(self._store.partition(key)):
                moved.append(key)
            elif len(key) + len(record) > self._turn.record_bytes_max:
                unsendable.append(key)
            else:
                pairs += (key, record)
                sent[key] = identity(record)
        flow.keys_max = max(min(2 * (len(gone) + len(moved) + len(sent)), BATCH_KEYS_MAX), 1)
        if gone:
            self._drop(owner, gone, reason="forgotten")
        if moved and not self._pass_on(owner, moved):
            flow.next_at = self._turn.now + REST_AFTER_FAILURE_S
        if unsendable:
            self._hints.postpone(owner, unsendable)
        if not pairs:
            flow.waiting = False
            flow.unsendable_count += len(unsendable)
            if unsendable and flow.unsendable_count >= len(self._hints.rows.get(owner, ())):
                flow.unsendable_count = 0
                flow.next_at = self._turn.now + REST_BEFORE_UNSENDABLE_S
            return
        body = _encode(pairs)
        if not self._turn.fits(owner, body):
            self._rest(flow)
            return
        flow.unsendable_count = 0
        self._await(flow, self._turn.next_sequence(), sent, size=len(body))
        self.batches_total += 1
        self._turn.post(owner, frames.REPAIR, flow.sequence, body)

    def _await(self, flow: _Flow, sequence: int, sent: dict[bytes, bytes], *, size: int) -> None:
        flow.waiting = True
        flow.sequence = sequence
        flow.sent[sequence] = sent
        if len(flow.sent) > UNANSWERED_MAX:
            del flow.sent[next(iter(flow.sent))]
        flow.sent_at = self._turn.now
        flow.sent_bytes = size
        flow.due = self._turn.now + (ANSWER_S + size / self.rate_min) * flow.patience

    def expect(self, owner: NodeId, sequence: int, pairs: Sequence[bytes]) -> None:
        """Long records that an owner was sent before they became hints may still be under way.

        They are not sent again before that has failed, and its answer drops their rows.
        """
        rows = self._hints.rows.get(owner, {})
        items = iter(pairs)
        sent = {key: identity(record) for key, record in zip(items, items, strict=True) if key in rows}
        if not sent:
            return
        flow = self._flows.get(owner)
        if flow is None:
            flow = self._flows[owner] = _Flow(self.rate_min)
        if not flow.waiting or flow.sequence:
            self._await(flow, sequence, sent, size=sum(map(len, pairs)))

    def on_ack(self, peer: NodeId, sequences: list[int]) -> None:
        """An owner has records in its log: if they are ours, their rows go."""
        flow = self._flows.get(peer)
        if flow is None or not flow.sent:
            return
        for sequence in sequences:
            sent = flow.sent.pop(sequence, None)
            if sent is not None:
                if flow.waiting and sequence == flow.sequence:
                    self._answered(flow)
                self._parking.when_loaded(list(sent), partial(self._delivered, peer, sent))

    def _answered(self, flow: _Flow) -> None:
        now = self._turn.now
        latency = now - flow.sent_at
        target = self.latency_target_s
        if flow.sent_bytes > 2 * BATCH_BYTES_MAX:
            # A single long record takes its time on the way.
            target += flow.sent_bytes / self.rate_max
        if latency <= target:
            flow.rate = min(flow.rate * 1.5, self.rate_max)
        else:
            flow.rate = max(flow.rate / 2, self.rate_min)
        flow.next_at = now + max(flow.sent_bytes / flow.rate - latency, 0.0)
        flow.waiting = False
        flow.patience = 1

    def _delivered(self, owner: NodeId, sent: dict[bytes, bytes]) -> None:
        # A key that was written again meanwhile keeps its row: the owner may lack that later record.
        store = self._store
        self._drop(owner, [key for key, which in sent.items() if identity(store.get(key)) == which], reason=None)

    def _pass_on(self, owner: NodeId, keys: list[bytes]) -> bool:
        """An owner is no replica of these keys any more: those who are may lack them instead. Returns whether there was one for each.

        There is room for these rows whatever `max-hints-size` says: where one was, a few may be.
        """
        store, hints, turn = self._store, self._hints, self._turn
        excluded = self.set_aside | hints.closed
        passed: list[bytes] = []
        for key in keys:
            replicas = [node for node in self._replicas(store.partition(key)) if node not in excluded]
            if not replicas:
                continue
            for node in replicas:
                if node != self._me:
                    hints.restore(node, (key,), turn.now, changed=True)
                    turn.log.append((LOG_HINTS, _encode([node, [key, store.get(key)]])))
            passed.append(key)
        self._drop(owner, passed, reason="moved")
        return len(passed) == len(keys)

    def _drop(self, owner: NodeId, keys: list[bytes], *, reason: str | None) -> None:
        dropped = self._hints.drop(owner, keys, reason=reason)
        if not dropped:
            return
        store = self._store
        guests = [key for key in dropped if not self._is_replica(store.partition(key)) and not self._hints.is_held(key)]
        for key in guests:
            store.forget(store.partition(key), key)
        if guests:
            # First: a power cut may leave only one of the two, and a copy without its row would stay for ever.
            self._turn.log.append((LOG_KEYS_DROPPED, _encode(guests)))
        self._turn.log.append((LOG_HINTS_DROPPED, _encode([owner, dropped])))

    def _rest(self, flow: _Flow) -> None:
        flow.waiting = False
        flow.rate = self.rate_min
        flow.next_at = self._turn.now + REST_AFTER_FAILURE_S * flow.patience
        flow.patience = min(2 * flow.patience, PATIENCE_MAX)

    def on_refused(self, peer: NodeId, sequence: int) -> None:
        """An owner did not take a batch: it gets time."""
        flow = self._flows.get(peer)
        if flow is not None and flow.sent.pop(sequence, None) is not None and flow.waiting and flow.sequence == sequence:
            self._rest(flow)

    def on_peer_closed(self, peer: NodeId) -> None:
        """The link to an owner broke: what it was sent may have been lost."""
        flow = self._flows.get(peer)
        if flow is not None:
            flow.sent.clear()
            if flow.waiting and flow.sequence:
                self._rest(flow)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        due = []
        for owner in self._hints.rows:
            if owner in self.usable or owner in self.set_aside:
                flow = self._flows.get(owner)
                if flow is None:
                    due.append(self._turn.now)
                elif not flow.waiting:
                    due.append(flow.next_at)
                elif flow.sequence:
                    due.append(flow.due)
                # Else its records are on their way from the disk, and their arrival is a turn.
        return min(due) if due else None
