"""Bytes and the exact reply to them: one table for a node and for redis-server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.wire import Wire, packed

OPEN = "open"
CLOSED = "closed"


@dataclass(frozen=True)
class Case:
    """What is sent, what comes back, and whether the connection lives on."""

    name: str
    data: bytes
    reply: bytes = b""
    after: str = OPEN
    is_redis: bool = True
    """Whether redis-server 7.0 answers the same. Where not, the reason stands beside the case."""
    after_ping: bytes = b"+PONG\r\n"
    """What a PING behind it is answered, where the connection lives on."""


def protocol_error(text: str) -> bytes:
    return b"-ERR Protocol error: %b\r\n" % text.encode()


def unknown(name: str, *arguments: str) -> bytes:
    shown = "".join(f"'{word}' " for word in arguments)
    return f"-ERR unknown command '{name}', with args beginning with: {shown}\r\n".encode()


def check(wire: Wire, case: Case) -> None:
    """Send it; the reply must be this and no more, and then the connection answers a PING, or is closed."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(case.data)
    expected = case.reply
    if case.after == OPEN:
        wire.send(packed("PING"))
        expected += case.after_ping
    assert wire.read_exactly(len(expected)) == expected
    if case.after == CLOSED:
        assert wire.received() == b""


def check_redis(path: Path, cases: Sequence[Case]) -> None:
    """Hold the table against redis-server, which listens on this socket: what is compared with the table is compared with Redis."""
    for case in cases:
        if case.is_redis:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(10)
            connection.connect(str(path))
            with Wire(connection) as wire:
                check(wire, case)
