"""Ask the whole cluster about its keys, partition by partition, in rounds. Pure.

Rule 1: each partition is asked of one node: of its primaries that are up and prompt the one that is known to lack least.
Rule 2: a round asks for no more than a node can look through in a few milliseconds, and ends the turn.
Rule 3: a position is a partition and a hash in it, and means the same on every node: the next round may ask another one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.commands.published import hints_outstanding
from respkv.coordinator.operations import Ask, Step, Until, is_error
from respkv.errors import NoQuorumError, OverloadedError, PeerProtocolError, QuorumTimeoutError
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from respkv.commands.context import Context
    from respkv.ids import NodeId

PIECE_ROWS_MAX = 500
"""Rows that one node looks at in one round."""
PIECE_BYTES_MAX = 256 * 1024
"""Bytes of keys after which a node ends its part of a round."""
FAILURES_MAX = 3
RETRY_S = 0.1
ALL_SLOTS = -1
HASH_MAX = 2**64 - 1
COUNT_DIGITS_MAX = 18


class ScanRequest(msgspec.Struct, array_like=True):
    """What a node is asked: keys of some partitions, each from a hash on."""

    positions: list[tuple[int, int]]
    """(partition, first hash)"""
    limit: int
    """Rows to look at."""
    pattern: bytes | None = None
    slot: int = ALL_SLOTS


class Piece(msgspec.Struct, array_like=True):
    """A part of a partition: its visible keys that fit, and from which hash to go on; None at the end."""

    partition: int
    next_hash: int | None
    looked_at: int
    keys: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_pieces = border.reader(list[Piece])


def partitions_in_scope(context: Context) -> Sequence[int]:
    """Those that this node speaks for when it is asked for all keys: see `scan-scope`."""
    table = context.coordinator.table
    assert table is not None
    if context.settings.scan_scope == "primary":
        return [partition for partition, node in enumerate(table.first_live) if node == context.me]
    return range(len(table.first_live))


def speakers(context: Context, *, avoided: AbstractSet[NodeId] = frozenset()) -> list[NodeId | None]:
    """For each partition the node that is asked; None where no primary can be. Who is to be avoided is asked where there is nobody else."""
    table, compensation, membership = context.coordinator.table, context.coordinator.compensation, context.membership
    assert table is not None
    members = [member.node for member in context.ring.members]
    outstanding = hints_outstanding(members, me=context.me, membership=membership, hints=context.hints)
    prompt = membership.prompt()
    # After an outage every node may lack something: then one that lacks little is better than the first.
    rank = {node: (node in avoided, node not in prompt, outstanding.get(node, 0)) for node in members if node in compensation.usable}
    kept = context.cache.get("speakers")
    if kept is not None and kept[0] is table and kept[1] == rank:
        found: list[NodeId | None] = kept[2]
        return found
    found = []
    for partition in range(len(table.first_live)):
        live = [node for node in table.primaries(partition) if node in rank]
        found.append(min(live, key=rank.__getitem__) if live else None)
    context.cache["speakers"] = (table, rank, found)
    return found


def next_turn(context: Context) -> Until:
    """A step that lets others have their turn."""
    return Until(lambda: True, context.turn.now)


class Walk:
    """A command's way through the partitions."""

    __slots__ = ("_avoided", "_bytes", "_bytes_max", "_context", "_failures", "_pattern", "_slot")

    def __init__(self, context: Context, *, pattern: bytes | None = None, slot: int = ALL_SLOTS) -> None:
        """Look for keys that fit a pattern, or that belong to one slot."""
        self._context = context
        self._pattern = pattern
        self._slot = slot
        self._avoided: set[NodeId] = set()
        self._failures = 0
        self._bytes = 0
        self._bytes_max = context.settings.client_output_buffer_limit.normal.hard_bytes

    def round(self, positions: Mapping[int, int], *, limit: int) -> Generator[Step, Any, list[Piece]]:
        """Ask for keys from these positions (partition: first hash) on. The pieces that came, in the order of partitions.

        A partition may have no piece yet: ask again.
        """
        rows = max(1, min(limit, PIECE_ROWS_MAX))
        shares = {node: {number: positions[number] for number in numbers} for node, numbers in self._shares(positions).items()}
        arguments = {node: _encode(ScanRequest(list(share.items()), rows, self._pattern, self._slot)) for node, share in shares.items()}
        answers = yield from self._call("scan", arguments, partial(_read_pieces, positions))
        pieces = [piece for node, answer in answers.items() for piece in answer if piece.partition in shares[node]]
        self._count(pieces)
        yield next_turn(self._context)
        return sorted(pieces, key=lambda piece: piece.partition)

    def counts(self, partitions: Iterable[int]) -> Generator[Step, Any, dict[NodeId, tuple[int, list[int]]]]:
        """How many keys there are in these partitions: (number of keys, partitions) by the node that was asked."""
        counted: dict[NodeId, tuple[int, list[int]]] = {}
        left = set(partitions)
        while left:
            shares = self._shares(sorted(left))
            answers = yield from self._call("count", {node: _encode(numbers) for node, numbers in shares.items()}, _read_count)
            for node, answer in answers.items():
                count, numbers = counted.get(node, (0, []))
                counted[node] = (count + answer, numbers + shares[node])
                left.difference_update(shares[node])
        return counted

    def random_of(self, node: NodeId, partitions: list[int]) -> Generator[Step, Any, bytes]:
        """Some key of these partitions of a node; nothing if the first place that was looked at holds none."""
        answers = yield from self._call("random", {node: _encode(partitions)}, _read_key)
        key: bytes = answers.get(node, b"")
        return key

    def _shares(self, partitions: Iterable[int]) -> dict[NodeId, list[int]]:
        """Which node is to be asked for which of these partitions."""
        asked = speakers(self._context, avoided=self._avoided)
        shares: dict[NodeId, list[int]] = {}
        silent = 0
        for partition in partitions:
            node = asked[partition]
            if node is None:
                silent += 1
            else:
                shares.setdefault(node, []).append(partition)
        if silent:
            raise NoQuorumError(f"no replica of {silent} partitions is up; the answer would be incomplete")
        return shares

    def _call(
        self, name: str, arguments: Mapping[NodeId, bytes], decode: Callable[[bytes], Any]
    ) -> Generator[Step, Any, dict[NodeId, Any]]:
        """Ask nodes. Who does not answer, or sees the ring otherwise, is not in the result, and others are asked next time."""
        answers: dict[NodeId, Any] = yield Ask(list(arguments), name, arguments, decode=decode)
        good = {node: answer for node, answer in answers.items() if answer is not None and not is_error(answer)}
        failed = answers.keys() - good.keys()
        if failed:
            self._avoided |= failed
            self._failures += 1
            if self._failures > FAILURES_MAX:
                node = min(failed)
                answer = answers[node]
                reason = "did not answer in time" if answer is None else f"said {answer[1:].strip().decode('utf-8', 'replace')}"
                raise QuorumTimeoutError(f"node {node[:8]} {reason}")
            if None not in answers.values():
                # They were asked too early: their view of the ring is a moment behind, or ours is.
                yield Until(lambda: False, self._context.turn.now + RETRY_S)
        return good

    def _count(self, pieces: list[Piece]) -> None:
        self._bytes += sum(len(key) + 16 for piece in pieces for key in piece.keys)
        if self._bytes_max and self._bytes > self._bytes_max:
            raise OverloadedError("the reply would be longer than client-output-buffer-limit allows; use SCAN")


def _read_pieces(positions: Mapping[int, int], answer: bytes) -> list[Piece]:
    """What a node tells of the partitions that it was asked for: it goes forward, or a walk would never end."""
    pieces = _decode_pieces(answer)
    if len({piece.partition for piece in pieces}) < len(pieces):
        msg = "tells of a partition twice"
        raise PeerProtocolError(msg)
    for piece in pieces:
        first_hash = positions.get(piece.partition)
        goes_on = piece.next_hash is None or (first_hash is not None and first_hash < piece.next_hash <= HASH_MAX)
        if first_hash is None or piece.looked_at < 0 or not goes_on:
            msg = "tells of a piece that was not asked for"
            raise PeerProtocolError(msg)
    return pieces


def _read_count(answer: bytes) -> int:
    if not answer.isdigit() or len(answer) > COUNT_DIGITS_MAX:
        msg = "answers with what is no count"
        raise PeerProtocolError(msg)
    return int(answer)


def _read_key(answer: bytes) -> bytes:
    """A key stands behind a plus sign; the sign alone is none."""
    if not answer.startswith(b"+"):
        msg = "answers with what is no key"
        raise PeerProtocolError(msg)
    return answer[1:]
