"""Commands on all keys. They speak for the whole cluster, or for this node's part of it: see `scan-scope`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from respkv.commands.partition_walk import Walk, partitions_in_scope
from respkv.commands.table import command
from respkv.coordinator.operations import Write
from respkv.errors import SyntaxProblemError
from respkv.resp.glob import matches
from respkv.resp.numbers import INTEGER_MAX, parse_cursor, parse_integer
from respkv.resp.writer import EMPTY_ARRAY, OK, array, bulk, integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from respkv.commands.context import Context, Request
    from respkv.coordinator.operations import Steps

CURSOR_BITS = 53
"""Some clients keep cursors in floating point numbers: they are exact up to here."""
COUNT_DEFAULT = 10
WINDOW_MIN = 32
WINDOW_MAX = 256
"""Partitions that are asked for in one round."""
SCAN_KEYS_MAX = 100_000
SCAN_BYTES_MAX = 4 << 20
"""COUNT is a hint: a reply ends beyond these, and the next call goes on."""
END_OF_SCAN = array([bulk(b"0"), EMPTY_ARRAY])
TYPES = frozenset((b"string",))
"""Types of keys that exist here."""
RANDOM_TRIES = 16
FLUSHED_PER_WRITE = 500


@command("KEYS", arity=2, flags="readonly", group="generic", complexity="O(N) with N being the number of keys in the cluster")
def keys(request: Request) -> Steps:
    """Returns all key names that match a pattern."""
    matches(request.args[1], b"-")
    return _keys(request.context, request.args[1])


def _keys(context: Context, pattern: bytes) -> Steps:
    walk = Walk(context, pattern=None if pattern == b"*" else pattern)
    pending = dict.fromkeys(partitions_in_scope(context), 0)
    count = 0
    parts: list[bytes] = []
    while pending:
        pieces = yield from walk.round(dict(islice(pending.items(), WINDOW_MAX)), limit=INTEGER_MAX)
        for piece in pieces:
            count += len(piece.keys)
            parts.append(b"".join([bulk(key) for key in piece.keys]))
            if piece.next_hash is None:
                del pending[piece.partition]
            else:
                pending[piece.partition] = piece.next_hash
    return b"*%d\r\n" % count + b"".join(parts)


class _ScanOptions:
    """MATCH, COUNT and TYPE."""

    def __init__(self, options: list[bytes]) -> None:
        self.pattern: bytes | None = None
        self.count = COUNT_DEFAULT
        self.has_type = True
        pairs = iter(options)
        for name in pairs:
            argument = next(pairs, None)
            if argument is None:
                raise SyntaxProblemError
            match name.upper():
                case b"MATCH":
                    matches(argument, b"-")
                    self.pattern = None if argument == b"*" else argument
                case b"COUNT":
                    self.count = parse_integer(argument)
                    if self.count < 1:
                        raise SyntaxProblemError
                case b"TYPE":
                    self.has_type = argument.lower() in TYPES
                case _:
                    raise SyntaxProblemError


@command("SCAN", arity=-2, flags="readonly", group="generic", since="2.8.0", complexity="O(1) for every call")
def scan(request: Request) -> bytes | Steps:
    """Iterates over the key names in the database."""
    cursor = parse_cursor(request.args[1])
    options = _ScanOptions(request.args[2:])
    ring_size = request.context.ring.size
    hash_bits = CURSOR_BITS - (ring_size.bit_length() - 1)
    partition, prefix = cursor >> hash_bits, cursor & (1 << hash_bits) - 1
    if not options.has_type or partition >= ring_size:
        return END_OF_SCAN
    return _scan(request.context, options, (partition, prefix << 64 - hash_bits), hash_bits=hash_bits)


def _scan(context: Context, options: _ScanOptions, position: tuple[int, int], *, hash_bits: int) -> Steps:
    walk = Walk(context, pattern=options.pattern)
    parts: list[bytes] = []
    count = looked_at = found_bytes = 0
    window = WINDOW_MIN
    left = {number: 0 for number in partitions_in_scope(context) if number >= position[0]}
    if position[0] in left:
        left[position[0]] = position[1]
    while left and looked_at < min(options.count, SCAN_KEYS_MAX) and found_bytes < SCAN_BYTES_MAX:
        asked = dict(islice(left.items(), window))
        window = min(2 * window, WINDOW_MAX)
        pieces = {piece.partition: piece for piece in (yield from walk.round(asked, limit=options.count - looked_at))}
        # What came is taken in the order of partitions, up to the first that is not complete: there the cursor stands.
        for number in asked:
            piece = pieces.get(number)
            if piece is None:
                break
            parts.append(b"".join([bulk(key) for key in piece.keys]))
            count += len(piece.keys)
            found_bytes += len(parts[-1])
            looked_at += piece.looked_at
            if piece.next_hash is not None:
                left[number] = piece.next_hash
                break
            del left[number]
            if looked_at >= options.count:
                break
    cursor = 0
    if left:
        number, first_hash = next(iter(left.items()))
        cursor = number << hash_bits | first_hash >> 64 - hash_bits
    return array([bulk(b"%d" % cursor), b"*%d\r\n" % count + b"".join(parts)])


@command("DBSIZE", arity=1, flags="readonly fast", group="server", waits=True, complexity="O(N) with N being the number of nodes")
def dbsize(request: Request) -> Steps:
    """Returns the number of keys in the database."""
    counted = yield from Walk(request.context).counts(partitions_in_scope(request.context))
    return integer(sum(count for count, _ in counted.values()))


@command("RANDOMKEY", arity=1, flags="readonly", group="generic", complexity="O(N) with N being the number of nodes")
def randomkey(request: Request) -> Steps:
    """Returns a random key name from the database."""
    context = request.context
    walk = Walk(context)
    for _ in range(RANDOM_TRIES):
        counted = yield from walk.counts(partitions_in_scope(context))
        nodes = [node for node, (count, _) in counted.items() if count]
        if not nodes:
            break
        node = context.rng.choices(nodes, weights=[counted[node][0] for node in nodes])[0]
        found = yield from walk.random_of(node, counted[node][1])
        if found:
            return bulk(found)
    return request.nil


@command("FLUSHALL", arity=-1, flags="write", group="server", complexity="O(1)")
def flushall(request: Request) -> Steps:
    """Removes all keys from all databases."""
    return _flush(request)


@command("FLUSHDB", arity=-1, flags="write", group="server", complexity="O(1)")
def flushdb(request: Request) -> Steps:
    """Removes all keys from the current database."""
    return _flush(request)


def _flush(request: Request) -> Steps:
    if len(request.args) > 2 or (len(request.args) == 2 and request.args[1].upper() not in {b"ASYNC", b"SYNC"}):
        raise SyntaxProblemError
    partitions = partitions_in_scope(request.context)
    if len(partitions) == request.context.ring.size:
        return request.context.flush_all()
    return _delete_all(request, partitions)


def _delete_all(request: Request, partitions: Sequence[int]) -> Steps:
    """The floor of FLUSHALL is the whole cluster's: for a part of it each key is deleted."""
    walk = Walk(request.context)
    pending = dict.fromkeys(partitions, 0)
    while pending:
        pieces = yield from walk.round(dict(islice(pending.items(), WINDOW_MAX)), limit=FLUSHED_PER_WRITE)
        found = [key for piece in pieces for key in piece.keys]
        if found:
            yield Write([(key, request.tombstone()) for key in found])
        for piece in pieces:
            if piece.next_hash is None:
                del pending[piece.partition]
            else:
                pending[piece.partition] = piece.next_hash
    return OK
