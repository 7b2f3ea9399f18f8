"""Commands on strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.table import FIRST, command
from respkv.coordinator.operations import Read, Write
from respkv.resp.writer import bulk
from respkv.versions.records import value_of

if TYPE_CHECKING:
    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps


@command("GET", arity=2, flags="readonly fast", keys=FIRST, group="string", complexity="O(1)")
def get(request: Request) -> Steps:
    """Returns the string value of a key."""
    (record,) = yield Read([request.args[1]])
    return bulk(value_of(record, request.now_ms), request.resp)


@command("SET", arity=-3, flags="write denyoom", keys=FIRST, group="string", complexity="O(1)")
def set_(request: Request) -> Steps:
    """Sets the string value of a key, ignoring its type. The key is created if it doesn't exist."""
    yield Write([(request.args[1], request.string(request.args[2]))])
    return b"+OK\r\n"
