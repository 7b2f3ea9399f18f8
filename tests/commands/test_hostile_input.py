"""Bytes that no client should send: redis-server's answer and its decision to close, and nothing that anybody else notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands.harness import Connection, World, packed
from tests.commands.stock import StockConnection, stock_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PING = packed("PING")
INPUTS = {
    "inline": b"PING\r\nPING\n  PING  \r\n",
    "empty lines and empty arrays": b"\r\n\r\n*0\r\n*-1\r\n*-10\r\n*-99999999999999\r\n",
    "an unbalanced quote": b'SET k "abc\r\n',
    "a quote that a word sticks to": b'SET k "a"b\r\n',
    "an escape in quotes": b'ECHO "\\x41\\n\\"" \r\n',
    "a line without end": b"x" * 65600,
    "a long line with an end": b"A" * 70000 + b"\r\n",
    "a count that is none": b"*abc\r\n",
    "no count": b"*\r\n",
    "a count with a plus": b"*+1\r\n",
    "a count with a blank": b"* 1\r\n",
    "a count with a zero in front": b"*01\r\n",
    "a broken count": b"*1.5\r\n",
    "too many arguments": b"*2147483648\r\n",
    "far too many arguments": b"*20000000000000000000\r\n",
    "a count without end": b"*" + b"1" * 65600,
    "words where a size is due": b"*1\r\nPING\r\n",
    "an integer where a size is due": b"*1\r\n:1\r\n",
    "an array where a size is due": b"*1\r\n*1\r\n",
    "a size below zero": b"*2\r\n$4\r\nECHO\r\n$-1\r\n",
    "a size that is none": b"*1\r\n$abc\r\n",
    "no size": b"*1\r\n$\r\n",
    "a size with a plus": b"*1\r\n$+4\r\n",
    "a size with a zero in front": b"*1\r\n$04\r\n",
    "a huge size": b"*1\r\n$99999999999999999999\r\n",
    "a size above the limit": b"*1\r\n$67108865\r\n",
    "a size without end": b"*1\r\n$" + b"1" * 65600,
    "RESP replies at the top": b"$4\r\n:1\r\n(123\r\n%1\r\n+OK\r\n-ERR x\r\n_\r\n",
    "an empty name": b"*1\r\n$0\r\n\r\n",
    "an empty name with arguments": b"*3\r\n$0\r\n\r\n$0\r\n\r\n$1\r\na\r\n",
    "line breaks in a name": b"*2\r\n$6\r\na\r\n\r\nb\r\n$4\r\n\r\n\r\n\r\n",
    "NUL in a name": b"*1\r\n$3\r\na\0b\r\n",
    "bytes that are no text": b"*2\r\n$2\r\n\xff\xfe\r\n$1\r\n\x80\r\n",
    "HTTP": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP as RESP": packed("POST") + packed("SET k 9"),
    "HTTP in any case": packed("hOST: x") + packed("SET k 9"),
    "commands before HTTP": packed("SET k 1") + packed("INCR k") + packed("post /") + packed("INCR k"),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "commands before the fault": packed("SET k 1") + packed("INCR k") + packed("GET k") + b"*1\r\n:1\r\n" + packed("INCR k"),
    "a fault in the middle of a transaction": packed("MULTI") + packed("SET k 9") + b"*x\r\n" + packed("EXEC"),
}

WHOLE = {"a long line with an end", "HTTP GET", "commands before HTTP"}
"""What is answered otherwise when it comes in pieces: a line that is too long is a command when it comes at once, and replies
to what comes together with HTTP are never sent."""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock_server(tmp_path_factory.mktemp("redis"), "--proto-max-bulk-len", "64mb") as path:
        yield path


def chunks_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def answer(client: Connection, data: bytes, *, chunk_bytes: int) -> bytes:
    for chunk in chunks_of(data, chunk_bytes):
        client.send(chunk)
        client.world.run(0.01)
    client.world.run(1.0)
    return client.take()


@pytest.mark.stock("redis-server")
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("name", INPUTS)
def test_hostile_bytes_are_answered_as_redis_does(stock: Path, name: str, nodes: int) -> None:
    data = INPUTS[name] + PING
    with StockConnection(stock) as theirs:
        expected = theirs.exchange(data)
    world = World(nodes)
    pieces = [len(data)] if name in WHOLE else [len(data), 7 if len(data) < 1000 else 5000]
    for chunk_bytes in pieces:
        bystander = world.connect(0)
        bystander.send(packed("SET bystander 1")[:-5])
        ours = world.connect(0)
        assert (answer(ours, data, chunk_bytes=chunk_bytes), ours.is_closed) == (expected, theirs.is_closed)
        bystander.send(packed("SET bystander 1")[-5:])
        assert bystander.replies(1) == b"+OK\r\n"
        world.connect(0).ask("DEL k")
