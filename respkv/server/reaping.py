"""Let go of deletions that all replicas have: the leader's part and everybody's answers. Pure. The rules are in `repair.remains`.

Rule 1: nothing goes unless all members of the ring are up, but for those that are rebuilt when they return; unless all lack
nothing, hold no hints, and have done so for `tombstone-grace`.
Rule 2: a node drops what it is told to only if it still holds exactly what it was asked about; what it drops is in its log.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.commands.published import hints_outstanding
from respkv.config.cluster_value import marked_nodes
from respkv.coordinator.operations import Ask, Call, Rest, Steps, Until, is_error
from respkv.errors import PeerProtocolError
from respkv.repair.exchange import item_of
from respkv.repair.remains import KEEP, REAP, SETTLE, Look, Reap, is_ripe, plan, stamp_above
from respkv.server.background import step
from respkv.server.turns import LOG_KEYS_DROPPED, LOG_REAPED, LOG_WRITES
from respkv.transport import border
from respkv.versions.records import is_remains
from respkv.versions.vectors import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from respkv.ids import NodeId
    from respkv.server.node import Node

LOOK_S = 0.5
ANSWER_S = 5.0
REST_S = 6.0
"""Links on which nothing was heard for so long are closed, and what was on its way there is gone."""
PASS_PAUSE_S = 5.0
"""Between two passes through all partitions."""
KEYS_PER_BATCH = 200
KEYS_PER_STEP = 250
BATCHES_MAX = 40
SCAN_ROWS = 500
READ_S = 30.0
SCAN_PAUSE_S = 0.05
REASONS = ("a node is away", "a node lacks data", "hints are held", "replication-factor is changing", "this node is short of room")
STAMP_BYTES = 8
_encode = msgspec.msgpack.Encoder().encode
_decode_look = border.reader(Look)
_decode_reap = border.reader(Reap)


@dataclass(slots=True)
class ReapingStatistics:
    """Counters since the start of the process."""

    reaped_total: int = 0
    """Records that this node dropped."""
    settled_total: int = 0
    """Records with siblings that it shortened."""
    unconfirmed_total: int = 0
    """Keys that it asked about as their leader, and of which not all had the same."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    key: bytes
    hash: int
    plan: int
    below: bytes


