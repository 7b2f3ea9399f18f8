"""MULTI, EXEC and DISCARD: commands of one connection that begin together. WATCH makes EXEC depend on keys.

What EXEC promises: the quorums of all keys are checked first, and then all commands are begun in one turn, in order per
key, and answered at once. There is no isolation and no rollback: others may read and write in between.

WATCH is optimistic and no lock: EXEC reads the keys at the read quorum, and does nothing if it finds another version than WATCH
found. Transactions that watch the same keys run one after the other on a healthy cluster (see `server.holds`); what others write
between that look and the commands themselves goes unnoticed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.commands.table import ALL, command
from respkv.coordinator.operations import Ask, Read, Until, is_error
from respkv.errors import ClientError, TransactionAbortedError
from respkv.resp.writer import EMPTY_ARRAY, OK, null_array
from respkv.versions.records import identity, is_visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from respkv.commands.context import Client, Request
    from respkv.commands.table import Command
    from respkv.coordinator.operations import Steps
    from respkv.ids import NodeId

Queued = list[tuple["Command", list[bytes]]]
Watched = tuple[bytes, bool]
"""Which version was found, and whether there was a value."""


class Hold(msgspec.Struct, array_like=True):
    """What is asked of the primary of the smallest watched key: a place in the queue of those who watch it."""

    key: bytes
    token: bytes
    """Who asks; the same gives it back."""


HOLD_TIMEOUTS = 4
"""For so many times request-timeout a place is held at most: its holder reads, and then runs commands that take twice that."""


_FLAGS = "noscript loading stale fast allow_busy"


@command("MULTI", arity=1, flags=_FLAGS, group="transactions", since="1.2.0", complexity="O(1)", immediate=True)
def multi(request: Request) -> bytes:
    """Starts a transaction."""
    client = request.connection
    if client.transaction is not None:
        msg = "MULTI calls can not be nested"
        raise ClientError(msg)
    forget_transaction(client)
    client.transaction = []
    client.settle()
    return OK


@command(
    "EXEC",
    arity=1,
    flags="noscript loading stale skip_slowlog",
    group="transactions",
    since="1.2.0",
    complexity="Depends on commands in the transaction",
    immediate=True,
)
def exec_(request: Request) -> bytes | list[Any] | Steps:
    """Executes all commands in a transaction."""
    client = request.connection
    queued, failed = client.transaction, client.transaction_failed
    if queued is None:
        msg = "EXEC without MULTI"
        raise ClientError(msg)
    watched, client.watched = client.watched, None
    forget_transaction(client)
    if failed:
        raise TransactionAbortedError
    if watched:
        request.quorum = client.quorum_of(request.context, is_write=any(command.is_write for command, _ in queued))
        return _execute_unless_changed(request, queued, watched)
    if not queued:
        return EMPTY_ARRAY
    return request.context.run_transaction(client, queued)


def _execute_unless_changed(request: Request, queued: Queued, watched: Mapping[bytes, Watched]) -> Steps:
    coordinator, key = request.context.coordinator, min(watched)
    primary = coordinator.primary_of(key)
    token = b"%b-%d" % (request.context.me.encode(), request.context.turn.next_sequence())
    answers = yield Ask([primary], "hold", msgspec.msgpack.encode(Hold(key, token)), timeout_s=2 * coordinator.request_timeout_s)
    answer = answers[primary]
    if is_error(answer):
        return bytes(answer)
    try:
        if answer is None:
            # The place may be granted all the same, by now or later.
            return b"-TIMEOUT the primary of a watched key did not answer in time; nothing was done\r\n"
        return (yield from _look_and_execute(request, queued, watched))
    finally:
        request.context.operations.start(_release(request, primary, token), on_done=lambda _: None)


def _release(request: Request, primary: NodeId, token: bytes) -> Steps:
    """Give a place back; again while nobody hears it, for as long as the place may be held."""
    coordinator, turn = request.context.coordinator, request.context.turn
    deadline = turn.now + HOLD_TIMEOUTS * coordinator.request_timeout_s
    while turn.now < deadline:
        answers = yield Ask([primary], "release", token)
        if answers[primary] is not None:
            break
    return b""


def _look_and_execute(request: Request, queued: Queued, watched: Mapping[bytes, Watched]) -> Steps:
    found = yield Read(list(watched))
    if any(_has_changed(watched[key], _watched(record, request)) for key, record in zip(watched, found, strict=True)):
        return null_array(request.resp)
    if not queued:
        return EMPTY_ARRAY
    cell = request.context.run_transaction(request.connection, queued)
    # Its commands answer, each in its own time, or fail.
    yield Until(lambda: cell[0] is not None, math.inf)
    return bytes(cell[0])


def _has_changed(before: Watched, after: Watched) -> bool:
    # The remains of a deletion may go meanwhile: nothing stays nothing.
    was_nothing, is_nowhere = not before[1], not after[0]
    return before != after and not (was_nothing and is_nowhere)


def _watched(record: bytes, request: Request) -> Watched:
    return identity(record), is_visible(record, request.now_ms)


@command(
    "DISCARD",
    arity=1,
    flags=_FLAGS,
    group="transactions",
    since="2.0.0",
    complexity="O(N), when N is the number of queued commands",
    immediate=True,
    waits=True,
)
def discard(request: Request) -> bytes:
    """Discards a transaction."""
    client = request.connection
    if client.transaction is None:
        msg = "DISCARD without MULTI"
        raise ClientError(msg)
    client.watched = None
    forget_transaction(client)
    return OK


@command(
    "WATCH",
    arity=-2,
    flags=_FLAGS,
    keys=ALL,
    group="transactions",
    since="2.2.0",
    complexity="O(1) for every key.",
    immediate=True,
)
def watch(request: Request) -> Steps:
    """Monitors changes to keys to determine the execution of a transaction."""
    if request.connection.transaction is not None:
        msg = "WATCH inside MULTI is not allowed"
        raise ClientError(msg)
    return _watch(request)


def _watch(request: Request) -> Steps:
    keys = list(dict.fromkeys(request.args[1:]))
    found = yield Read(keys)
    watched = request.connection.watched or {}
    for key, record in zip(keys, found, strict=True):
        # Who watches a key twice means the version of the first time.
        watched.setdefault(key, _watched(record, request))
    request.connection.watched = watched
    return OK


@command("UNWATCH", arity=1, flags=_FLAGS, group="transactions", since="2.2.0", complexity="O(1)", waits=True)
def unwatch(request: Request) -> bytes:
    """Forgets about watched keys of a transaction."""
    request.connection.watched = None
    return OK


def forget_transaction(client: Client) -> None:
    """Leave MULTI."""
    client.transaction = None
    client.transaction_failed = False
    client.transaction_bytes = 0
    client.settle()
