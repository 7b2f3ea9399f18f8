"""Commands on strings.

A SET that looks at nothing is a blind write and runs where it was asked; one with NX, XX, GET or KEEPTTL looks first, at the key's primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.expiry import Unit, parse_options, positive_moment
from respkv.commands.lookup import check_length, string_in, string_read
from respkv.commands.table import ALL, FIRST, PAIRS, Where, command
from respkv.commands.values import put
from respkv.coordinator.operations import Read, Write
from respkv.errors import ClientError, WrongTypeError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import EMPTY_BULK, OK, ONE, ZERO, bulk, bulks, integer
from respkv.versions.records import FOREVER, expiry_of, is_visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from respkv.commands.context import Request
    from respkv.commands.expiry import Options
    from respkv.coordinator.operations import Steps

SET_FLAGS = frozenset((b"NX", b"XX", b"GET"))
_LOOKS = SET_FLAGS | {b"KEEPTTL"}


@command("GET", arity=2, flags="readonly fast", keys=FIRST, group="string", complexity="O(1)")
def get(request: Request) -> Steps:
    """Returns the string value of a key."""
    key = request.args[1]
    (record,) = yield Read([key])
    request.note_read(key, record)
    return bulk(string_read(record, request), request.resp)


def _where_set(arguments: list[bytes]) -> Where:
    return Where.HERE if _LOOKS.isdisjoint(word.upper() for word in arguments[3:]) else Where.PRIMARY


@command("SET", arity=-3, flags="write denyoom", keys=FIRST, group="string", complexity="O(1)", where=_where_set)
def set_(request: Request) -> Steps:
    """Sets the string value of a key, ignoring its type. The key is created if it doesn't exist."""
    options = parse_options(request.args[3:], bare=b"KEEPTTL", flags=SET_FLAGS)
    expire_at_ms = options.moment(command="set", now_ms=request.now_ms)
    if options.flags or options.expiry == b"KEEPTTL":
        return _look_and_set(request, options, expire_at_ms)
    return _set_blindly(request, request.args[2], expire_at_ms)


def _set_blindly(request: Request, value: bytes, expire_at_ms: int | None) -> Steps:
    yield from put(request, [(request.args[1], _new_version(request, value, expire_at_ms))])
    return OK


def _new_version(request: Request, value: bytes, expire_at_ms: int | None) -> bytes:
    """A string, or at once the tombstone of one that has expired already."""
    if expire_at_ms is not None and expire_at_ms <= request.now_ms:
        return request.tombstone()
    return request.string(value, expire_at_ms)


def _look_and_set(request: Request, options: Options, expire_at_ms: int | None) -> Steps:
    key, flags = request.args[1], options.flags
    (record,) = yield Read([key])
    is_there = is_visible(record, request.now_ms)
    old = string_read(record, request) if b"GET" in flags else None
    may = not is_there if b"NX" in flags else is_there or b"XX" not in flags
    if may:
        if options.expiry == b"KEEPTTL" and is_there:
            expire_at_ms = expiry_of(record, request.now_ms)
        yield from put(request, [(key, _new_version(request, request.args[2], expire_at_ms))], {key: record})
    if b"GET" in flags:
        return bulk(old, request.resp)
    return OK if may else request.nil


@command("SETEX", arity=4, flags="write denyoom", keys=FIRST, group="string", since="2.0.0", complexity="O(1)")
def setex(request: Request) -> Steps:
    """Sets the string value and expiration time of a key. Creates the key if it doesn't exist."""
    when = positive_moment(request.args[2], Unit.SECONDS, command="setex", now_ms=request.now_ms)
    return _set_blindly(request, request.args[3], when)


@command("PSETEX", arity=4, flags="write denyoom", keys=FIRST, group="string", since="2.6.0", complexity="O(1)")
def psetex(request: Request) -> Steps:
    """Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist."""
    when = positive_moment(request.args[2], Unit.MILLISECONDS, command="psetex", now_ms=request.now_ms)
    return _set_blindly(request, request.args[3], when)


