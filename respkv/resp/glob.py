r"""Redis's patterns: ``*`` ``?`` ``[a-z]`` ``[^a-z]`` and ``\x``.

A pattern is cut at its stars into segments of fixed length. The first and the last segment have one place where they
can stand; each in between takes the first place where it fits, which is never worse than a later one. That place is
found in one pass over the text (by `bytes.find`, or by shift-and on an integer with a bit for each byte of the segment), so
no pattern blows up, whatever a client sends. Nothing here becomes a regular expression.
"""

from __future__ import annotations

from functools import lru_cache

from respkv.errors import ClientError

PATTERN_BYTES_MAX = 4096

_ANY = frozenset(range(256))
_SINGLE = tuple(frozenset((byte,)) for byte in range(256))


class _Classes:
    """A segment in which some place allows several bytes."""

    __slots__ = ("_goal", "_masks", "_places")

    def __init__(self, places: list[frozenset[int]]) -> None:
        """Give each byte the set of places that allow it, as bits of an integer."""
        self._places = places
        self._goal = 1 << len(places) - 1
        masks = [0] * 256
        usual = 0
        for place, allowed in enumerate(places):
            # The shorter way: name the bytes that are allowed, or those that are not.
            few = allowed
            if len(allowed) > 128:
                few = _ANY - allowed
                usual |= 1 << place
            for byte in few:
                masks[byte] |= 1 << place
        self._masks = [mask ^ usual for mask in masks]

    def __len__(self) -> int:
        return len(self._places)

    def fits(self, text: bytes, position: int) -> bool:
        """Whether the text, which is long enough, has the segment at this place."""
        return all(text[place] in allowed for place, allowed in enumerate(self._places, position))

    def find(self, text: bytes, position: int, *, end: int) -> int:
        """The first place where the segment stands between `position` and `end`, or -1."""
        masks, goal = self._masks, self._goal
        # Bit i: the bytes just read fit the first i + 1 places.
        state = 0
        for place in range(position, end):
            state = (state << 1 | 1) & masks[text[place]]
            if state & goal:
                return place + 1 - len(self._places)
        return -1


Segment = bytes | _Classes


def matches(pattern: bytes, text: bytes, *, ignore_case: bool = False) -> bool:
    """Whether the whole of `text` fits `pattern`."""
    if pattern == b"*":
        return True
    if len(pattern) > PATTERN_BYTES_MAX:
        raise ClientError(f"pattern is longer than {PATTERN_BYTES_MAX} bytes")
    if not text:
        # An oddity of Redis: only a lone star matches the empty string, `**` does not.
        return not pattern
    segments = _segments(pattern, ignore_case=ignore_case)
    if ignore_case:
        text = text.lower()
    first, last = segments[0], segments[-1]
    if len(segments) == 1:
        return len(text) == len(first) and _fits(first, text, 0)
    position, end = len(first), len(text) - len(last)
    if position > end or not _fits(first, text, 0) or not _fits(last, text, end):
        return False
    for segment in segments[1:-1]:
        found = text.find(segment, position, end) if isinstance(segment, bytes) else segment.find(text, position, end=end)
        if found < 0:
            return False
        position = found + len(segment)
    return True


def _fits(segment: Segment, text: bytes, position: int) -> bool:
    """Whether the text, which is long enough, has the segment at this place."""
    return text.startswith(segment, position) if isinstance(segment, bytes) else segment.fits(text, position)


@lru_cache(maxsize=16)
def _segments(pattern: bytes, *, ignore_case: bool) -> tuple[Segment, ...]:
    """The pattern cut at its stars; always one segment more than there are stars."""
    segments: list[Segment] = []
    places: list[frozenset[int]] = []
    position = 0
    while position < len(pattern):
        byte = pattern[position]
        if byte == ord("*"):
            segments.append(_segment(places))
            places = []
        elif byte == ord("?"):
            places.append(_ANY)
        elif byte == ord("["):
            allowed, position = _read_class(pattern, position + 1, ignore_case=ignore_case)
            places.append(allowed)
        else:
            if byte == ord("\\") and position + 1 < len(pattern):
                position += 1
            places.append(_SINGLE[_folded(pattern[position], ignore_case=ignore_case)])
        position += 1
    segments.append(_segment(places))
    return tuple(segments)


def _segment(places: list[frozenset[int]]) -> Segment:
    """Literal bytes when each place allows just one."""
    if all(len(allowed) == 1 for allowed in places):
        return bytes(byte for allowed in places for byte in allowed)
    return _Classes(places)


def _read_class(pattern: bytes, position: int, *, ignore_case: bool) -> tuple[frozenset[int], int]:
    """The bytes that a class allows, and where it is closed. One that is never closed ends with the pattern.

    As in Redis a `]` closes even at once, so that `[]` allows nothing and `[^]` everything, and `[z-a]` is `[a-z]`.
    """
    inverted = pattern[position : position + 1] == b"^"
    if inverted:
        position += 1
    allowed: set[int] = set()
    while position < len(pattern) and pattern[position] != ord("]"):
        left = right = pattern[position]
        if left == ord("\\") and position + 1 < len(pattern):
            position += 1
            left = right = pattern[position]
        elif position + 2 < len(pattern) and pattern[position + 1] == ord("-"):
            position += 2
            right = pattern[position]
        # Redis puts the ends in order first and folds their case then.
        low, high = (_folded(end, ignore_case=ignore_case) for end in sorted((left, right)))
        allowed.update(range(low, high + 1))
        position += 1
    return _ANY - allowed if inverted else frozenset(allowed), position


def _folded(byte: int, *, ignore_case: bool) -> int:
    return byte + 32 if ignore_case and ord("A") <= byte <= ord("Z") else byte