class Reaping:
    """The remains of a node."""

    __slots__ = ("_calm_since", "_found", "_look_at", "_node", "_pass_at", "_scan_at", "_selects", "_under_way", "statistics", "unrest")

    def __init__(self, node: Node) -> None:
        """Nothing is known of the others yet."""
        self._node = node
        self._look_at = 0.0
        self._calm_since: float | None = None
        self._selects = False
        """Whether a pass through the partitions is under way."""
        self._pass_at = 0.0
        self._found: list[_Candidate] = []
        self._scan_at: dict[int, float] = {}
        """When the tables are to be looked through again for each partition."""
        self._under_way: list[set[bytes]] = []
        """The keys of each batch that is on its way."""
        self.unrest = REASONS[0]
        """Why nothing may be reaped now, or empty."""
        self.statistics = ReapingStatistics()

    def tick(self) -> None:
        """Once a turn: begin a pass, if all is calm."""
        node = self._node
        now = node.context.turn.now
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        self.unrest = self._unrest()
        if self.unrest:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if not self._selects and now >= self._pass_at and self._is_calm():
            self._selects = True
            node.operations.start(self._pass(), on_done=self._pass_ended)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._look_at

    def figures(self) -> dict[str, int | str]:
        """What INFO tells."""
        counted, store = self.statistics, self._node.store
        return {
            "tombstones_reaped": counted.reaped_total,
            "siblings_settled": counted.settled_total,
            "reaping_unconfirmed": counted.unconfirmed_total,
            "reaping_waits": self.unrest,
            "remains": sum(map(len, store.remains)),
            "remains_on_disk": sum(store.remains_dropped),
        }

    # --- may it?

    def _members(self) -> list[NodeId]:
        """Who has to agree: not who is away and sets aside all that it holds when it returns."""
        node = self._node
        gone = marked_nodes(node.cluster.value) - node.topology.usable()
        return [member.node for member in node.cluster.ring.members if member.node not in gone]

    def _unrest(self) -> str:
        """Why nothing may be reaped now, or nothing."""
        node = self._node
        members = self._members()
        if not node.topology.usable().issuperset(members):
            return REASONS[0]
        if node.topology.rebuilding or any(node.topology.lacks_data(member) for member in members if member != node.me):
            return REASONS[1]
        if hints_outstanding(members, me=node.me, membership=node.membership, hints=node.hints):
            return REASONS[2]
        if node.cluster.value.resize is not None:
            return REASONS[3]
        return REASONS[4] if node.replica.writes_disabled else ""

    def _grace_s(self) -> float:
        settings = self._node.settings
        return float(max(settings.tombstone_grace, 2 * settings.request_timeout / 1000))

    def _is_calm(self) -> bool:
        return self._calm_since is not None and self._node.context.turn.now - self._calm_since >= self._grace_s()

    # --- what the leader does

    def _pass_ended(self, _: bytes) -> None:
        self._selects = False
        self._pass_at = self._node.context.turn.now + PASS_PAUSE_S

    def _pass(self) -> Steps:
        """Go through all partitions that this node leads, and begin a batch for every few hundred keys that are ripe."""
        node = self._node
        table = node.coordinator.table
        assert table is not None
        members = set(self._members())
        leaders = [next((primary for primary in table.primaries(number) if primary in members), None) for number in range(len(table.holds))]
        led = [number for number, leader in enumerate(leaders) if leader == node.me]
        looked_at = 0
        for partition in led:
            held = list(node.store.remains[partition])
            for start in range(0, len(held), KEYS_PER_STEP):
                self._select(held[start : start + KEYS_PER_STEP])
                yield from self._begin_batches(KEYS_PER_BATCH)
                looked_at += KEYS_PER_STEP if start else len(held)
                if looked_at >= KEYS_PER_STEP:
                    looked_at = 0
                    yield from step(node)
            if node.store.remains_dropped[partition] and node.context.turn.now >= self._scan_at.get(partition, 0.0):
                yield from self._scan(partition)
            if not self._is_calm():
                self._found.clear()
                return b""
        yield from self._begin_batches(1)
        return b""

    def _select(self, keys: Iterable[bytes]) -> None:
        """Find out which of these keys are ripe."""
        store = self._node.store
        for key in keys:
            record = store.get(key)
            decided = self._decided(record)
            if decided != KEEP and not any(key in under_way for under_way in self._under_way) and not self._node.hints.is_held(key):
                self._found.append(_Candidate(key, item_of(key, record).hash, decided, stamp_above(record)))

    def _decided(self, record: bytes) -> int:
        """What is to become of a record now."""
        node = self._node
        wall_ms = node.context.turn.wall_ms
        decided = plan(record, wall_ms=wall_ms)
        if decided == KEEP or not is_ripe(record, clock=node.clock.last, wall_ms=wall_ms, grace_ms=int(self._grace_s() * 1000)):
            return KEEP
        return decided

    def _scan(self, partition: int) -> Generator[Rest | Until, Any, None]:
        """Look for ripe remains of a partition that only the tables hold."""
        node = self._node
        store = node.store
        self._scan_at[partition] = node.context.turn.now + self._grace_s()
        store.remains_dropped[partition] = 0
        first_hash: int | None = 0
        while first_hash is not None:
            scanned: list[tuple[list[tuple[bytes, bytes]], int | None]] = []
            node.scan_tables(partition, first_hash, SCAN_ROWS, lambda rows, after, scanned=scanned: scanned.append((rows, after)))
            if not (yield Until(lambda scanned=scanned: bool(scanned), node.context.turn.now + READ_S)):  # type: ignore[misc]
                store.remains_dropped[partition] += 1
                return
            rows, first_hash = scanned[0]
            cold = [(key, record) for key, record in rows if is_remains(record) and key not in store.shards[partition]]
            ripe = [key for key, record in cold if self._decided(record) != KEEP]
            store.remains_dropped[partition] += len(cold) - len(ripe)
            # Once they are in memory they are what this node holds, and not only what its tables do.
            node.parking.when_loaded(ripe, partial(self._select, ripe))
            yield from self._begin_batches(KEYS_PER_BATCH)
            yield Rest(node.context.turn.now + SCAN_PAUSE_S)

    def _begin_batches(self, size_min: int) -> Generator[Rest | Until, Any, None]:
        """Begin batches of what was found, as long as there are so many keys."""
        node = self._node
        while len(self._found) >= size_min:
            if len(self._under_way) >= BATCHES_MAX:
                yield Until(lambda: len(self._under_way) < BATCHES_MAX, node.context.turn.now + REST_S)
                continue
            batch, self._found = self._found[:KEYS_PER_BATCH], self._found[KEYS_PER_BATCH:]
            keys = {candidate.key for candidate in batch}
            self._under_way.append(keys)
            node.operations.start(self._reap(batch), on_done=lambda _, keys=keys: self._under_way.remove(keys))  # type: ignore[misc]
            # No more than one batch a turn, and fewer when clients wait longer than usual.
            yield Rest(node.context.turn.now + (LOOK_S if node.pulse.foreground.is_strained else 0.0))

    def _reap(self, batch: list[_Candidate]) -> Steps:
        """Look, rest, reap."""
        node = self._node
        members, calm_since = self._members(), self._calm_since
        epoch, n = node.cluster.ring.epoch, node.coordinator.quorum.n
        keys, hashes, plans = [each.key for each in batch], [each.hash for each in batch], [each.plan for each in batch]
        answers = yield Ask(members, "reap-look", _encode(Look(epoch, n, keys, hashes, plans)), timeout_s=ANSWER_S)
        told = [answers[member] for member in members]
        if any(answer is None or is_error(answer) or len(answer) != len(batch) for answer in told):
            return b""
        confirmed = [each for index, each in enumerate(batch) if all(answer[index] for answer in told)]
        self.statistics.unconfirmed_total += len(batch) - len(confirmed)
        yield Rest(node.context.turn.now + REST_S)
        if not confirmed or calm_since is None or self._calm_since != calm_since or epoch != node.cluster.ring.epoch:
            return b""
        below = max(each.below for each in confirmed)
        keys, hashes, plans = [each.key for each in confirmed], [each.hash for each in confirmed], [each.plan for each in confirmed]
        yield Ask(members, "reap", _encode(Reap(epoch, n, below, keys, hashes, plans)), timeout_s=ANSWER_S)
        return b""

    # --- what everybody answers

    def table(self) -> dict[str, Callable[[Call], None]]:
        """The handlers of calls, by name."""
        return {"reap-look": self._look, "reap": self._told_to_reap}

    def _has_other_ring(self, told: Look | Reap) -> bool:
        node = self._node
        if not len(told.keys) == len(told.hashes) == len(told.plans) <= KEYS_PER_BATCH:
            msg = "remains of several lengths"
            raise PeerProtocolError(msg)
        return (told.epoch, told.n) != (node.cluster.ring.epoch, node.coordinator.quorum.n)

    def _look(self, call: Call) -> None:
        """The call "reap-look": a byte for each key, 1 if nothing here speaks against letting it go; told once that is on the disk."""
        look = _decode_look(call.argument)
        node = self._node
        if self._has_other_ring(look) or node.topology.rebuilding or node.replica.writes_disabled:
            call.answer(b"-ERR another ring, or it lacks data or room\r\n")
            return

        def answer() -> None:
            told = bytes(map(self._agrees, look.keys, look.hashes, look.plans))
            node.context.turn.when_durable(lambda: call.answer(told))

        node.parking.when_loaded(look.keys, answer)

    def _agrees(self, key: bytes, expected: int, decided: int) -> bool:
        node = self._node
        record = node.store.get(key)
        if node.hints.is_held(key):
            return False
        if not node.replica.holds[node.store.partition(key)]:
            return not record
        return item_of(key, record).hash == expected and plan(record, wall_ms=node.context.turn.wall_ms) == decided

    def _told_to_reap(self, call: Call) -> None:
        """The call "reap": drop, or shorten, what is still the same."""
        reap = _decode_reap(call.argument)
        node = self._node
        if self._has_other_ring(reap) or len(reap.below) != STAMP_BYTES or int.from_bytes(reap.below) > node.clock.last:
            call.answer(b"-ERR another ring, or a stamp that is none\r\n")
            return

        def drop() -> None:
            self._drop(reap)
            call.answer(b"+OK\r\n")

        node.parking.when_loaded(reap.keys, drop)

    def _drop(self, reap: Reap) -> None:
        node = self._node
        store, log = node.store, node.context.turn.log
        gone: list[bytes] = []
        shortened: list[bytes] = []
        if reap.below > store.reaped_below:
            store.reaped_below = reap.below
            log.append((LOG_REAPED, reap.below))
        for key, expected, decided in zip(reap.keys, reap.hashes, reap.plans, strict=True):
            partition, record = store.partition(key), store.get(key)
            if not node.replica.holds[partition] or item_of(key, record).hash != expected:
                continue
            if decided == REAP:
                store.forget(partition, key, by_all=True)
                gone.append(key)
            elif decided == SETTLE:
                store.settle(partition, key, settled(record))
                shortened += (key, settled(record))
        if gone:
            log.append((LOG_KEYS_DROPPED, _encode(gone)))
        if shortened:
            log.append((LOG_WRITES, _encode(shortened)))
        self.statistics.reaped_total += len(gone)
        self.statistics.settled_total += len(shortened) >> 1
