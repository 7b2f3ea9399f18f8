"""Ask the whole cluster about its keys, partition by partition, in rounds. Pure.

Rule 1: each partition is asked of one node: the first of its live primaries that lacks nothing, or least, as far as is known.
Rule 2: a round asks for no more than a node can look through in a few milliseconds, and ends the turn.
Rule 3: a position is a partition and a hash in it, and means the same on every node: the next round may ask another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from respkv.commands.published import hints_outstanding
from respkv.coordinator.operations import Ask, Step, Until
from respkv.errors import NoQuorumError, OverloadedError, QuorumTimeoutError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from respkv.commands.context import Context
    from respkv.ids import NodeId

PIECE_ROWS_MAX = 500
"""Rows that one node looks at in one round."""
PIECE_BYTES_MAX = 256 * 1024
"""Bytes of keys after which a node ends its part of a round."""
FAILURES_MAX = 3
ALL_SLOTS = -1


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
_decode_pieces = msgspec.msgpack.Decoder(list[Piece]).decode


def partitions_in_scope(context: Context) -> Sequence[int]:
    """Those that this node speaks for when it is asked for all keys: see `scan-scope`."""
    table = context.coordinator.table
    assert table is not None
    if context.settings.scan_scope == "primary":
        return [partition for partition, node in enumerate(table.first_live) if node == context.me]
    return range(len(table.first_live))


def speakers(context: Context) -> list[NodeId | None]:
    """For each partition the node that is asked; None where no primary can be."""
    table = context.coordinator.table
    assert table is not None
    usable = context.coordinator.compensation.usable
    outstanding = hints_outstanding(
        (member.node for member in context.ring.members), me=context.me, membership=context.membership, hints=context.hints
    )
    kept = context.cache.get("speakers")
    if kept is not None and kept[0] is table and kept[1] == outstanding and kept[2] == usable:
        found: list[NodeId | None] = kept[3]
        return found
    found = []
    for partition in range(len(table.first_live)):
        live = [node for node in table.primaries(partition) if node in usable]
        # After an outage every node may lack something: then one that lacks little is better than the first.
        found.append(min(live, key=lambda node: outstanding.get(node, 0)) if live else None)
    context.cache["speakers"] = (table, outstanding, usable, found)
    return found


def shares(context: Context, partitions: Iterable[int]) -> dict[NodeId, list[int]]:
    """Which node is to be asked for which of these partitions."""
    asked = speakers(context)
    shared: dict[NodeId, list[int]] = {}
    silent = 0
    for partition in partitions:
        node = asked[partition]
        if node is None:
            silent += 1
        else:
            shared.setdefault(node, []).append(partition)
    if silent:
        raise NoQuorumError(f"no replica of {silent} partitions is up; the answer would be incomplete")
    return shared


def next_turn(context: Context) -> Until:
    """A step that lets others have their turn."""
    return Until(lambda: True, context.turn.now)


class Walk:
    """A command's way through the partitions."""

    __slots__ = ("_bytes", "_bytes_max", "_context", "_failures", "_pattern", "_slot")

    def __init__(self, context: Context, *, pattern: bytes | None = None, slot: int = ALL_SLOTS) -> None:
        """Look for keys that fit a pattern, or that belong to one slot."""
        self._context = context
        self._pattern = pattern
        self._slot = slot
        self._failures = 0
        self._bytes = 0
        self._bytes_max = context.settings.client_output_buffer_limit.normal.hard_bytes

    def round(self, positions: Mapping[int, int], *, limit: int) -> Generator[Step, Any, list[Piece]]:
        """Ask for keys from these positions (partition: first hash) on. The pieces that came, in the order of partitions.

        A partition may have no piece yet: ask again.
        """
        shared = shares(self._context, positions)
        rows = max(1, min(limit, PIECE_ROWS_MAX))
        arguments = {
            node: _encode(ScanRequest([(number, positions[number]) for number in numbers], rows, self._pattern, self._slot))
            for node, numbers in shared.items()
        }
        answers: dict[NodeId, bytes | None] = yield Ask(list(shared), "scan", arguments)
        pieces = [piece for node, answer in answers.items() if self._is_answer(node, answer) for piece in _decode_pieces(answer or b"\x90")]
        self._count(pieces)
        yield next_turn(self._context)
        return sorted(pieces, key=lambda piece: piece.partition)

    def counts(self, partitions: Iterable[int]) -> Generator[Step, Any, dict[NodeId, tuple[int, list[int]]]]:
        """How many keys there are in these partitions: (number of keys, partitions) by the node that was asked."""
        counted: dict[NodeId, tuple[int, list[int]]] = {}
        left = set(partitions)
        while left:
            shared = shares(self._context, sorted(left))
            answers: dict[NodeId, bytes | None] = yield Ask(
                list(shared), "count", {node: _encode(numbers) for node, numbers in shared.items()}
            )
            for node, answer in answers.items():
                if self._is_answer(node, answer):
                    count, numbers = counted.get(node, (0, []))
                    counted[node] = (count + int(answer or b"0"), numbers + shared[node])
                    left.difference_update(shared[node])
        return counted

    def random_of(self, node: NodeId, partitions: list[int]) -> Generator[Step, Any, bytes]:
        """Some key of these partitions of a node; nothing if the first place that was looked at holds none."""
        answers: dict[NodeId, bytes | None] = yield Ask([node], "random", _encode(partitions))
        answer = answers[node]
        return answer[1:] if answer is not None and self._is_answer(node, answer) else b""

    def _is_answer(self, node: NodeId, answer: bytes | None) -> bool:
        """Whether a node has answered. One that has not, or sees the ring otherwise, is asked again, a few times."""
        if answer is not None and not answer.startswith(b"-"):
            return True
        self._failures += 1
        if self._failures > FAILURES_MAX:
            reason = "did not answer in time" if answer is None else f"said {answer[1:].strip().decode('utf-8', 'replace')}"
            raise QuorumTimeoutError(f"node {node[:8]} {reason}; nothing was done")
        return False

    def _count(self, pieces: list[Piece]) -> None:
        self._bytes += sum(len(key) + 16 for piece in pieces for key in piece.keys)
        if self._bytes_max and self._bytes > self._bytes_max:
            raise OverloadedError("the reply would be longer than client-output-buffer-limit allows; use SCAN")
