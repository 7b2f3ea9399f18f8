"""A redis-server to hold replies against, on a socket in a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.commands.harness import count_replies, packed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 10.0
REPLY_S = 10.0


@contextmanager
def stock_server(folder: Path, *directives: str) -> Iterator[Path]:
    """Run redis-server without persistence; gives the path of its socket."""
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder, *directives]
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
        self.socket.sendall(b"".join(packed(each) for each in commands))
        return self.replies(len(commands))

    def replies(self, count: int) -> bytes:
        """So many replies."""
        data = b""
        while count_replies(data) < count and not self.is_closed:
            piece = self.socket.recv(1 << 20)
            data += piece
            self.is_closed = not piece
        return data
