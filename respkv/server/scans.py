"""What a node tells of its keys when a command walks the whole cluster: some of them, how many, any one. Pure.

Rule: a node speaks only for partitions that it holds, and not while it lacks data itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.commands.partition_walk import ALL_SLOTS, HASH_MAX, PIECE_BYTES_MAX, PIECE_ROWS_MAX, Piece, ScanRequest
from respkv.errors import PeerProtocolError
from respkv.placement.slots import key_slot
from respkv.resp.glob import matches
from respkv.transport import border
from respkv.versions.records import is_visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from respkv.coordinator.operations import Call
    from respkv.server.node import Node
    from respkv.server.rows import Rows

RANDOM_ROWS = 16
_decode_request = border.reader(ScanRequest)
_decode_partitions = border.reader(list[int])
_encode = msgspec.msgpack.Encoder().encode


class Scans:
    """Serves the calls "count", "scan" and "random"."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        """`node` is whose keys are told."""
        self._node = node

    def count(self, call: Call) -> None:
        """Live keys in some partitions."""
        partitions = _decode_partitions(call.argument)
        if not self._refuses(call, partitions):
            live = self._node.store.live
            call.answer(b"%d" % sum(live[partition] for partition in partitions))

    def scan(self, call: Call) -> None:
        """Keys of some partitions: see `commands.partition_walk`."""
        request = _decode_request(call.argument)
        if not all(0 <= first_hash <= HASH_MAX for _, first_hash in request.positions):
            msg = "a hash of more than 64 bits"
            raise PeerProtocolError(msg)
        if request.pattern is not None:
            # What is wrong with a pattern is said here, and not in the middle of a turn that rows come in.
            matches(request.pattern, b"-")
        if not self._refuses(call, [partition for partition, _ in request.positions]):
            _Scan(self._node, call, request).run()

    def random(self, call: Call) -> None:
        """A key of some partitions, behind a plus sign; the sign alone if there is none at the place that was drawn."""
        node, partitions = self._node, _decode_partitions(call.argument)
        if self._refuses(call, partitions):
            return
        live = node.store.live
        held = [partition for partition in partitions if live[partition] > 0]
        if not held:
            call.answer(b"+")
            return
        rng = node.context.rng
        partition = rng.choices(held, weights=[live[number] for number in held])[0]

        def choose(rows: Rows, next_hash: int | None) -> None:
            del next_hash
            now_ms = node.context.turn.wall_ms
            visible = [key for key, record in rows if is_visible(record, now_ms)]
            if not visible and first_hash:
                # Behind the last key: begin at the first.
                node.rows.read(partition, 0, RANDOM_ROWS, answer)
                return
            answer(rows, None)

        def answer(rows: Rows, next_hash: int | None) -> None:
            del next_hash
            now_ms = node.context.turn.wall_ms
            visible = [key for key, record in rows if is_visible(record, now_ms)]
            call.answer(b"+" + rng.choice(visible) if visible else b"+")

        first_hash = rng.getrandbits(64)
        node.rows.read(partition, first_hash, RANDOM_ROWS, choose)

    def _refuses(self, call: Call, partitions: Sequence[int]) -> bool:
        node = self._node
        holds = node.replica.holds
        if node.topology.rebuilding:
            call.answer(b"-ERR it copies data that it lacks\r\n")
            return True
        if len(partitions) > len(holds) or not all(0 <= partition < len(holds) and holds[partition] for partition in partitions):
            call.answer(b"-ERR it holds not all of these partitions\r\n")
            return True
        return False


class _Scan:
    """One call on its way through the partitions that it asks for. Where rows come from the tables it goes on when they are there."""

    __slots__ = ("_call", "_is_waiting", "_left", "_left_bytes", "_node", "_number", "_pieces", "_request")

    def __init__(self, node: Node, call: Call, request: ScanRequest) -> None:
        self._node = node
        self._call = call
        self._request = request
        self._pieces: list[Piece] = []
        self._left = min(request.limit, PIECE_ROWS_MAX)
        self._left_bytes = PIECE_BYTES_MAX
        self._number = 0
        self._is_waiting = False

    def run(self) -> None:
        """Go on until rows have to be waited for, or to the end."""
        positions = self._request.positions
        while self._number < len(positions) and self._left > 0 and self._left_bytes > 0:
            taken = len(self._pieces)
            self._node.rows.read(*positions[self._number], self._left, self._receive)
            if len(self._pieces) == taken:
                self._is_waiting = True
                return
        self._call.answer(_encode(self._pieces))

    def _receive(self, rows: Rows, next_hash: int | None) -> None:
        request = self._request
        partition = request.positions[self._number][0]
        now_ms, pattern, slot = self._node.context.turn.wall_ms, request.pattern, request.slot
        keys = [key for key, record in rows if is_visible(record, now_ms)]
        if slot != ALL_SLOTS:
            keys = [key for key in keys if key_slot(key) == slot]
        if pattern is not None:
            keys = [key for key in keys if matches(pattern, key)]
        self._pieces.append(Piece(partition, next_hash, len(rows), keys))
        self._left -= len(rows)
        self._left_bytes -= sum(map(len, keys))
        self._number += 1
        if self._is_waiting:
            self._is_waiting = False
            self.run()
