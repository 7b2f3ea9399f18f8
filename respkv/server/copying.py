"""Partitions on their way between replicas: read from those that have them, or handed on to those that keep them. Pure.

Rule 1: a partition has been copied when N - W + 1 of the replicas that are read were read from end to end and lacked nothing
themselves: every acknowledged write is on W nodes, so one of those has it. Or when all of them were read: more there is not.
Where no read may go behind an earlier one, R of them, if that is more: what was read is on N - R + 1, acknowledged or not.
Rule 2: what is copied is merged, never assigned, so writes that arrive meanwhile are safe.
Rule 3: a copy is dropped only when every node that keeps the key has acknowledged that very version.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
from xxhash import xxh64_intdigest

from respkv.commands.partition_walk import HASH_MAX
from respkv.coordinator.operations import Ask, Call, Steps, Until, is_error
from respkv.coordinator.read_repairs import BLOCKING
from respkv.coordinator.replica import check_pairs, decode_pairs
from respkv.errors import PeerProtocolError
from respkv.server.background import rest, step
from respkv.server.exchanges import is_sendable
from respkv.server.turns import LOG_KEYS_DROPPED, LOG_WRITES
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from respkv.coordinator.operations import Step
    from respkv.coordinator.routes import RouteTable
    from respkv.ids import NodeId
    from respkv.server.node import Node
    from respkv.server.rows import Rows

T = TypeVar("T")

PIECE_ROWS = 150
"""About half a millisecond of work on both sides."""
PIECE_BYTES_MAX = 256 * 1024
KEPT = b"+OK\r\n"
DOUBTED = b"-ERR what it holds may have to be set aside\r\n"
ANSWER_S = 5.0
PATIENCE_MAX = 32
"""How many times as long a node is waited for that did not answer several times in a row: its disk is slow, or the records are long."""
PIECE_S = 2.0
"""Where rows take longer to read than this, they are told in several answers."""
RETRY_S = 0.1
_encode = msgspec.msgpack.Encoder().encode


class Position(msgspec.Struct, array_like=True, order=True):
    """Where to go on: a partition and a hash in it. Of the partitions in whose preference list the caller stands in [low, high)."""

    partition: int
    first_hash: int
    low: int
    high: int

    def is_in_ring(self, size: int) -> bool:
        """Whether there is such a place."""
        return 0 <= self.partition < size and 0 <= self.first_hash <= HASH_MAX and 0 <= self.low <= self.high


class Piece(msgspec.Struct, array_like=True):
    """Some rows, and where to go on; None at the end."""

    pairs: list[bytes]
    next: Position | None
    is_whole: bool
    """Whether the node that tells lacks nothing itself, and could send all that is there."""


_decode_position = border.reader(Position)
_decode_piece = border.reader(Piece)


def places(table: RouteTable, node: NodeId) -> list[int]:
    """In which place of each partition's preference list a node stands."""
    return [table.preference(partition).index(node) for partition in range(len(table.holds))]


