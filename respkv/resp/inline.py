"""Inline requests: a line of words, some of them quoted, as `redis-cli`'s users and telnet type them."""

from __future__ import annotations

import re

# What C's isspace() calls a blank. Between words all of these are skipped, but only the first four end
# a bare word: so does Redis.
_BLANKS = b" \t\r\n\v\f"
_WORD_ENDS = b" \t\r\n"
_QUOTES = b"\"'"
_ESCAPES = {ord("n"): b"\n", ord("r"): b"\r", ord("t"): b"\t", ord("b"): b"\b", ord("a"): b"\a"}

_needs_care = re.compile(rb"[\"'\v\f]").search
_hex_byte = re.compile(rb"x([0-9a-fA-F]{2})").match


def split_arguments(line: bytes) -> list[bytes] | None:
    r"""Cut a line into words as Redis's `sdssplitargs` does, or None if a quote is unbalanced.

    In double quotes ``\n \r \t \b \a \xHH`` are escapes and any other escaped byte stands for itself;
    in single quotes only ``\'`` is. A closing quote must be followed by a blank or the end.
    """
    if not _needs_care(line):
        return line.split()
    words: list[bytes] = []
    position, end = 0, len(line)
    while True:
        while position < end and line[position] in _BLANKS:
            position += 1
        if position == end:
            return words
        word = bytearray()
        found = _read_word(line, position, word)
        if found is None:
            return None
        position = found
        words.append(bytes(word))


def _read_word(line: bytes, position: int, word: bytearray) -> int | None:
    """Read one word into `word`; the position behind it, or None for an unbalanced quote."""
    while position < len(line):
        byte = line[position]
        if byte in _WORD_ENDS:
            return position
        if byte in _QUOTES:
            return _read_quoted(line, position + 1, word, quote=byte)
        word.append(byte)
        position += 1
    return position


def _read_quoted(line: bytes, position: int, word: bytearray, *, quote: int) -> int | None:
    """Read up to the closing quote; the position behind it, or None if there is none or a word sticks to it."""
    while position < len(line):
        byte = line[position]
        position += 1
        if byte == quote:
            return position if position == len(line) or line[position] in _BLANKS else None
        if byte == ord("\\") and position < len(line):
            if quote == ord('"'):
                position += _read_escape(line, position, word)
                continue
            if line[position] == quote:
                byte = quote
                position += 1
        word.append(byte)
    return None


def _read_escape(line: bytes, position: int, word: bytearray) -> int:
    """Append what the escape at `position` (behind its backslash) stands for; how many bytes it took."""
    if hexadecimal := _hex_byte(line, position):
        word.append(int(hexadecimal[1], 16))
        return 3
    word += _ESCAPES.get(line[position], line[position : position + 1])
    return 1
