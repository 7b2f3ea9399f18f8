"""Commands about the connection itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.table import command
from respkv.resp.writer import bulk

if TYPE_CHECKING:
    from respkv.commands.context import Request


@command("PING", arity=-1, flags="fast", group="connection", complexity="O(1)")
def ping(request: Request) -> bytes:
    """Returns the server's liveliness response."""
    return b"+PONG\r\n" if len(request.args) == 1 else bulk(request.args[1], request.resp)