@command("SETNX", arity=3, flags="write denyoom fast", keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def setnx(request: Request) -> Steps:
    """Set the string value of a key only when the key doesn't exist."""
    key = request.args[1]
    (record,) = yield Read([key])
    if is_visible(record, request.now_ms):
        return ZERO
    yield from put(request, [(key, request.string(request.args[2]))], {key: record})
    return ONE


@command("GETSET", arity=3, flags="write denyoom fast", keys=FIRST, group="string", complexity="O(1)", where=Where.PRIMARY)
def getset(request: Request) -> Steps:
    """Returns the previous string value of a key after setting it to a new value."""
    key = request.args[1]
    (record,) = yield Read([key])
    old = string_read(record, request)
    yield from put(request, [(key, request.string(request.args[2]))], {key: record})
    return bulk(old, request.resp)


@command("GETDEL", arity=2, flags="write fast", keys=FIRST, group="string", since="6.2.0", complexity="O(1)", where=Where.PRIMARY)
def getdel(request: Request) -> Steps:
    """Returns the string value of a key after deleting the key."""
    key = request.args[1]
    (record,) = yield Read([key])
    value = string_read(record, request)
    if value is not None:
        yield from put(request, [(key, request.tombstone())], {key: record})
    return bulk(value, request.resp)


@command("GETEX", arity=-2, flags="write fast", keys=FIRST, group="string", since="6.2.0", complexity="O(1)", where=Where.PRIMARY)
def getex(request: Request) -> Steps:
    """Returns the string value of a key after setting its expiration time."""
    return _get_and_expire(request, parse_options(request.args[2:], bare=b"PERSIST"))


def _get_and_expire(request: Request, options: Options) -> Steps:
    key = request.args[1]
    (record,) = yield Read([key])
    value = string_read(record, request)
    if value is None:
        # As in Redis, nobody looks at the number then.
        return request.nil
    when = FOREVER if options.expiry == b"PERSIST" else options.moment(command="getex", now_ms=request.now_ms)
    if when is not None and when <= request.now_ms:
        yield from put(request, [(key, request.tombstone())], {key: record})
    elif when is not None and (when != FOREVER or expiry_of(record, request.now_ms) is not None):
        yield Write([(key, request.with_expiry(record, when))])
    return bulk(value)


@command("MGET", arity=-2, flags="readonly fast", keys=ALL, group="string", complexity="O(N) where N is the number of keys")
def mget(request: Request) -> Steps:
    """Returns the string values of one or more keys."""
    keys = request.args[1:]
    records = yield Read(keys)
    for key, record in zip(keys, records, strict=True):
        request.note_read(key, record)
    # A key of another type is nil here, not an error.
    return bulks([_string_or_none(record, request) for record in records], request.resp)


def _string_or_none(record: bytes, request: Request) -> bytes | None:
    try:
        return string_read(record, request)
    except WrongTypeError:
        return None


@command(
    "MSET", arity=-3, flags="write denyoom", keys=PAIRS, group="string", since="1.0.1", complexity="O(N) where N is the number of keys"
)
def mset(request: Request) -> Steps:
    """Creates or modifies the string values of one or more keys."""
    check_pairs(request)
    return _set_all(request, OK)


def check_pairs(request: Request) -> None:
    """Every key needs its value."""
    if len(request.args) % 2 == 0:
        raise ClientError(f"wrong number of arguments for '{request.args[0].decode().lower()}' command")


def _set_all(request: Request, reply: bytes, seen: Mapping[bytes, bytes] | None = None) -> Steps:
    words = request.args
    yield from put(request, [(key, request.string(value)) for key, value in zip(words[1::2], words[2::2], strict=True)], seen)
    return reply


@command(
    "MSETNX",
    arity=-3,
    flags="write denyoom",
    keys=PAIRS,
    group="string",
    since="1.0.1",
    complexity="O(N) where N is the number of keys",
    where=Where.PRIMARY,
)
def msetnx(request: Request) -> Steps:
    """Modifies the string values of one or more keys only when all keys don't exist.

    It excludes other commands that look at its keys on the first key's primary only: give the keys a hash tag
    in common where two of these must never both win.
    """
    check_pairs(request)
    return _set_all_absent(request)


def _set_all_absent(request: Request) -> Steps:
    keys = request.args[1::2]
    records = yield Read(keys)
    if any(is_visible(record, request.now_ms) for record in records):
        return ZERO
    return (yield from _set_all(request, ONE, dict(zip(keys, records, strict=True))))


@command("STRLEN", arity=2, flags="readonly fast", keys=FIRST, group="string", since="2.2.0", complexity="O(1)")
def strlen(request: Request) -> Steps:
    """Returns the length of a string value."""
    (record,) = yield Read([request.args[1]])
    return integer(len(string_read(record, request) or b""))


@command(
    "GETRANGE", arity=4, flags="readonly", keys=FIRST, group="string", since="2.4.0", complexity="O(N) where N is the length of the reply"
)
def getrange(request: Request) -> Steps:
    """Returns a substring of the string stored at a key."""
    return _range(request, parse_integer(request.args[2]), parse_integer(request.args[3]))


@command("SUBSTR", arity=4, flags="readonly", keys=FIRST, group="string", complexity="O(N) where N is the length of the reply")
def substr(request: Request) -> Steps:
    """Returns a substring from a string value."""
    return _range(request, parse_integer(request.args[2]), parse_integer(request.args[3]))


def _range(request: Request, start: int, end: int) -> Steps:
    key = request.args[1]
    (record,) = yield Read([key])
    request.note_read(key, record)
    value = string_read(record, request) or b""
    if start < 0 and end < 0 and start > end:
        return EMPTY_BULK
    # Positions before the beginning count as the first one, even for the end: so does Redis.
    first, last = (max(place + len(value) if place < 0 else place, 0) for place in (start, end))
    return bulk(value[first : last + 1])


@command("APPEND", arity=3, flags="write denyoom fast", keys=FIRST, group="string", since="2.0.0", complexity="O(1)", where=Where.PRIMARY)
def append(request: Request) -> Steps:
    """Appends a string to the value of a key. Creates the key if it doesn't exist."""
    key, addition = request.args[1:]
    (record,) = yield Read([key])
    value = string_in(record, request) or b""
    check_length(len(value) + len(addition), request)
    value += addition
    expire_at_ms = expiry_of(record, request.now_ms) if is_visible(record, request.now_ms) else None
    yield from put(request, [(key, request.string(value, expire_at_ms))], {key: record})
    return integer(len(value))


@command("SETRANGE", arity=4, flags="write denyoom", keys=FIRST, group="string", since="2.2.0", complexity="O(1)", where=Where.PRIMARY)
def setrange(request: Request) -> Steps:
    """Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist."""
    offset = parse_integer(request.args[2])
    if offset < 0:
        msg = "offset is out of range"
        raise ClientError(msg)
    return _overwrite(request, offset)


def _overwrite(request: Request, offset: int) -> Steps:
    key, _, part = request.args[1:]
    (record,) = yield Read([key])
    value = string_in(record, request)
    if not part:
        return integer(len(value or b""))
    check_length(offset + len(part), request)
    old = value or b""
    new = old[:offset].ljust(offset, b"\0") + part + old[offset + len(part) :]
    expire_at_ms = None if value is None else expiry_of(record, request.now_ms)
    yield from put(request, [(key, request.string(new, expire_at_ms))], {key: record})
    return integer(len(new))
