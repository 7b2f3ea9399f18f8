"""Compare this node with a co-replica, and bring both to the same state: what `repair.exchange` decides, step by step. Pure.

Rule 1: a step is small. It reads some leaves of one partition, or settles a few dozen keys; then other work has its turn,
and after each call the exchange rests as the pace demands. A call takes many such steps, so that few have to be waited for.
Rule 2: who lacks data itself takes no part, and nobody who has another ring.
Rule 3: what the other side answered is in its log; what this side merges is in the log of the same turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from respkv.coordinator.operations import Ask, Rest, Steps, Until, is_error
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
    pack_hashes,
    still_differs,
    unpack_hashes,
)
from respkv.server.background import rest, step
from respkv.server.leaves import ROWS_MIN
from respkv.server.turns import LOG_WRITES
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from respkv.ids import NodeId
    from respkv.server.node import Node
    from respkv.server.rows import Rows

    Part = Generator[Any, Any, Any]

BUSY = b"-BUSY it compares itself with another node\r\n"
NOT_YET = b"-NOTYET its hash trees follow what has changed\r\n"
LINK_BROKE = "the link broke"
ANSWER_S = 5.0
PATIENCE_MAX = 8
"""How many times as long an answer is waited for that did not come several times in a row: of a slow disk, or a long record.
No longer than `LOAD_S` demands: an answer may also be lost, and nobody else is compared with meanwhile."""
ROOTS_S = 60.0
"""The other side's trees follow what has changed first, and under load there is little time for that."""
LOAD_S = 30.0
"""A disk that takes longer to give a few hundred records is in trouble."""
PARTITIONS_PER_CALL = 16
LEAVES_PER_CALL = 256
KEYS_PER_STEP = 100
"""Keys that are looked at, counting two for a leaf."""
CHANGES_PER_STEP = 200
YOUNG_KEPT_MAX = 20_000
COST_OF_A_KEY = 32
"""In bytes: what is read and compared takes time, too."""
_encode = msgspec.msgpack.Encoder().encode
_decode_roots = border.reader(bytes)
_decode_leaves = border.reader(list[bytes])
_decode_listings = border.reader(list[Listing])
_decode_met = border.reader(Met)
T = TypeVar("T")
Spot = tuple[int, int]
"""(partition, leaf)."""
Run = tuple[int, int, int]
"""(partition, first leaf, the one behind the last)."""


class ExchangeFailedError(Exception):
    """The other side did not answer, or would not."""


class NoAnswerError(ExchangeFailedError):
    """The other side did not answer in time."""


class PeerBusyError(ExchangeFailedError):
    """The other side is comparing itself with somebody else."""


class NotYetError(ExchangeFailedError):
    """The other side's trees follow what has changed."""


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


def is_sendable(node: Node, peer: NodeId, key: bytes, record: bytes) -> bool:
    """Whether a record can be sent to another node at all: one that cannot must keep no other waiting."""
    size, size_max = len(key) + len(record), node.context.turn.record_bytes_max
    if size > size_max:
        text = f"a record of {size} bytes is too long to be sent to {peer[:8]} ({size_max} may be): it has to be resolved, or written anew"
        node.context.turn.events.append(("warning", text))
    return size <= size_max


