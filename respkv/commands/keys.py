"""Commands on keys, whatever they hold: deletion, existence, expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.expiry import Unit, check_conditions, holds, moment
from respkv.commands.lookup import exists
from respkv.commands.table import ALL, FIRST, Where, command
from respkv.commands.values import put
from respkv.coordinator.operations import Read, Write
from respkv.resp.writer import ONE, ZERO, integer, simple
from respkv.versions.records import FOREVER, expiry_of, is_visible, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps

NO_KEY = integer(-2)
NO_EXPIRY = integer(-1)


def _where_del(arguments: list[bytes]) -> Where:
    return Where.PRIMARY if len(arguments) == 2 else Where.EACH_PRIMARY


@command("DEL", arity=-2, flags="write", keys=ALL, group="generic", complexity="O(N) where N is the number of keys", where=_where_del)
def del_(request: Request) -> Steps:
    """Deletes one or more keys."""
    return _delete(request)


@command(
    "UNLINK",
    arity=-2,
    flags="write fast",
    keys=ALL,
    group="generic",
    since="4.0.0",
    complexity="O(1) for each key",
    where=_where_del,
)
def unlink(request: Request) -> Steps:
    """Deletes one or more keys, as DEL does."""
    return _delete(request)


def _delete(request: Request) -> Steps:
    keys = list(dict.fromkeys(request.args[1:]))
    records = yield Read(keys)
    found = {key: record for key, record in zip(keys, records, strict=True) if is_visible(record, request.now_ms)}
    if found:
        yield from put(request, [(key, request.tombstone()) for key in found], found)
    return integer(len(found))


@command("EXISTS", arity=-2, flags="readonly fast", keys=ALL, group="generic", complexity="O(N) where N is the number of keys")
def exists_(request: Request) -> Steps:
    """Determines whether one or more keys exist."""
    return _count(request)


@command(
    "TOUCH", arity=-2, flags="readonly fast", keys=ALL, group="generic", since="3.2.1", complexity="O(N) where N is the number of keys"
)
def touch(request: Request) -> Steps:
    """Returns the number of existing keys out of those specified."""
    return _count(request)


def _count(request: Request) -> Steps:
    records = yield Read(request.args[1:])
    return integer(sum(exists(record, request) for record in records))


@command("TYPE", arity=2, flags="readonly fast", keys=FIRST, group="generic", complexity="O(1)")
def type_(request: Request) -> Steps:
    """Determines the type of value stored at a key."""
    (record,) = yield Read([request.args[1]])
    return simple(type_name(record) if exists(record, request) else "none")


# --- expiry


@command("EXPIRE", arity=-3, flags="write fast", keys=FIRST, group="generic", complexity="O(1)", where=Where.PRIMARY)
def expire(request: Request) -> Steps:
    """Sets the expiration time of a key in seconds."""
    return _expire(request, Unit.SECONDS)


@command("PEXPIRE", arity=-3, flags="write fast", keys=FIRST, group="generic", since="2.6.0", complexity="O(1)", where=Where.PRIMARY)
def pexpire(request: Request) -> Steps:
    """Sets the expiration time of a key in milliseconds."""
    return _expire(request, Unit.MILLISECONDS)


@command("EXPIREAT", arity=-3, flags="write fast", keys=FIRST, group="generic", since="1.2.0", complexity="O(1)", where=Where.PRIMARY)
def expireat(request: Request) -> Steps:
    """Sets the expiration time of a key to a Unix timestamp."""
    return _expire(request, Unit.UNIX_SECONDS)


@command("PEXPIREAT", arity=-3, flags="write fast", keys=FIRST, group="generic", since="2.6.0", complexity="O(1)", where=Where.PRIMARY)
def pexpireat(request: Request) -> Steps:
    """Sets the expiration time of a key to a Unix milliseconds timestamp."""
    return _expire(request, Unit.UNIX_MILLISECONDS)


def _expire(request: Request, unit: Unit) -> Steps:
    conditions = check_conditions(request.args[3:])
    when = moment(request.args[2], unit, command=request.args[0].decode().lower(), now_ms=request.now_ms)
    return _set_expiry(request, when, conditions)


def _set_expiry(request: Request, when: int, conditions: frozenset[bytes]) -> Steps:
    key = request.args[1]
    (record,) = yield Read([key])
    if not is_visible(record, request.now_ms) or not holds(conditions, when=when, current=expiry_of(record, request.now_ms)):
        return ZERO
    if when > request.now_ms:
        yield Write([(key, request.with_expiry(record, when))])
    else:
        yield from put(request, [(key, request.tombstone())], {key: record})
    return ONE


@command("PERSIST", arity=2, flags="write fast", keys=FIRST, group="generic", since="2.2.0", complexity="O(1)", where=Where.PRIMARY)
def persist(request: Request) -> Steps:
    """Removes the expiration time of a key."""
    key = request.args[1]
    (record,) = yield Read([key])
    if not is_visible(record, request.now_ms) or expiry_of(record, request.now_ms) is None:
        return ZERO
    yield Write([(key, request.with_expiry(record, FOREVER))])
    return ONE


@command("TTL", arity=2, flags="readonly fast", keys=FIRST, group="generic", complexity="O(1)")
def ttl(request: Request) -> Steps:
    """Returns the expiration time in seconds of a key."""
    return _tell_expiry(request, lambda when: (when - request.now_ms + 500) // 1000)


@command("PTTL", arity=2, flags="readonly fast", keys=FIRST, group="generic", since="2.6.0", complexity="O(1)")
def pttl(request: Request) -> Steps:
    """Returns the expiration time in milliseconds of a key."""
    return _tell_expiry(request, lambda when: when - request.now_ms)


@command("EXPIRETIME", arity=2, flags="readonly fast", keys=FIRST, group="generic", since="7.0.0", complexity="O(1)")
def expiretime(request: Request) -> Steps:
    """Returns the expiration time of a key as a Unix timestamp."""
    return _tell_expiry(request, lambda when: (when + 500) // 1000)


@command("PEXPIRETIME", arity=2, flags="readonly fast", keys=FIRST, group="generic", since="7.0.0", complexity="O(1)")
def pexpiretime(request: Request) -> Steps:
    """Returns the expiration time of a key as a Unix milliseconds timestamp."""
    return _tell_expiry(request, lambda when: when)


def _tell_expiry(request: Request, told: Callable[[int], int]) -> Steps:
    (record,) = yield Read([request.args[1]])
    if not exists(record, request):
        return NO_KEY
    when = expiry_of(record, request.now_ms)
    return NO_EXPIRY if when is None else integer(told(when))
