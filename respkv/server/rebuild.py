"""A node that lacks data it may have acknowledged copies its partitions from their other replicas before it votes. Pure.

That is a node that found its log damaged, one whose directory was emptied, and one that is new: the members of a new
cluster copy nothing from each other and are done at once.

Rule 1: until it is done the node stores what it is sent, but neither its acknowledgements nor its answers count.
Rule 2: a partition is done when N - W + 1 of its other replicas were read from end to end that lacked nothing themselves:
every acknowledged write is on W nodes, so one of those has it. Or when all of them were read: more there is not.
Rule 3: what is copied is merged, never assigned, so writes that arrive meanwhile are safe.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from respkv.commands.partition_walk import HASH_MAX
from respkv.coordinator.operations import Ask, Call, Steps, is_error
from respkv.coordinator.replica import check_pairs
from respkv.errors import PeerProtocolError
from respkv.server.turns import LOG_WRITES
from respkv.transport import border

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.server.node import Node

MARKER_FILE = "complete"
PIECE_ROWS = 1000
PIECE_BYTES_MAX = 512 * 1024
ANSWER_S = 5.0
RETRY_S = 0.1


class Position(msgspec.Struct, array_like=True, order=True):
    """Where to go on: a partition and a hash in it."""

    partition: int
    first_hash: int

    def is_in_ring(self, size: int) -> bool:
        """Whether there is such a place."""
        return 0 <= self.partition < size and 0 <= self.first_hash <= HASH_MAX


class Piece(msgspec.Struct, array_like=True):
    """Some rows, and where to go on; None at the end."""

    pairs: list[bytes]
    next: Position | None
    is_whole: bool
    """Whether the node that tells lacks nothing itself."""


_decode_position = border.reader(Position)
_decode_piece = border.reader(Piece)


class Rebuild:
    """Copies what this node lacks."""

    __slots__ = ("_done", "_node", "_positions", "_retry_at", "_running", "_whole", "keys_total", "needed")

    def __init__(self, node: Node) -> None:
        """Nothing is lacking."""
        self._node = node
        self.needed = False
        self._positions: dict[NodeId, Position] = {}
        self._running: set[NodeId] = set()
        self._done: set[NodeId] = set()
        """Nodes that were read from end to end."""
        self._whole: set[NodeId] = set()
        """Those of them that lacked nothing themselves meanwhile."""
        self._retry_at = 0.0
        self.keys_total = 0

    def begin(self, reason: str) -> None:
        """From now on this node does not count, until it is rebuilt."""
        node = self._node
        self.needed = True
        node.topology.rebuilding = node.replica.rebuilding = True
        node.topology.redraw_due = True
        node.membership.publish("rebuilding", 1)
        node.context.turn.events.append(("warning", f"rebuilding from the other replicas, and not counting until it is done: {reason}"))

    def tick(self) -> None:
        """Once a turn: copy from those who can be reached, and see whether that was all."""
        node = self._node
        now = node.context.turn.now
        if not self.needed or now < self._retry_at:
            return
        self._retry_at = now + RETRY_S
        sources = self._sources()
        if self._is_complete(sources):
            self._finish()
            return
        usable = node.topology.usable()
        for source in sorted(set().union(*sources) - self._whole - self._running):
            if source in usable and not (source in self._done and self._lacks_data(source)):
                self._running.add(source)
                node.operations.start(self._copy(source), on_done=lambda _, source=source: self._running.discard(source))  # type: ignore[misc]

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._retry_at if self.needed else None

    def _sources(self) -> list[frozenset[NodeId]]:
        """The other replicas of each of this node's partitions."""
        table, me = self._node.coordinator.table, self._node.me
        assert table is not None
        sets = {frozenset(table.primaries(partition)) for partition, holds in enumerate(table.holds) if holds}
        return [replicas - {me} for replicas in sets]

    def _is_complete(self, sources: list[frozenset[NodeId]]) -> bool:
        quorum = self._node.coordinator.quorum
        needed = max(quorum.n - quorum.w + 1, 1)
        return all(len(others & self._whole) >= needed or others <= self._done for others in sources)

    def _lacks_data(self, source: NodeId) -> bool:
        return bool(self._node.membership.application_value(source, "rebuilding"))

    def _finish(self) -> None:
        node = self._node
        self.needed = False
        node.topology.rebuilding = node.replica.rebuilding = False
        node.topology.redraw_due = True
        node.membership.publish("rebuilding", 0)
        node.context.save_file(MARKER_FILE, b"1")
        node.freeze_soon()
        node.context.turn.events.append(("notice", f"complete: {self.keys_total} records copied from {len(self._done)} nodes"))

    def _copy(self, source: NodeId) -> Steps:
        node = self._node
        position: Position | None = self._positions.get(source, Position(0, 0))
        is_whole = True
        while position is not None:
            answers = yield Ask([source], "rows", msgspec.msgpack.encode(position), ANSWER_S, partial(self._read, position))
            piece = answers[source]
            if piece is None or is_error(piece):
                return b""
            self._take(piece.pairs)
            is_whole = is_whole and piece.is_whole
            position = piece.next
            if position is not None and is_whole:
                self._positions[source] = position
        self._positions.pop(source, None)
        self._done.add(source)
        if is_whole:
            self._whole.add(source)
        node.context.turn.events.append(("verbose", f"copied all from {source[:8]}"))
        return b""

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
        if not pairs:
            return
        node = self._node
        self.keys_total += len(pairs) >> 1

        def merge() -> None:
            node.store.merge_pairs(pairs)

        node.parking.when_loaded(pairs[::2], merge)
        node.context.turn.log.append((LOG_WRITES, msgspec.msgpack.encode(pairs)))

    # --- the other end

    def serve(self, call: Call) -> None:
        """The call "rows": rows of the partitions that the caller and this node both hold, from a position on."""
        position = _decode_position(call.argument)
        if not position.is_in_ring(len(self._node.store.shards)):
            msg = "there is no such position"
            raise PeerProtocolError(msg)
        table = self._node.coordinator.table
        assert table is not None
        partition = position.partition
        while partition < len(table.holds) and not (table.holds[partition] and call.source in table.primaries(partition)):
            partition += 1
        if partition >= len(table.holds):
            call.answer(msgspec.msgpack.encode(Piece([], None, is_whole=not self.needed)))
            return
        first_hash = position.first_hash if partition == position.partition else 0
        _Serving(self._node, call, Position(partition, first_hash)).advance()

    def following(self, caller: NodeId, partition: int) -> Position | None:
        """The start of the next partition that a caller and this node both hold."""
        table = self._node.coordinator.table
        assert table is not None
        for number in range(partition + 1, len(table.holds)):
            if table.holds[number] and caller in table.primaries(number):
                return Position(number, 0)
        return None


