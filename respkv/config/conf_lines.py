r"""The syntax of redis.conf: one directive a line, `#` comments, `"..."` with \xHH and \n escapes, `'...'` without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.config.directive import Kind
from respkv.config.values import BufferLimits, Value, show, show_memory
from respkv.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.config.directive import Directive

_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_ESCAPED = {byte: rf"\{chr(letter)}" for letter, byte in _ESCAPES.items()} | {ord('"'): r"\"", ord("\\"): r"\\"}
_BLANKS = frozenset(b" \n\r\t\0")
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_QUOTE, _APOSTROPHE, _BACKSLASH = b"\"'\\"


@dataclass(frozen=True, slots=True)
class Line:
    """One directive as it was written, and where."""

    source: str
    """A path, or "the command line"."""
    number: int
    text: str
    name: str
    """In lower case."""
    arguments: list[str]

    @property
    def place(self) -> str:
        """Where to look, for a sentence."""
        return f"{self.source}, at line {self.number}" if self.number else self.source

    def fault(self, reason: str, *, sensitive: bool = False) -> ConfigurationError:
        """An error that shows the line, unless it holds a password, and what is wrong with it."""
        text = f"{self.name} (hidden)" if sensitive else self.text
        return ConfigurationError(f"Reading {self.place}\n>>> '{text}'\n{reason}")


def lines_of(text: str, *, source: str) -> Iterator[Line]:
    """The directives of a file, without blank lines and comments. Raises `ConfigurationError` for a quote that does not end."""
    for number, raw in enumerate(text.split("\n"), start=1):
        line = parse_line(raw, source=source, number=number)
        if line is not None:
            yield line


def parse_line(raw: str, *, source: str, number: int) -> Line | None:
    """The directive on a line, or None where there is none."""
    text = raw.strip(" \t\r\n")
    if not text or text.startswith("#"):
        return None
    try:
        arguments = split_line(text)
    except ConfigurationError as error:
        raise Line(source, number, text, "", []).fault(str(error)) from None
    if not arguments:
        return None
    return Line(source, number, text, arguments[0].lower(), arguments[1:])


def split_line(text: str) -> list[str]:
    """Cut a line into words as Redis does (`sdssplitargs`). Raises `ConfigurationError` if quotes do not match.

    A closing quote must be followed by a blank or the end. Escapes make bytes, so bytes are what is cut.
    """
    data = text.encode("utf-8", "surrogateescape")
    words: list[str] = []
    at = 0
    while True:
        while at < len(data) and data[at] in _BLANKS:
            at += 1
        if at == len(data):
            return words
        word = bytearray()
        while at < len(data) and data[at] not in _BLANKS:
            if data[at] not in {_QUOTE, _APOSTROPHE}:
                word.append(data[at])
                at += 1
                continue
            end = _quoted(data, at + 1, mark=data[at], into=word)
            if end is None or (end < len(data) and data[end] not in _BLANKS):
                raise ConfigurationError("Unbalanced quotes in configuration line")
            at = end
        words.append(word.decode("utf-8", "surrogateescape"))


def _quoted(data: bytes, at: int, *, mark: int, into: bytearray) -> int | None:
    """Read up to the closing mark, and say what follows it; None if there is none."""
    while at < len(data):
        byte = data[at]
        at += 1
        if byte == mark:
            return at
        if byte == _BACKSLASH and at < len(data):
            if mark == _APOSTROPHE:
                if data[at] == _APOSTROPHE:
                    byte = _APOSTROPHE
                    at += 1
            elif data[at] == ord("x") and at + 2 < len(data) and _HEX_DIGITS.issuperset(data[at + 1 : at + 3]):
                byte = int(data[at + 1 : at + 3], 16)
                at += 3
            else:
                byte = _ESCAPES.get(data[at], data[at])
                at += 1
        into.append(byte)
    return None


def in_quotes(text: str) -> str:
    """A word between quotes, with everything escaped that is not printable ASCII (`sdscatrepr`)."""
    data = text.encode("utf-8", "surrogateescape")
    return '"' + "".join(_ESCAPED.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data) + '"'


def quoted(text: str) -> str:
    """A word as short as it can be written."""
    is_plain = text.isascii() and text.isprintable() and not any(character in " \"'\\" for character in text)
    return text if is_plain and text and not text.startswith("#") else in_quotes(text)


def line_for(directive: Directive, value: Value) -> str:
    """The line of a file that sets a directive to a value."""
    if directive.kind is Kind.MEMORY and isinstance(value, int):
        return f"{directive.name} {show_memory(value)}"
    if isinstance(value, BufferLimits):
        limits = (
            f"{client_class} {show_memory(limit.hard_bytes)} {show_memory(limit.soft_bytes)} {limit.soft_s}"
            for client_class, limit in value._asdict().items()
        )
        return " ".join([directive.name, *limits])
    if isinstance(value, tuple):
        words = [quoted(str(item)) for item in value] or ['""']
        return " ".join([directive.name, *words])
    return f"{directive.name} {quoted(show(value))}"