class Copying:
    """Reads the partitions in whose preference list this node stands in [low, high) from the others."""

    __slots__ = (
        "_done",
        "_high",
        "_low",
        "_node",
        "_patience",
        "_positions",
        "_retry_at",
        "_running",
        "_whole",
        "is_done",
        "is_over",
        "keys_total",
    )

    def __init__(self, node: Node, *, low: int, high: int) -> None:
        """Nothing is read yet."""
        self._node = node
        self._low, self._high = low, high
        self._positions: dict[NodeId, Position] = {}
        self._patience: dict[NodeId, int] = {}
        self._running: set[NodeId] = set()
        self._done: set[NodeId] = set()
        """Nodes that were read from end to end, and what they told is in the log: not durably, which is the caller's to wait for."""
        self._whole: set[NodeId] = set()
        """Those of them that lacked nothing themselves meanwhile."""
        self._retry_at = 0.0
        self.keys_total = 0
        self.is_done = False
        self.is_over = False
        """Nobody wants it any more: what still arrives is let go."""

    def tick(self) -> bool:
        """Copy from those who can be reached. Returns whether that was all."""
        node = self._node
        now = node.context.turn.now
        if self.is_done or now < self._retry_at:
            return self.is_done
        self._retry_at = now + RETRY_S
        sources = self._sources()
        if self._is_complete(sources):
            self.is_done = True
            return True
        for source in sorted(self._to_read(sources) - self._whole - self._running):
            self._running.add(source)
            node.operations.start(self._copy(source), on_done=lambda _, source=source: self._running.discard(source))  # type: ignore[misc]
        return False

    def _to_read(self, sources: list[frozenset[NodeId]]) -> set[NodeId]:
        """Whom to read now. Where enough of those that can be reached lack nothing, not the others.

        What those hold may be what damage has left, and older than deletions that are forgotten everywhere.
        """
        usable = self._node.topology.usable()
        lacking = {source for source in usable if source != self._node.me and self._lacks_data(source)}
        chosen: set[NodeId] = set()
        for others in sources:
            able = others & usable - lacking
            chosen |= able if len(able) >= self._needed() else others & usable - (self._done & lacking)
        return chosen

    def next_due(self) -> float:
        """When `tick` is to be called again."""
        return self._retry_at

    def sources_count(self) -> int:
        """How many nodes were read from end to end."""
        return len(self._done)

    def percent(self) -> int:
        """How far it is, by the source that is least far."""
        sources = self._to_read(self._sources()) - self._done
        if not sources:
            return 100
        size = self._node.cluster.ring.size
        return min(100 * (self._positions[source].partition if source in self._positions else 0) // size for source in sources)

    def _sources(self) -> list[frozenset[NodeId]]:
        """The other replicas that are read, of each of the partitions."""
        table, me = self._node.coordinator.table, self._node.me
        assert table is not None
        wanted = [partition for partition, place in enumerate(places(table, me)) if self._low <= place < self._high]
        return [replicas - {me} for replicas in {frozenset(table.primaries(partition)) for partition in wanted}]

    def _is_complete(self, sources: list[frozenset[NodeId]]) -> bool:
        needed = self._needed()
        return all(len(others & self._whole) >= needed or others <= self._done for others in sources)

    def _needed(self) -> int:
        coordinator = self._node.coordinator
        quorum = coordinator.quorum
        needed = max(quorum.n - quorum.w + 1, 1)
        if 2 * quorum.r > quorum.n and not coordinator.compensation.sloppy and coordinator.repairs.mode == BLOCKING:
            needed = max(needed, quorum.r)
        return needed

    def _lacks_data(self, source: NodeId) -> bool:
        return self._node.topology.lacks_data(source)

    def _copy(self, source: NodeId) -> Steps:
        node = self._node
        position: Position | None = self._positions.get(source, Position(0, 0, self._low, self._high))
        is_whole = True
        while position is not None:
            yield from self._wait_for_room()
            if source not in node.topology.links:
                # Nobody would say that it cannot hear the question.
                return b""
            asked_at = node.context.turn.now
            patience = self._patience.get(source, 1)
            answers = yield Ask([source], "rows", _encode(position), ANSWER_S * patience, partial(self._read, position))
            piece = answers[source]
            self._patience[source] = next_patience(patience, is_answered=piece is not None, since=asked_at, now=node.context.turn.now)
            # One that is to set aside what it holds may not know it yet.
            if piece is None or is_error(piece) or self.is_over or source in node.replica.distrusted:
                return b""
            self._take(piece.pairs)
            yield from _wait_for_tables(node)
            is_whole = is_whole and piece.is_whole
            position = piece.next
            if position is not None and is_whole:
                self._positions[source] = position
            # The sources share one pace.
            yield from rest(node, sum(map(len, piece.pairs)), since=asked_at, sharers=len(self._running))
        self._positions.pop(source, None)
        self._done.add(source)
        if is_whole and not self._lacks_data(source):
            self._whole.add(source)
        node.context.turn.events.append(("verbose", f"copied all from {source[:8]}"))
        return b""

    def _wait_for_room(self) -> Generator[Step, Any, None]:
        """Copies are writes: where the disk is nearly full there are none."""
        replica = self._node.replica
        while replica.writes_disabled and not self.is_over:
            yield Until(lambda: self.is_over or not replica.writes_disabled, self._node.context.turn.now + ANSWER_S)

    def _read(self, position: Position, answer: bytes) -> Piece:
        """What a source tells from a position on: it goes forward, or copying would never end."""
        node = self._node
        piece = _decode_piece(answer)
        check_pairs(piece.pairs, wall_ms=node.context.turn.wall_ms)
        if piece.next is not None and not (piece.next > position and piece.next.is_in_ring(len(node.store.shards))):
            msg = "goes on where nothing can be"
            raise PeerProtocolError(msg)
        return piece

    def _take(self, pairs: list[bytes]) -> None:
        if pairs:
            self.keys_total += len(pairs) >> 1
            keep(self._node, pairs, lambda: None)


def _wait_for(node: Node, found: list[T]) -> Generator[Step, Any, T]:
    """Wait until something has been found."""
    while not found:
        yield Until(lambda: bool(found), node.context.turn.now + RETRY_S)
    return found[0]


def _wait_for_tables(node: Node) -> Generator[Step, Any, None]:
    """Of some records the merge waits for the tables: a disk that is slower than the sources would fill the queue in front of it."""
    merged: list[bool] = []
    node.parking.behind_all(lambda: merged.append(True))
    yield from _wait_for(node, merged)


def next_patience(patience: int, *, is_answered: bool, since: float, now: float) -> int:
    """How long to wait the next time: longer for who did not answer in time, but not for a link that broke meanwhile."""
    if is_answered:
        return 1
    return min(2 * patience, PATIENCE_MAX) if now >= since + ANSWER_S * patience else patience


def keep(node: Node, pairs: list[bytes], then: Callable[[], None]) -> None:
    """Merge records into this node's copies. `then` is called once they are in its log."""
    node.coordinator.take_in(pairs, (LOG_WRITES, _encode(pairs)), then)


class HandingOn:
    """Sends the partitions in whose preference list this node stands in [low, high) to the first `low`, and drops them if it is to."""

    __slots__ = ("_drops", "_high", "_low", "_node", "_partition", "_patience", "_running", "is_done", "is_over", "keys_total")

    def __init__(self, node: Node, *, low: int, high: int, drops: bool) -> None:
        """Nothing is sent yet."""
        self._node = node
        self._low, self._high = low, high
        self._drops = drops
        self._partition = 0
        self._patience = 1
        self._running = False
        self.keys_total = 0
        self.is_done = False
        self.is_over = False
        """Nobody wants it any more."""

    def tick(self) -> bool:
        """Go on. Returns whether all is done."""
        if not self._running and not self.is_done:
            self._running = True
            self._node.operations.start(self._run(), on_done=self._ended)
        return self.is_done

    def _ended(self, _: bytes) -> None:
        self._running = False

    def percent(self) -> int:
        """How far it is."""
        return 100 if self.is_done else 100 * self._partition // self._node.cluster.ring.size

    def _run(self) -> Steps:
        table = self._node.coordinator.table
        assert table is not None
        mine = places(table, self._node.me)
        while self._partition < len(mine):
            if self._low <= mine[self._partition] < self._high:
                is_clean = yield from self._hand_on(self._partition)
                if self.is_over:
                    return b""
                if not is_clean:
                    # Something was written meanwhile, or a keeper is away: once more.
                    yield Until(lambda: self.is_over, self._node.context.turn.now + RETRY_S)
                    continue
            self._partition += 1
        self.is_done = True
        return b""

    def _hand_on(self, partition: int) -> Generator[Step, Any, bool]:
        """One way through a partition. Returns whether all of it was taken, and dropped if that is wanted."""
        node = self._node
        is_clean, first_hash = True, 0
        while not self.is_over:
            rows, next_hash = yield from self._read(partition, first_hash)
            if rows:
                began = node.context.turn.now
                if not (yield from self._send(partition, rows)):
                    return False
                self.keys_total += len(rows)
                if self._drops:
                    is_clean = (yield from self._drop(partition, rows)) and is_clean
                yield from rest(node, sum(len(key) + len(record) for key, record in rows), since=began)
            if next_hash is None:
                return is_clean
            first_hash = next_hash
        return False

    def _read(self, partition: int, first_hash: int) -> Generator[Step, Any, tuple[Rows, int | None]]:
        found: list[tuple[Rows, int | None]] = []
        self._node.rows.read(partition, first_hash, PIECE_ROWS, lambda rows, next_hash: found.append((rows, next_hash)))
        return (yield from _wait_for(self._node, found))

    def _send(self, partition: int, rows: Rows) -> Generator[Step, Any, bool]:
        """See to it that all who keep the partition have these rows. Returns whether they have."""
        node = self._node
        table = node.coordinator.table
        assert table is not None
        keepers = table.preference(partition)[: self._low]
        if not node.topology.usable().issuperset(keepers):
            return False
        start = 0
        while start < len(rows):
            pairs: list[bytes] = []
            size = 0
            while start < len(rows) and size < PIECE_BYTES_MAX:
                pairs += rows[start]
                size += len(pairs[-2]) + len(pairs[-1])
                start += 1
            asked_at = node.context.turn.now
            answers = yield Ask(keepers, "keep", _encode(pairs), timeout_s=ANSWER_S * self._patience)
            now = node.context.turn.now
            self._patience = next_patience(self._patience, is_answered=None not in answers.values(), since=asked_at, now=now)
            if any(answer != KEPT for answer in answers.values()):
                return False
        return True

    def _drop(self, partition: int, rows: Rows) -> Generator[Step, Any, bool]:
        """Drop what has been sent. Returns whether that was all of it: not what has changed meanwhile."""
        node = self._node
        store, turn = node.store, node.context.turn
        found: list[bool] = []

        def drop() -> None:
            if self.is_over or node.replica.holds[partition]:
                # It belongs here again.
                found.append(False)
                return
            unchanged = [key for key, record in rows if store.get(key) == record]
            # A copy with a hint row belongs to its owner: it goes when that has it.
            dropped = [key for key in unchanged if not node.hints.is_held(key)]
            for key in dropped:
                store.forget(partition, key)
            if dropped:
                turn.log.append((LOG_KEYS_DROPPED, _encode(dropped)))
            found.append(len(unchanged) == len(rows))

        node.parking.when_loaded([key for key, _ in rows], drop)
        return (yield from _wait_for(node, found))


# --- the other end


def serve_keep(node: Node, call: Call) -> None:
    """The call "keep": take records of partitions that this node holds."""
    pairs = decode_pairs(call.argument, wall_ms=node.context.turn.wall_ms)
    holds, store = node.replica.holds, node.store
    if call.source in node.replica.distrusted or node.replica.writes_disabled or not all(holds[store.partition(key)] for key in pairs[::2]):
        call.answer(b"-ERR they cannot be kept here\r\n")
    else:
        keep(node, pairs, lambda: call.answer(KEPT))


def serve_rows(node: Node, call: Call) -> None:
    """The call "rows": rows of the partitions that the caller wants and that this node is read for, from a position on.

    Nothing is told to a caller that believes in more replicas than this node does: one of the two has not heard of a change of N.
    Nor by a node whose own copies may be older than deletions that are forgotten everywhere: whoever copied them would bring them back.
    """
    position, table = _decode_position(call.argument), node.coordinator.table
    assert table is not None
    if not position.is_in_ring(len(node.store.shards)):
        msg = "there is no such position"
        raise PeerProtocolError(msg)
    if position.high > table.held_n:
        call.answer(b"-ERR it knows of fewer replicas\r\n")
    else:
        node.operations.start(_serve(node, call, position), on_done=lambda _: None)


def _serve(node: Node, call: Call, position: Position) -> Steps:
    yield from step(node)
    _Serving(node, call, position).begin()
    return b""


class _Serving:
    """One answer, gathered from as many partitions as it has room for."""

    __slots__ = ("_began", "_call", "_is_whole", "_node", "_pairs", "_position", "_size", "_waiting")

    def __init__(self, node: Node, call: Call, position: Position) -> None:
        self._began = node.context.turn.now
        self._node = node
        self._call = call
        self._position: Position | None = position
        self._pairs: list[bytes] = []
        self._is_whole = True
        """Whether all could be told that was met."""
        self._size = 0
        self._waiting = False

    def begin(self) -> None:
        """Find the first partition that is wanted."""
        position = self._position
        assert position is not None
        if not self._is_wanted(position.partition, position):
            self._position = self._following(position)
        self.advance()

    def _is_wanted(self, partition: int, position: Position) -> bool:
        node = self._node
        table = node.coordinator.table
        assert table is not None
        if not 0 <= partition < len(table.holds):
            return False
        preference = table.preference(partition)
        return node.me in preference[: table.n] and self._call.source in preference[position.low : position.high]

    def _following(self, position: Position) -> Position | None:
        """The start of the next partition that is wanted."""
        for partition in range(position.partition + 1, len(self._node.store.shards)):
            if self._is_wanted(partition, position):
                return Position(partition, 0, position.low, position.high)
        return None

    def advance(self) -> None:
        """Read until the answer is full. What is in memory comes at once, so this is a loop and no recursion."""
        while not self._waiting:
            position = self._position
            is_late = self._node.context.turn.now >= self._began + PIECE_S
            if position is None or is_late or self._size >= PIECE_BYTES_MAX or len(self._pairs) >= 2 * PIECE_ROWS:
                rebuild = self._node.rebuild
                piece = Piece(self._pairs, position, is_whole=self._is_whole and not rebuild.lacks_data)
                self._call.answer(DOUBTED if rebuild.may_set_aside else _encode(piece))
                return
            self._waiting = True
            came_at_once = True

            def then(rows: Rows, next_hash: int | None, position: Position = position) -> None:
                self._take(position, rows, next_hash)
                if not came_at_once:  # noqa: B023 - the cell of this round: the loop has ended by the time it matters
                    self.advance()

            self._node.rows.read(position.partition, position.first_hash, PIECE_ROWS, then)
            came_at_once = False

    def _take(self, position: Position, rows: Rows, next_hash: int | None) -> None:
        self._waiting = False
        for key, record in rows:
            if self._size >= PIECE_BYTES_MAX and (place := xxh64_intdigest(key)) != xxh64_intdigest(self._pairs[-2]):
                # Rows may be long: the next answer begins here.
                next_hash = place
                break
            if not is_sendable(self._node, self._call.source, key, record):
                self._is_whole = False
                continue
            self._pairs += (key, record)
            self._size += len(key) + len(record)
        if next_hash is not None:
            self._position = Position(position.partition, next_hash, position.low, position.high)
        else:
            self._position = self._following(position)
