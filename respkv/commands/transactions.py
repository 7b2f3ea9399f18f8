"""MULTI, EXEC and DISCARD: commands of one connection that begin together.

What EXEC promises: the quorums of all keys are checked first, and then all commands are begun in one turn, in order per
key, and answered at once. There is no isolation and no rollback: others may read and write in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from respkv.commands.table import ALL, command
from respkv.errors import ClientError, TransactionAbortedError
from respkv.resp.writer import EMPTY_ARRAY, OK

if TYPE_CHECKING:
    from respkv.commands.context import Client, Request

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
def exec_(request: Request) -> bytes | list[Any]:
    """Executes all commands in a transaction."""
    client = request.connection
    queued, failed = client.transaction, client.transaction_failed
    if queued is None:
        msg = "EXEC without MULTI"
        raise ClientError(msg)
    forget_transaction(client)
    if failed:
        raise TransactionAbortedError
    if not queued:
        return EMPTY_ARRAY
    return request.context.run_transaction(client, queued)


@command(
    "DISCARD",
    arity=1,
    flags=_FLAGS,
    group="transactions",
    since="2.0.0",
    complexity="O(N), when N is the number of queued commands",
    immediate=True,
)
def discard(request: Request) -> bytes:
    """Discards a transaction."""
    client = request.connection
    if client.transaction is None:
        msg = "DISCARD without MULTI"
        raise ClientError(msg)
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
def watch(request: Request) -> bytes:
    """Refused: no transaction of this version can depend on keys."""
    if request.connection.transaction is not None:
        msg = "WATCH inside MULTI is not allowed"
        raise ClientError(msg)
    msg = "WATCH is not supported: EXEC runs whether or not its keys have changed"
    raise ClientError(msg)


def forget_transaction(client: Client) -> None:
    """Leave MULTI."""
    client.transaction = None
    client.transaction_failed = False
    client.transaction_bytes = 0
    client.settle()