class _Serving:
    """One answer, gathered from as many partitions as it has room for."""

    __slots__ = ("_call", "_node", "_pairs", "_position", "_size", "_waiting")

    def __init__(self, node: Node, call: Call, position: Position) -> None:
        self._node = node
        self._call = call
        self._position: Position | None = position
        self._pairs: list[bytes] = []
        self._size = 0
        self._waiting = False

    def advance(self) -> None:
        """Read until the answer is full. What is in memory comes at once, so this is a loop and no recursion."""
        while not self._waiting:
            position = self._position
            if position is None or self._size >= PIECE_BYTES_MAX or len(self._pairs) >= 2 * PIECE_ROWS:
                piece = Piece(self._pairs, position, is_whole=not self._node.rebuild.needed)
                self._call.answer(msgspec.msgpack.encode(piece))
                return
            self._waiting = True
            came_at_once = True

            def then(rows: list[tuple[bytes, bytes]], next_hash: int | None, position: Position = position) -> None:
                self._take(position, rows, next_hash)
                if not came_at_once:  # noqa: B023 - the cell of this round: the loop has ended by the time it matters
                    self.advance()

            self._node.rows.read(position.partition, position.first_hash, PIECE_ROWS, then)
            came_at_once = False

    def _take(self, position: Position, rows: list[tuple[bytes, bytes]], next_hash: int | None) -> None:
        self._waiting = False
        for key, record in rows:
            self._pairs += (key, record)
            self._size += len(key) + len(record)
        if next_hash is not None:
            self._position = Position(position.partition, next_hash)
        else:
            self._position = self._node.rebuild.following(self._call.source, position.partition)
