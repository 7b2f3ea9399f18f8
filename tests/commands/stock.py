"""A redis-server to hold replies against, on a socket in a folder of its own."""

from __future__ import annotations

import itertools
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.commands.harness import count_replies, packed, split_replies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Command = list[bytes]

START_S = 10.0
REPLY_S = 10.0


@contextmanager
def stock_server(folder: Path, *directives: str) -> Iterator[Path]:
    """Run redis-server without persistence; gives the path of its socket."""
    path = folder / "redis.sock"
    command = [
        "redis-server",
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
        *directives,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not answers(path):
            assert process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


def answers(path: Path) -> bool:
    """Whether the server takes connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class StockConnection:
    """A client of redis-server with the face of the harness's `Connection`."""

    def __init__(self, path: Path) -> None:
        """Connect."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(REPLY_S)
        self.socket.connect(str(path))
        self.is_closed = False

    def __enter__(self) -> StockConnection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def ask(self, *commands: str | list[bytes]) -> bytes:
        """Send commands in one packet; their replies, or what came before the server closed the connection."""
        try:
            self.socket.sendall(b"".join(packed(each) for each in commands))
            return self.replies(len(commands))
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True
            return b""

    def exchange(self, data: bytes) -> bytes:
        """Send raw bytes whose last are a PING; all that the server says until it answers that, or closes the connection."""
        received = b""
        try:
            self.socket.sendall(data)
            while not received.endswith(b"+PONG\r\n") or received.count(b"+PONG") < data.count(b"PING"):
                piece = self.socket.recv(1 << 20)
                received += piece
                if not piece:
                    self.is_closed = True
                    break
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True
        return received

    def replies(self, count: int) -> bytes:
        """So many replies."""
        data = b""
        while count_replies(data) < count and not self.is_closed:
            piece = self.socket.recv(1 << 20)
            data += piece
            self.is_closed = not piece
        return data


def differences(sent: list[Command], ours: bytes, theirs: bytes) -> list[tuple[Command, bytes | None, bytes | None]]:
    """The commands that were answered differently, with both replies."""
    if is_same(ours, theirs):
        return []
    replies = itertools.zip_longest(sent, split_replies(ours), split_replies(theirs))
    return [
        (command, our, their)
        for command, our, their in replies
        if not is_same(our or b"", their or b"") and not is_ttl(command, our, their)
    ]


def is_ttl(command: Command, our: bytes | None, their: bytes | None) -> bool:
    """Whether both replies tell a TTL, to within the second that passed between the two servers."""
    if command[0].upper() != b"TTL" or our is None or their is None:
        return False
    return our[:1] == their[:1] == b":" and abs(int(our[1:]) - int(their[1:])) <= 1


def is_same(ours: bytes, theirs: bytes) -> bool:
    """Whether replies are equal, moments near the present one (EXPIRETIME after EXPIRE) to within a minute."""
    our_lines, their_lines = ours.split(b"\r\n"), theirs.split(b"\r\n")
    return ours == theirs or (
        len(our_lines) == len(their_lines)
        and all(our == their or is_near(our, their) for our, their in zip(our_lines, their_lines, strict=True))
    )


def is_near(our: bytes, their: bytes) -> bool:
    if not (our.startswith(b":") and their.startswith(b":")):
        return False
    left, right, now_s = int(our[1:]), int(their[1:]), time.time_ns() // 10**9
    return any(abs(left - now_s * unit) < 5000 * unit and abs(left - right) < 60 * unit for unit in (1, 1000))
