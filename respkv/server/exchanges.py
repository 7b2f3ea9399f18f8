"""Compare this node with a co-replica, and bring both to the same state: what `repair.exchange` decides, step by step. Pure.

Rule 1: a step is small. It reads some leaves of one partition, or settles a few dozen keys; then other work has its turn,
and after each call the exchange rests as the pace demands. A call takes many such steps, so that few have to be waited for.
Rule 2: who lacks data itself takes no part, and nobody who has another ring.
Rule 3: what the other side answered is in its log; what this side merges is in the log of the same turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from respkv.coordinator.operations import Ask, Call, Rest, Steps, Until, is_error
from respkv.coordinator.replica import check_pairs
from respkv.repair.exchange import (
    PIECE_BYTES_MAX,
    PIECE_KEYS_MAX,
    YOUNG_MS,
    Difference,
    Entry,
    Listing,
    Met,
    RootsRequest,
    differences,
    differing,
    digest,
    entry_of,
    item_of,
    listing_of,
    pack_hashes,
    still_differs,
    unpack_hashes,
)
from respkv.server.background import rest, step
from respkv.server.turns import LOG_WRITES
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Generator

    from respkv.ids import NodeId
    from respkv.server.node import Node
    from respkv.server.rows import Rows

    Part = Generator[Any, Any, Any]

BUSY = b"-BUSY it compares itself with another node\r\n"
ANSWER_S = 5.0
LOAD_S = 30.0
"""A disk that takes longer to give a few hundred records is in trouble."""
SERVED_S = 2.0
"""Who asked nothing for so long has ended, or died."""
PARTITIONS_PER_CALL = 16
LEAVES_PER_CALL = 256
LEAVES_PER_STEP = 16
KEYS_PER_LISTING_MAX = 1000
CHANGES_PER_STEP = 200
YOUNG_KEPT_MAX = 20_000
COST_OF_A_KEY = 32
"""In bytes: what is read and compared takes time, too."""
_encode = msgspec.msgpack.Encoder().encode
_decode_roots = border.reader(bytes)
_decode_leaves = border.reader(list[bytes])
_decode_listings = border.reader(list[Listing])
_decode_met = border.reader(Met)
_decode_roots_request = border.reader(RootsRequest)
_decode_partitions = border.reader(list[int])
_decode_spots = border.reader(list[tuple[int, int]])
_decode_entries = border.reader(list[Entry])
_decode_is_whole = border.reader(bool)
T = TypeVar("T")
Spot = tuple[int, int]
"""(partition, leaf)."""


class ExchangeFailedError(Exception):
    """The other side did not answer, or would not."""


class PeerBusyError(ExchangeFailedError):
    """The other side is comparing itself with somebody else."""


def packed_roots(node: Node, partitions: Sequence[int]) -> bytes:
    """The roots of some partitions."""
    roots = node.store.trees.roots
    return pack_hashes(roots[partition] for partition in partitions)


def shared_with(node: Node, peer: NodeId, partition: int | None) -> list[int]:
    """The partitions that this node and another one are both read for, or of these the one that is asked for."""
    table = node.coordinator.table
    assert table is not None
    wanted = range(len(table.holds)) if partition is None else (partition,)
    both = {node.me, peer}
    return [number for number in wanted if 0 <= number < len(table.holds) and both.issubset(table.primaries(number))]


class Exchange:
    """One comparison, on the side of the node that began it."""

    __slots__ = (
        "_answer_bytes",
        "_found",
        "_node",
        "_worked_since",
        "_young",
        "bytes_total",
        "keys_compared",
        "keys_given",
        "keys_taken",
        "only",
        "partitions_compared",
        "partitions_count",
        "partitions_done",
        "peer",
    )

    def __init__(self, node: Node, peer: NodeId, *, partition: int | None = None) -> None:
        """Of all partitions that both hold, or of one."""
        self._node = node
        self.only = partition
        self._found: list[Difference] = []
        self._young: list[Difference] = []
        """What may be on its way: see `_settle_young`."""
        self._worked_since = 0.0
        self._answer_bytes = 0
        self.peer = peer
        self.partitions_compared = 0
        """By their roots."""
        self.partitions_count = 0
        """Those of them that differ."""
        self.partitions_done = 0
        self.keys_compared = 0
        self.keys_given = 0
        """Records that the other side lacked."""
        self.keys_taken = 0
        """Records that this side lacked."""
        self.bytes_total = 0

    def steps(self) -> Steps:
        """All of it. Raises `ExchangeFailedError`."""
        yield from self._follow_changes()
        partitions = shared_with(self._node, self.peer, self.only)
        self.partitions_compared = len(partitions)
        mine = packed_roots(self._node, partitions)
        node = self._node
        n = node.coordinator.quorum.n
        request = RootsRequest(node.cluster.ring.epoch, n, digest(mine), self.only)
        theirs = yield from self._call("tree-roots", request, _decode_roots)
        if not theirs:
            return b""
        found = [partitions[number] for number in differing(unpack_hashes(mine), unpack_hashes(theirs))]
        self.partitions_count = len(found)
        for start in range(0, len(found), PARTITIONS_PER_CALL):
            yield from self._compare(found[start : start + PARTITIONS_PER_CALL])
        yield from self._settle()
        yield from self._settle_young()
        return b""

    def tell_end(self) -> Steps:
        """Let the other side know that it ended well."""
        yield from self._call("tree-done", self.only is None, bytes)
        return b""

    def _follow_changes(self) -> Part:
        store = self._node.store
        while not store.trees.take_in(store, CHANGES_PER_STEP):
            yield from step(self._node)

    def _call(self, name: str, argument: object, decode: Callable[[bytes], object]) -> Part:
        """One call of the other side; its answer."""
        packed = _encode(argument)
        self._worked_since = self._node.context.turn.now
        self._answer_bytes = 0

        def measured(answer: bytes) -> tuple[object]:
            # In a tuple: what was decoded may be bytes that look like an error.
            self._answer_bytes = len(answer)
            return (decode(answer),)

        answers = yield Ask([self.peer], name, packed, timeout_s=ANSWER_S, decode=measured)
        answer = answers[self.peer]
        if answer is None:
            raise ExchangeFailedError("no answer")
        if is_error(answer):
            raise PeerBusyError("busy") if answer == BUSY else ExchangeFailedError(answer.decode("utf-8", "replace").strip())
        self.bytes_total += len(packed) + self._answer_bytes
        return answer[0]

    def _rest(self, size: int, *, is_prompt: bool = True) -> Part:
        """Rest as long as the pace demands."""
        return rest(self._node, size, since=self._worked_since, is_prompt=is_prompt)

    def _compare(self, partitions: Sequence[int]) -> Part:
        """Leaves, then keys, of partitions that differ."""
        told: list[bytes] = yield from self._call("tree-leaves", list(partitions), _decode_leaves)
        if len(told) != len(partitions):
            raise ExchangeFailedError("leaves of other partitions")
        yield from self._rest(self._answer_bytes)
        trees = self._node.store.trees
        spots: list[Spot] = []
        for partition, theirs in zip(partitions, told, strict=True):
            leaves = differing(trees.leaves(partition), unpack_hashes(theirs))
            if leaves and leaves[-1] >> trees.leaf_bits:
                raise ExchangeFailedError("more leaves than there are")
            spots += [(partition, leaf) for leaf in leaves]
        while spots:
            spots = yield from self._compare_keys(spots)
        self.partitions_done += len(partitions)

    def _compare_keys(self, spots: list[Spot]) -> Part:
        """The keys of some leaves; returns the leaves that are left."""
        listings: list[Listing] = yield from self._call("tree-keys", spots[:LEAVES_PER_CALL], _decode_listings)
        if not 0 < len(listings) <= len(spots):
            raise ExchangeFailedError("keys of other leaves")
        compared, clock = 0, self._node.clock.last
        for number, ((partition, leaf), listing) in enumerate(zip(spots, listings, strict=False)):
            if _is_step(spots, number):
                yield from step(self._node)
            rows = yield from _read_leaf(self._node, partition, leaf)
            compared += max(len(rows), len(listing.keys))
            for found in differences(rows, listing):
                if not found.is_young(clock):
                    self._found.append(found)
                elif len(self._young) < YOUNG_KEPT_MAX:
                    self._young.append(found)
        self.keys_compared += compared
        yield from self._rest(self._answer_bytes + compared * COST_OF_A_KEY, is_prompt=False)
        if len(self._found) >= PIECE_KEYS_MAX:
            yield from self._settle()
        return spots[len(listings) :]

    def _settle_young(self) -> Part:
        """Look once more at what differed and had just been written: what still does was not on its way."""
        if self._young:
            yield Rest(self._node.context.turn.now + YOUNG_MS / 1000)
            self._found, self._young = self._young, []
            yield from self._settle()

    def _settle(self) -> Part:
        """Give and take the records of the keys that were found to differ."""
        while self._found:
            found = self._found[:PIECE_KEYS_MAX]
            keys = [each.key for each in found]
            used, entries = yield from _when_loaded(self._node, keys, partial(self._entries, found))
            del self._found[:used]
            while entries:
                entries = yield from self._meet(entries)

    def _entries(self, found: list[Difference]) -> tuple[int, list[Entry]]:
        """What to send of some of these keys, and of how many."""
        entries: list[Entry] = []
        size = used = 0
        for difference in found:
            if size >= PIECE_BYTES_MAX:
                break
            used += 1
            entry = entry_of(difference, self._node.store.get(difference.key))
            if entry is not None:
                entries.append(entry)
                size += len(entry.key) + len(entry.record)
        return used, entries

    def _meet(self, entries: list[Entry]) -> Part:
        """Settle some entries; returns those that are left."""
        met: Met = yield from self._call("tree-meet", entries, _decode_met)
        check_pairs(met.pairs, wall_ms=self._node.context.turn.wall_ms)
        if not 0 < met.settled <= len(entries):
            raise ExchangeFailedError("settles what it was not sent")
        self.keys_given += met.taken
        self.keys_taken += len(met.pairs) >> 1
        if met.pairs:
            self._found += yield from _when_loaded(self._node, met.pairs[::2], partial(self._take, met.pairs))
        yield from self._rest(self._answer_bytes + sum(len(entry.record) for entry in entries[: met.settled]))
        return entries[met.settled :]

    def _take(self, pairs: list[bytes]) -> list[Difference]:
        """Merge what the other side told. Returns what is to be settled once more."""
        node = self._node
        store, holds = node.store, node.replica.holds
        left = []
        taken: list[bytes] = []
        for key, record in zip(pairs[::2], pairs[1::2], strict=True):
            partition = store.partition(key)
            if not holds[partition]:
                # The number of replicas has changed since.
                continue
            taken += (key, record)
            store.merge(partition, key, record)
            difference = still_differs(key, store.get(key), record)
            if difference is not None:
                left.append(difference)
        if taken:
            node.context.turn.log.append((LOG_WRITES, _encode(taken)))
        return left


# --- the other end


class ExchangeCalls:
    """Answers what another node asks that compares itself with this one."""

    __slots__ = ("_node", "_served", "_served_at")

    def __init__(self, node: Node) -> None:
        """`node` is whose trees and records are told."""
        self._node = node
        self._served: NodeId | None = None
        self._served_at = 0.0
        """Who asked last, and when."""

    def _is_busy(self, source: NodeId) -> bool:
        """Whether this node compares itself with another one: what that one brings need not be brought twice."""
        node = self._node
        now = node.context.turn.now
        if node.anti_entropy.is_working() or (self._served not in {None, source} and now - self._served_at < SERVED_S):
            return True
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
        node = self._node
        while not node.store.trees.take_in(node.store, CHANGES_PER_STEP):
            yield from step(node)
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
        for number, (partition, leaf) in enumerate(spots):
            if _is_step(spots, number):
                yield from step(self._node)
            rows = yield from _read_leaf(self._node, partition, leaf)
            listing = listing_of(rows)
            told.append(listing)
            keys_count += len(rows)
            size += len(listing.marks) + sum(map(len, listing.keys))
            if size >= PIECE_BYTES_MAX or keys_count >= KEYS_PER_LISTING_MAX:
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
            if after and item_of(key, after).hash != item_of(key, record).hash:
                pairs += (key, after)
                size += len(key) + len(after)
        if taken:
            turn.log.append((LOG_WRITES, _encode(taken)))
        node.anti_entropy.statistics.keys_repaired_total += len(taken) >> 1
        node.anti_entropy.statistics.keys_given_total += len(pairs) >> 1
        answer = _encode(Met(pairs, settled, len(taken) >> 1))
        turn.when_logged(lambda: call.answer(answer))


# --- waiting


def _is_step(spots: Sequence[Spot], number: int) -> bool:
    """Whether a step ends before this leaf: another partition has to be brought into its order, and a few leaves take a millisecond."""
    return number > 0 and (number % LEAVES_PER_STEP == 0 or spots[number][0] != spots[number - 1][0])


def _when_loaded(node: Node, keys: Sequence[bytes], action: Callable[[], T]) -> Generator[Until, bool, T]:
    """Run an action once these keys are in memory; its result."""
    found: list[T] = []
    node.parking.when_loaded(keys, lambda: found.append(action()))
    if not found and not (yield Until(lambda: bool(found), node.context.turn.now + LOAD_S)):
        raise ExchangeFailedError("the disk is too slow")
    return found[0]


def _read_leaf(node: Node, partition: int, leaf: int) -> Generator[Until, bool, Rows]:
    """The rows of a leaf."""
    found: list[Rows] = []
    node.anti_entropy.leaves.read(partition, leaf, leaf + 1, lambda rows, _is_judged: found.append(rows))
    if not found and not (yield Until(lambda: bool(found), node.context.turn.now + LOAD_S)):
        raise ExchangeFailedError("the disk is too slow")
    return found[0]
