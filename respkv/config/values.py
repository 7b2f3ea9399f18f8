"""An argument of a directive becomes a value, and a value becomes text again.

Rule 1: what CONFIG GET shows, CONFIG SET accepts, and it means the same.
Rule 2: Redis's words for what is wrong. Where Redis reads nonsense as a number (`kb`, an empty
    string, a number beyond 64 bits), it is refused here with the same words.
"""

from __future__ import annotations

from typing import NamedTuple

from respkv.config.directive import INT64_MAX, Directive, Kind


class BufferLimit(NamedTuple):
    """When the unsent replies of one client are too many. 0 is no limit."""

    hard_bytes: int
    """Above it, the client is closed at once."""
    soft_bytes: int
    soft_s: int
    """The client is closed when it was above `soft_bytes` for that long."""


class BufferLimits(NamedTuple):
    """The limits of each class of clients that Redis knows."""

    normal: BufferLimit
    slave: BufferLimit
    pubsub: BufferLimit


Value = bool | int | str | tuple[str, ...] | BufferLimits

QUORUM_WORDS = ("one", "quorum", "all")

_MEMORY_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
_NO_LIMIT = BufferLimit(0, 0, 0)
_CLIENT_CLASSES = {"normal": "normal", "slave": "slave", "replica": "slave", "pubsub": "pubsub"}


class UnfitArgumentError(Exception):
    """An argument that its directive cannot take; the message is the end of a sentence to the operator."""


def parse(directive: Directive, arguments: list[str], *, current: Value | None = None) -> Value:
    """The value that these arguments mean; `current` is what a partial setting leaves standing."""
    kind = directive.kind
    if kind is Kind.LIST:
        return _parse_list(directive, arguments)
    if kind is Kind.BUFFER_LIMITS:
        return _parse_buffer_limits(arguments, current)
    if len(arguments) != 1:
        raise UnfitArgumentError("wrong number of arguments")
    text = arguments[0]
    match kind:
        case Kind.BOOL:
            return _parse_bool(text)
        case Kind.INTEGER:
            return _parse_integer(directive, text)
        case Kind.MEMORY:
            return _within(directive, parse_memory(text))
        case Kind.ENUM:
            return _parse_enum(directive, text)
        case Kind.QUORUM:
            return _parse_quorum(directive, text)
        case Kind.STRING:
            return _parse_string(directive, text)


def show(value: Value) -> str:
    """What CONFIG GET prints."""
    if value is True:
        return "yes"
    if value is False:
        return "no"
    if isinstance(value, BufferLimits):
        return " ".join(f"{name} {limit.hard_bytes} {limit.soft_bytes} {limit.soft_s}" for name, limit in value._asdict().items())
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def arguments_of(directive: Directive, text: str) -> list[str]:
    """Cut what CONFIG SET was given in one argument, or CONFIG GET showed, into the arguments of a line."""
    if directive.kind in {Kind.LIST, Kind.BUFFER_LIMITS}:
        return text.split(" ") if text else []
    return [text]


def parse_memory(text: str) -> int:
    """`64mb`, `1g`, `100`: a number of bytes."""
    digits = text.rstrip("bBkKmMgG")
    unit = _MEMORY_UNITS.get(text[len(digits) :].lower())
    if unit is None or not is_decimal(digits) or len(digits) > 20 or int(digits) * unit > INT64_MAX:
        raise UnfitArgumentError("argument must be a memory value")
    return int(digits) * unit


def show_memory(count: int) -> str:
    """The shortest exact way to write a number of bytes in a file."""
    for unit in ("gb", "mb", "kb"):
        if count and count % _MEMORY_UNITS[unit] == 0:
            return f"{count // _MEMORY_UNITS[unit]}{unit}"
    return str(count)


def is_decimal(text: str) -> bool:
    """Whether it is made of ASCII digits alone: `int` also takes blanks, underscores and other scripts."""
    return text.isascii() and text.isdigit()


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word not in {"yes", "no"}:
        raise UnfitArgumentError("argument must be 'yes' or 'no'")
    return word == "yes"


def _parse_integer(directive: Directive, text: str) -> int:
    digits = text.removeprefix("-")
    # As Redis's string2ll: no sign but a minus, no leading zero, no more than 64 bits.
    if not is_decimal(digits) or len(text) > 20 or str(int(text)) != text or not -INT64_MAX - 1 <= int(text) <= INT64_MAX:
        raise UnfitArgumentError("argument couldn't be parsed into an integer")
    value = _within(directive, int(text))
    if reason := directive.check(text):
        raise UnfitArgumentError(reason)
    return value


def _within(directive: Directive, number: int) -> int:
    if not directive.minimum <= number <= directive.maximum:
        raise UnfitArgumentError(f"argument must be between {directive.minimum} and {directive.maximum} inclusive")
    return number


def _parse_enum(directive: Directive, text: str) -> str:
    if text.lower() not in directive.choices:
        listed = ", ".join(choice or '""' for choice in directive.choices)
        raise UnfitArgumentError(f"argument(s) must be one of the following: {listed}")
    return text.lower()


def _parse_quorum(directive: Directive, text: str) -> str:
    word = text.lower()
    if word in QUORUM_WORDS:
        return word
    if not is_decimal(text) or len(text) > 20 or str(int(text)) != text:
        raise UnfitArgumentError("argument must be 'one', 'quorum', 'all' or a number")
    return str(_within(directive, int(text)))


def _parse_string(directive: Directive, text: str) -> str:
    if not directive.sensitive and any(character < " " or character == "\x7f" for character in text):
        raise UnfitArgumentError("argument must not contain control characters")
    if reason := directive.check(text):
        raise UnfitArgumentError(reason)
    return text


def _parse_list(directive: Directive, arguments: list[str]) -> tuple[str, ...]:
    items = tuple(item for argument in arguments for item in argument.split(" ") if item)
    if not directive.minimum <= len(items) <= directive.maximum or len(items) % directive.item_words:
        raise UnfitArgumentError("wrong number of arguments")
    for start in range(0, len(items), directive.item_words):
        _parse_string(directive, " ".join(items[start : start + directive.item_words]))
    return items


def _parse_buffer_limits(arguments: list[str], current: Value | None) -> BufferLimits:
    words = [word for argument in arguments for word in argument.split(" ") if word]
    if not words or len(words) % 4:
        raise UnfitArgumentError("Wrong number of arguments in buffer limit configuration.")
    limits = current if isinstance(current, BufferLimits) else BufferLimits(_NO_LIMIT, _NO_LIMIT, _NO_LIMIT)
    for start in range(0, len(words), 4):
        client_class, hard, soft, seconds = words[start : start + 4]
        name = _CLIENT_CLASSES.get(client_class.lower())
        if name is None:
            raise UnfitArgumentError("Invalid client class specified in buffer limit configuration.")
        limits = limits._replace(**{name: _parse_buffer_limit(hard, soft, seconds)})
    return limits


def _parse_buffer_limit(hard: str, soft: str, seconds: str) -> BufferLimit:
    try:
        if is_decimal(seconds) and len(seconds) < 10:
            return BufferLimit(parse_memory(hard), parse_memory(soft), int(seconds))
    except UnfitArgumentError:
        pass
    raise UnfitArgumentError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
