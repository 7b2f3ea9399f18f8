"""A client that sends exactly what it is told, and sees every byte that comes back."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis

REPLY_S = 20.0
READ_BYTES = 1 << 20
PIPELINE_LEN = 500

Word = str | bytes | int


def packed(*words: Word) -> bytes:
    """One command as a client sends it."""
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


class Wire:
    """A connection. Errors among replies are values of `hiredis.ReplyError`."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.reader = hiredis.Reader()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def reply(self) -> Any:
        """The next reply. Raises `ConnectionError` where the node closes instead."""
        while (reply := self.reader.gets()) is False:
            data = self.socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError("closed by the node")
            self.reader.feed(data)
        return reply

    def ask(self, *words: Word) -> Any:
        """One command and its reply."""
        self.send(packed(*words))
        return self.reply()

    def ask_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Many commands in pipelines of moderate length; their replies in order."""
        replies: list[Any] = []
        for start in range(0, len(commands), PIPELINE_LEN):
            part = commands[start : start + PIPELINE_LEN]
            self.send(b"".join(packed(*words) for words in part))
            replies += [self.reply() for _ in part]
        return replies

    def bytes_until_close(self) -> bytes:
        """All that comes before the node closes. Raises `TimeoutError` where it does not."""
        data = b""
        while piece := self.received():
            data += piece
        return data

    def received(self) -> bytes:
        """What has come, once something has; nothing where the node has closed, gently or not."""
        try:
            return self.socket.recv(READ_BYTES)
        except ConnectionResetError:
            return b""

    def read_exactly(self, size: int) -> bytes:
        """So many bytes, fewer only where the node closes."""
        data = b""
        while len(data) < size and (piece := self.socket.recv(size - len(data))):
            data += piece
        return data


def wire_to(port: int, *, host: str = "127.0.0.1", timeout_s: float = REPLY_S) -> Wire:
    """Connect to a port of this machine."""
    connection = socket.create_connection((host, port), timeout=timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(connection)


def is_error(reply: object, code: str = "") -> bool:
    """Whether a reply is an error, of this code if one is given."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(code)


def errors_in(replies: Iterable[object]) -> list[str]:
    """The texts of all errors among replies."""
    return [str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)]
