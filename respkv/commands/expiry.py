"""When keys expire: what clients write about it, checked and turned into unix milliseconds. Redis's words for each refusal."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from respkv.errors import ClientError, SyntaxProblemError
from respkv.resp.numbers import INTEGER_MAX, parse_integer

if TYPE_CHECKING:
    from collections.abc import Mapping


class Unit(enum.Enum):
    """How a time is given: (milliseconds in its unit, whether it counts from now)."""

    SECONDS = (1000, True)
    MILLISECONDS = (1, True)
    UNIX_SECONDS = (1000, False)
    UNIX_MILLISECONDS = (1, False)


UNITS: Mapping[bytes, Unit] = {
    b"EX": Unit.SECONDS,
    b"PX": Unit.MILLISECONDS,
    b"EXAT": Unit.UNIX_SECONDS,
    b"PXAT": Unit.UNIX_MILLISECONDS,
}
"""The options of SET and GETEX."""


def moment(text: bytes, unit: Unit, *, command: str, now_ms: int) -> int:
    """The unix millisecond that a client means, be it past or to come, for EXPIRE and its like."""
    factor, is_relative = unit.value
    number = parse_integer(text)
    if not -((INTEGER_MAX + 1) // factor) <= number <= INTEGER_MAX // factor:
        raise unfit(command)
    when = number * factor
    start = now_ms if is_relative else 0
    if when > INTEGER_MAX - start:
        raise unfit(command)
    return when + start


def positive_moment(text: bytes, unit: Unit, *, command: str, now_ms: int) -> int:
    """The same where only a number above zero makes sense: SET, SETEX, GETEX."""
    number = parse_integer(text)
    if number <= 0:
        raise unfit(command)
    return moment(text, unit, command=command, now_ms=now_ms)


def unfit(command: str) -> ClientError:
    """The error for a time that no key can have."""
    return ClientError(f"invalid expire time in '{command}' command")


def check_conditions(words: list[bytes]) -> frozenset[bytes]:
    """The conditions of EXPIRE and its like, in capitals."""
    for word in words:
        if word.upper() not in {b"NX", b"XX", b"GT", b"LT"}:
            raise ClientError(f"Unsupported option {word.decode('utf-8', 'surrogateescape')}")
    found = frozenset(word.upper() for word in words)
    if b"NX" in found and len(found) > 1:
        raise ClientError("NX and XX, GT or LT options at the same time are not compatible")
    if found >= {b"GT", b"LT"}:
        raise ClientError("GT and LT options at the same time are not compatible")
    return found


def holds(conditions: frozenset[bytes], *, when: int, current: int | None) -> bool:
    """Whether a key that expires at `current` (None: never, which is later than anything) may be made to expire at `when`."""
    if b"NX" in conditions and current is not None:
        return False
    if b"XX" in conditions and current is None:
        return False
    if b"GT" in conditions and (current is None or when <= current):
        return False
    return not (b"LT" in conditions and current is not None and when >= current)


class Options(NamedTuple):
    """The words behind the value of SET, or the key of GETEX."""

    expiry: bytes
    """EX, PX, EXAT, PXAT, the word that comes without a number (KEEPTTL, PERSIST), or nothing."""
    text: bytes
    """The number behind it."""
    flags: frozenset[bytes]

    def moment(self, *, command: str, now_ms: int) -> int | None:
        """The unix millisecond that was chosen, if one was."""
        unit = UNITS.get(self.expiry)
        return None if unit is None else positive_moment(self.text, unit, command=command, now_ms=now_ms)


def parse_options(words: list[bytes], *, bare: bytes, flags: frozenset[bytes] = frozenset()) -> Options:
    """Read options in any case and order, of which only one may speak of expiry; `bare` is the one without a number."""
    expiry = text = b""
    found: set[bytes] = set()
    rest = iter(words)
    for word in rest:
        option = word.upper()
        if option in flags:
            found.add(option)
        elif expiry not in {b"", option}:
            raise SyntaxProblemError
        elif option == bare:
            expiry = option
        elif option in UNITS:
            expiry = option
            number = next(rest, None)
            if number is None:
                raise SyntaxProblemError
            text = number
        else:
            raise SyntaxProblemError
    if found >= {b"NX", b"XX"}:
        raise SyntaxProblemError
    return Options(expiry, text, frozenset(found))