class Exchange:
    """One comparison, on the side of the node that began it."""

    __slots__ = (
        "_answer_bytes",
        "_found",
        "_node",
        "_patience",
        "_worked_since",
        "_young",
        "bytes_total",
        "has_begun",
        "keys_compared",
        "keys_given",
        "keys_taken",
        "only",
        "partitions_compared",
        "partitions_count",
        "partitions_done",
        "peer",
    )

    def __init__(self, node: Node, peer: NodeId, *, partition: int | None = None, patience: int = 1) -> None:
        """Of all partitions that both hold, or of one."""
        self._node = node
        self._patience = patience
        self.only = partition
        self._found: list[Difference] = []
        self._young: list[Difference] = []
        """What may be on its way: see `_settle_young`."""
        self._worked_since = 0.0
        self._answer_bytes = 0
        self.peer = peer
        self.has_begun = False
        """Whether the other side takes part: until then this node may still take part in another one's."""
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
        yield from follow_changes(self._node)
        partitions = shared_with(self._node, self.peer, self.only)
        self.partitions_compared = len(partitions)
        mine, theirs = yield from self._tell_roots(partitions)
        if not theirs:
            return b""
        found = [partitions[number] for number in differing(unpack_hashes(mine), unpack_hashes(theirs))]
        self.partitions_count = len(found)
        for start in range(0, len(found), PARTITIONS_PER_CALL):
            yield from self._compare(found[start : start + PARTITIONS_PER_CALL])
        yield from self._settle()
        yield from self._settle_young()
        return b""

    def _tell_roots(self, partitions: Sequence[int]) -> Generator[Any, Any, tuple[bytes, bytes]]:
        """The roots of both sides; of the other none if they are the same. Ask until it has followed what it was told until then."""
        node = self._node
        give_up_at = node.context.turn.now + ROOTS_S
        while True:
            mine = packed_roots(node, partitions)
            request = RootsRequest(node.cluster.ring.epoch, node.coordinator.quorum.n, digest(mine), self.only)
            try:
                theirs = yield from self._call("tree-roots", request, _decode_roots)
            except NotYetError:
                if node.context.turn.now >= give_up_at:
                    raise
            else:
                self.has_begun = True
                return mine, theirs

    def tell_end(self) -> Steps:
        """Let the other side know that it ended well."""
        yield from self._call("tree-done", self.only is None, bytes)
        return b""

    def _call(self, name: str, argument: object, decode: Callable[[bytes], object]) -> Part:
        """One call of the other side; its answer."""
        if self.peer not in self._node.topology.links:
            raise ExchangeFailedError(LINK_BROKE)
        packed = _encode(argument)
        self._worked_since = self._node.context.turn.now
        self._answer_bytes = 0

        def measured(answer: bytes) -> tuple[object]:
            # In a tuple: what was decoded may be bytes that look like an error.
            self._answer_bytes = len(answer)
            return (decode(answer),)

        patience_s = ANSWER_S * self._patience
        answers = yield Ask([self.peer], name, packed, timeout_s=patience_s, decode=measured)
        answer = answers[self.peer]
        if answer is None:
            is_broken = self._node.context.turn.now < self._worked_since + patience_s
            raise ExchangeFailedError(LINK_BROKE) if is_broken else NoAnswerError("no answer")
        if is_error(answer):
            failure = {BUSY: PeerBusyError, NOT_YET: NotYetError}.get(answer, ExchangeFailedError)
            raise failure(answer[1:].decode("utf-8", "replace").strip())
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
        unread = iter(listings)
        for number, portion in enumerate(portions(self._node, spots[: len(listings)])):
            if number:
                yield from step(self._node)
            for rows in (yield from read_leaves(self._node, portion)):
                listing = next(unread)
                compared += max(len(rows), len(listing.keys))
                for found in differences(rows, listing):
                    if not found.is_young(clock):
                        self._found.append(found)
                    else:
                        self._young.append(found)
        self.keys_compared += compared
        yield from self._rest(self._answer_bytes + compared * COST_OF_A_KEY, is_prompt=False)
        if len(self._found) >= PIECE_KEYS_MAX:
            yield from self._settle()
        if len(self._young) >= YOUNG_KEPT_MAX:
            yield from self._settle_young()
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
            used, entries = yield from when_loaded(self._node, keys, partial(self._entries, found))
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
            if entry is not None and is_sendable(self._node, self.peer, entry.key, entry.record):
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
            self._found += yield from when_loaded(self._node, met.pairs[::2], partial(self._take, met.pairs))
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


# --- waiting


def follow_changes(node: Node, *, look: int | None = None, until: float = math.inf) -> Generator[Rest, None, bool]:
    """Let the trees follow all that had changed by a look, or up to now. Returns whether they have, by a moment (monotonic seconds).

    What changes meanwhile is left: under load there is always more. Where a tree lacks it keys are compared that do not differ.
    """
    store = node.store
    trees = store.trees
    if look is None:
        look = trees.looks_total
    while not trees.take_in(store, CHANGES_PER_STEP) and not trees.has_followed(store, look):
        if node.context.turn.now >= until:
            return False
        yield from step(node)
    return True


def portions(node: Node, spots: Sequence[Spot]) -> Iterator[list[Run]]:
    """What a step reads of some leaves: of one partition, and leaves that follow each other together."""
    store = node.store
    portion: list[Run] = []
    size = 0
    for partition, leaf in spots:
        if portion and (size >= KEYS_PER_STEP or portion[-1][0] != partition):
            yield portion
            portion, size = [], 0
        if portion and portion[-1][2] == leaf:
            portion[-1] = (partition, portion[-1][1], leaf + 1)
        else:
            portion.append((partition, leaf, leaf + 1))
            size += ROWS_MIN
        size += 2 + (store.live[partition] >> store.trees.leaf_bits)
    if portion:
        yield portion


def when_loaded(node: Node, keys: Sequence[bytes], action: Callable[[], T]) -> Generator[Until, bool, T]:
    """Run an action once these keys are in memory; its result."""
    found: list[T] = []
    node.parking.when_loaded(keys, lambda: found.append(action()))
    if not found and not (yield Until(lambda: bool(found), node.context.turn.now + LOAD_S)):
        raise ExchangeFailedError("the disk is too slow")
    return found[0]


def read_leaves(node: Node, portion: Sequence[Run]) -> Generator[Until, bool, list[Rows]]:
    """The rows of each of these leaves."""
    told: list[Rows] = []
    for partition, first, end in portion:
        found: list[Rows] = []
        node.anti_entropy.leaves.read(partition, first, end, lambda rows, _is_judged, found=found: found.append(rows), must_judge=False)  # type: ignore[misc]
        if not found and not (yield Until(lambda found=found: bool(found), node.context.turn.now + LOAD_S)):  # type: ignore[misc]
            raise ExchangeFailedError("the disk is too slow")
        told += node.store.trees.parted(found[0], first, end)
    return told
