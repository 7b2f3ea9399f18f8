"""Replies as bytes. What RESP2 has no word for is said as Redis says it to an old client: maps as flat arrays, doubles as strings.

`resp` is the protocol version of the connection, 2 or 3. Parts of an array are encoded already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
QUEUED = b"+QUEUED\r\n"
RESET = b"+RESET\r\n"
ZERO = b":0\r\n"
ONE = b":1\r\n"
EMPTY_BULK = b"$0\r\n\r\n"
EMPTY_ARRAY = b"*0\r\n"
NULL_2 = b"$-1\r\n"
NULL_ARRAY_2 = b"*-1\r\n"
NULL_3 = b"_\r\n"

_INTEGERS = tuple(b":%d\r\n" % number for number in range(1000))
_BULK_HEADERS = tuple(b"$%d\r\n" % size for size in range(1024))


def simple(text: str) -> bytes:
    """A status: text that the server chose, without line breaks."""
    assert "\r" not in text
    assert "\n" not in text
    return b"+%b\r\n" % text.encode()


def error(text: str) -> bytes:
    """An error: its code, a blank and a sentence; line breaks, which would split the reply, become blanks."""
    return b"-%b\r\n" % text.replace("\r", " ").replace("\n", " ").encode("utf-8", "surrogateescape")


def integer(number: int) -> bytes:
    """An integer."""
    if 0 <= number < 1000:
        return _INTEGERS[number]
    return b":%d\r\n" % number


def bulk(value: bytes | None, resp: int = 2) -> bytes:
    """A string, or null."""
    if value is None:
        return NULL_3 if resp == 3 else NULL_2
    size = len(value)
    if size < 1024:
        return _BULK_HEADERS[size] + value + b"\r\n"
    return b"$%d\r\n%b\r\n" % (size, value)


def null(resp: int) -> bytes:
    """Nothing, where a string or a number was asked for."""
    return NULL_3 if resp == 3 else NULL_2


def null_array(resp: int) -> bytes:
    """Nothing, where an array was asked for."""
    return NULL_3 if resp == 3 else NULL_ARRAY_2


def array(parts: Sequence[bytes]) -> bytes:
    """An array of encoded parts."""
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def bulks(values: Sequence[bytes | None], resp: int = 2) -> bytes:
    """An array of strings, as MGET and KEYS answer."""
    return array([bulk(value, resp) for value in values])


def mapping(pairs: Sequence[tuple[bytes, bytes]], resp: int) -> bytes:
    """A map of encoded keys and values."""
    body = b"".join([part for pair in pairs for part in pair])
    return b"%%%d\r\n%b" % (len(pairs), body) if resp == 3 else b"*%d\r\n%b" % (2 * len(pairs), body)


def set_of(parts: Sequence[bytes], resp: int) -> bytes:
    """A set of encoded members, all distinct."""
    return b"~%d\r\n%b" % (len(parts), b"".join(parts)) if resp == 3 else array(parts)


def push(parts: Sequence[bytes], resp: int) -> bytes:
    """Something that the client did not ask for just now."""
    return b">%d\r\n%b" % (len(parts), b"".join(parts)) if resp == 3 else array(parts)


def double(number: float, resp: int) -> bytes:
    """A floating point number, in the fewest digits that give it back."""
    text = repr(number).removesuffix(".0").encode()
    return b",%b\r\n" % text if resp == 3 else bulk(text)


def boolean(truth: bool, resp: int) -> bytes:  # noqa: FBT001 (the value itself, as for the others)
    """True or false; one or zero for an old client."""
    if resp == 3:
        return b"#t\r\n" if truth else b"#f\r\n"
    return ONE if truth else ZERO


def verbatim(text: str, resp: int) -> bytes:
    """A text for human eyes, which a client should show as it is."""
    encoded = text.encode("utf-8", "surrogateescape")
    return b"=%d\r\ntxt:%b\r\n" % (len(encoded) + 4, encoded) if resp == 3 else bulk(encoded)


def encode(value: object, resp: int) -> bytes:
    """A nested Python value, for replies that are made rarely and have many shapes (COMMAND, CLUSTER SLOTS, HELLO)."""
    match value:
        case None:
            return null(resp)
        case bool():
            return boolean(value, resp)
        case int():
            return integer(value)
        case bytes():
            return bulk(value)
        case str():
            return bulk(value.encode("utf-8", "surrogateescape"))
        case float():
            return double(value, resp)
        case Mapping():
            return mapping([(encode(key, resp), encode(item, resp)) for key, item in value.items()], resp)
        case AbstractSet():
            return set_of(_encoded(value, resp), resp)
        case list() | tuple():
            return array(_encoded(value, resp))
        case _:
            raise TypeError(f"no RESP type for {type(value).__name__}")


def _encoded(values: Iterable[object], resp: int) -> list[bytes]:
    return [encode(value, resp) for value in values]
