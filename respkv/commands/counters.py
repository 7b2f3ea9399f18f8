"""Strings that are numbers. Each command reads and writes at the key's primary, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.lookup import string_in
from respkv.commands.table import FIRST, Where, command
from respkv.commands.values import put
from respkv.coordinator.operations import Read
from respkv.errors import ClientError
from respkv.resp.numbers import INTEGER_MAX, INTEGER_MIN, add_floats, format_float, parse_float, parse_integer
from respkv.resp.writer import bulk, integer
from respkv.versions.records import expiry_of

if TYPE_CHECKING:
    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps
    from respkv.resp.numbers import LongDouble

_FLAGS = "write denyoom fast"


@command("INCR", arity=2, flags=_FLAGS, keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def incr(request: Request) -> Steps:
    """Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist."""
    return _add(request, 1)


@command("DECR", arity=2, flags=_FLAGS, keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def decr(request: Request) -> Steps:
    """Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist."""
    return _add(request, -1)


@command("INCRBY", arity=3, flags=_FLAGS, keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def incrby(request: Request) -> Steps:
    """Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist."""
    return _add(request, parse_integer(request.args[2]))


@command("DECRBY", arity=3, flags=_FLAGS, keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def decrby(request: Request) -> Steps:
    """Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist."""
    decrement = parse_integer(request.args[2])
    if decrement == INTEGER_MIN:
        msg = "decrement would overflow"
        raise ClientError(msg)
    return _add(request, -decrement)


def _add(request: Request, increment: int) -> Steps:
    key = request.args[1]
    (record,) = yield Read([key])
    value = string_in(record, request)
    number = increment + (0 if value is None else parse_integer(value))
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        msg = "increment or decrement would overflow"
        raise ClientError(msg)
    expire_at_ms = None if value is None else expiry_of(record, request.now_ms)
    yield from put(request, [(key, request.string(b"%d" % number, expire_at_ms))], {key: record})
    return integer(number)


@command("INCRBYFLOAT", arity=3, flags=_FLAGS, keys=FIRST, group="string", since="2.6.0", complexity="O(1)", where=Where.PRIMARY)
def incrbyfloat(request: Request) -> Steps:
    """Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist."""
    return _add_float(request, parse_float(request.args[2]))


def _add_float(request: Request, increment: LongDouble) -> Steps:
    key = request.args[1]
    (record,) = yield Read([key])
    value = string_in(record, request)
    total = format_float(add_floats(parse_float(b"0" if value is None else value), increment))
    expire_at_ms = None if value is None else expiry_of(record, request.now_ms)
    yield from put(request, [(key, request.string(total, expire_at_ms))], {key: record})
    return bulk(total)
