"""What a node answers to another one that compares itself with it: see `exchanges`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from respkv.coordinator.replica import check_pairs
from respkv.repair.exchange import PIECE_BYTES_MAX, Entry, Listing, Met, RootsRequest, digest, item_of, listing_of, pack_hashes
from respkv.server.background import step
from respkv.server.exchanges import (
    BUSY,
    LEAVES_PER_CALL,
    NOT_YET,
    PARTITIONS_PER_CALL,
    ExchangeFailedError,
    follow_changes,
    is_sendable,
    packed_roots,
    portions,
    read_leaves,
    shared_with,
)
from respkv.server.turns import LOG_WRITES
from respkv.transport import border

if TYPE_CHECKING:
    from respkv.coordinator.operations import Call, Steps
    from respkv.ids import NodeId
    from respkv.server.exchanges import Spot
    from respkv.server.node import Node

SERVED_S = 2.0
"""Who asked nothing for so long has ended, or died."""
FOLLOWS_S = 1.0
"""How long whoever asks for roots waits for the trees before he is told to ask again."""
KEYS_PER_LISTING_MAX = 1000
LISTING_S = 2.0
"""Where leaves take longer to read than this, they are told in several answers."""
_encode = msgspec.msgpack.Encoder().encode
_decode_roots_request = border.reader(RootsRequest)
_decode_partitions = border.reader(list[int])
_decode_spots = border.reader(list[tuple[int, int]])
_decode_entries = border.reader(list[Entry])
_decode_is_whole = border.reader(bool)


class ExchangeCalls:
    """Answers what another node asks that compares itself with this one."""

    __slots__ = ("_look", "_node", "_served", "_served_at")

    def __init__(self, node: Node) -> None:
        """`node` is whose trees and records are told."""
        self._node = node
        self._served: NodeId | None = None
        self._served_at = 0.0
        """Who asked last, and when."""
        self._look: int | None = None
        """What the trees had begun to follow when that one asked for roots: what had changed by then is to be followed."""

    def _is_busy(self, source: NodeId) -> bool:
        """Whether this node compares itself with another one: what that one brings need not be brought twice."""
        node = self._node
        now = node.context.turn.now
        if node.anti_entropy.is_busy_for(source) or (self._served not in {None, source} and now - self._served_at < SERVED_S):
            return True
        if self._served != source or now - self._served_at >= SERVED_S:
            self._look = None
        self._served, self._served_at = source, now
        return False

    def _is_unable(self, source: NodeId) -> bool:
        """Whether this node lacks data or room, or the other one holds what is to be set aside."""
        node = self._node
        return node.topology.rebuilding or bool(node.replica.writes_disabled) or source in node.replica.distrusted

    def table(self) -> dict[str, Callable[[Call], None]]:
        """The handlers by the names of the calls."""
        return {
            "tree-roots": self._roots,
            "tree-leaves": self._leaves,
            "tree-keys": self._keys,
            "tree-meet": self._meet,
            "tree-done": self._done,
        }

    def _roots(self, call: Call) -> None:
        request = _decode_roots_request(call.argument)
        node = self._node
        if self._is_unable(call.source) or node.store.trees.spoilt:
            call.answer(b"-ERR it lacks data, or room, or reads its data for its hash trees\r\n")
        elif (request.epoch, request.n) != (node.cluster.ring.epoch, node.coordinator.quorum.n):
            call.answer(b"-ERR another ring, or another replication-factor\r\n")
        elif self._is_busy(call.source):
            call.answer(BUSY)
        else:
            node.operations.start(self._tell_roots(call, request), on_done=lambda _: None)

    def _tell_roots(self, call: Call, request: RootsRequest) -> Steps:
        node, trees = self._node, self._node.store.trees
        if self._look is None:
            self._look = trees.looks_total
        is_done = yield from follow_changes(node, look=self._look, until=node.context.turn.now + FOLLOWS_S)
        self._served_at = node.context.turn.now
        if not is_done:
            call.answer(NOT_YET)
            return b""
        self._look = None
        roots = packed_roots(node, shared_with(node, call.source, request.partition))
        call.answer(_encode(b"" if digest(roots) == request.digest else roots))
        return b""

    def _leaves(self, call: Call) -> None:
        self._served_at = self._node.context.turn.now
        partitions = _decode_partitions(call.argument)
        trees, count = self._node.store.trees, len(self._node.store.shards)
        if len(partitions) > PARTITIONS_PER_CALL or not all(0 <= partition < count for partition in partitions):
            call.answer(b"-ERR there are no such partitions\r\n")
            return
        call.answer(_encode([pack_hashes(trees.leaves(partition)) for partition in partitions]))

    def _keys(self, call: Call) -> None:
        self._served_at = self._node.context.turn.now
        spots = _decode_spots(call.argument)
        node = self._node
        partitions, leaves = len(node.store.shards), 1 << node.store.trees.leaf_bits
        if not spots or not all(0 <= partition < partitions and 0 <= leaf < leaves for partition, leaf in spots):
            call.answer(b"-ERR there are no such leaves\r\n")
            return
        node.operations.start(self._tell_keys(call, spots[:LEAVES_PER_CALL]), on_done=lambda _: None)

    def _tell_keys(self, call: Call, spots: list[Spot]) -> Steps:
        told: list[Listing] = []
        size = keys_count = 0
        enough_at = self._node.context.turn.now + LISTING_S
        for portion in portions(self._node, spots):
            if told:
                yield from step(self._node)
            try:
                leaves = yield from read_leaves(self._node, portion)
            except ExchangeFailedError as error:
                call.answer(b"-ERR %b\r\n" % str(error).encode())
                return b""
            for rows in leaves:
                listing = listing_of(rows)
                told.append(listing)
                keys_count += len(rows)
                size += len(listing.marks) + sum(map(len, listing.keys))
            if size >= PIECE_BYTES_MAX or keys_count >= KEYS_PER_LISTING_MAX or self._node.context.turn.now >= enough_at:
                break
        call.answer(_encode(told))
        return b""

    def _meet(self, call: Call) -> None:
        self._served_at = self._node.context.turn.now
        entries = _decode_entries(call.argument)
        node = self._node
        told = [word for entry in entries if entry.record for word in (entry.key, entry.record)]
        check_pairs(told, wall_ms=node.context.turn.wall_ms)
        if self._is_unable(call.source):
            call.answer(b"-ERR it lacks data, or room\r\n")
            return
        node.operations.start(self._meet_idle(call, entries), on_done=lambda _: None)

    def _meet_idle(self, call: Call, entries: list[Entry]) -> Steps:
        node = self._node
        yield from step(node)
        node.parking.when_loaded([entry.key for entry in entries], lambda: self._settle(call, entries))
        return b""

    def _done(self, call: Call) -> None:
        """The other side says that all went well."""
        self._served = None
        if _decode_is_whole(call.argument):
            self._node.anti_entropy.completed_with(call.source)
        call.answer(b"+OK\r\n")

    def _settle(self, call: Call, entries: list[Entry]) -> None:
        node = self._node
        store, holds, turn = node.store, node.replica.holds, node.context.turn
        pairs: list[bytes] = []
        taken: list[bytes] = []
        size = settled = 0
        for key, record, expected in map(msgspec.structs.astuple, entries):
            if size >= PIECE_BYTES_MAX:
                break
            settled += 1
            partition = store.partition(key)
            before = item_of(key, store.get(key))
            if before.hash != expected or not holds[partition]:
                continue
            if record:
                store.merge(partition, key, record)
            after = store.get(key)
            if item_of(key, after).hash != before.hash:
                taken += (key, record)
            differs = after and item_of(key, after).hash != item_of(key, record).hash
            if differs and is_sendable(node, call.source, key, after):
                pairs += (key, after)
                size += len(key) + len(after)
        if taken:
            turn.log.append((LOG_WRITES, _encode(taken)))
        node.anti_entropy.statistics.keys_repaired_total += len(taken) >> 1
        node.anti_entropy.statistics.keys_given_total += len(pairs) >> 1
        answer = _encode(Met(pairs, settled, len(taken) >> 1))
        turn.when_logged(lambda: call.answer(answer))
