"""How long this node has held the versions that it holds, as far as they are young. Pure.

Why: a write that meets a newer version somewhere may have been outdone by it because of a clock that is ahead, or because it was
slow and somebody who had read it already has written over it. The first calls for a later stamp, the second for none. Stamps do not
tell the two apart, and clocks do not agree; how long one clock has gone on does.

A batch is one line here, whatever is in it: the versions of a coordinator's batch lie between its first and its last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

VERSIONS_MAX = 1 << 17
LINES_MIN = 128
LINES_OF_A_TURN_MAX = 64
FOR_LONG_US = 1 << 62
"""Told of what has been here for so long that nobody knows since when."""
NOT_AT_ALL = -1
"""In place of a time: there is no newer version, but it is not known either that the one that came is not much too old."""


class _Lines:
    """The batches of one coordinator, in the order of their first stamps and of their coming."""

    __slots__ = ("came", "first", "last", "trim_at")

    def __init__(self) -> None:
        self.first: list[bytes] = []
        self.last: list[bytes] = []
        self.came: list[float] = []
        self.trim_at = LINES_MIN

    def trim(self, oldest: float) -> None:
        """Forget what came before a moment. Called whenever the lines have become twice as many, it costs little each."""
        end = bisect_right(self.came, oldest)
        del self.first[:end], self.last[:end], self.came[:end]
        self.trim_at = max(2 * len(self.came), LINES_MIN)

    def find(self, stamp: bytes) -> float | None:
        """When a version came. The batches of one turn overlap, for each goes to other nodes; but they come together."""
        place = bisect_right(self.first, stamp) - 1
        for number in range(place, max(place - LINES_OF_A_TURN_MAX, -1), -1):
            if self.last[number] >= stamp:
                return self.came[number]
        return None


class RecentWrites:
    """When the versions of the last moments came."""

    __slots__ = ("_before", "_lines", "_since", "_single", "kept_s")

    def __init__(self) -> None:
        """`kept_s`: what has been here for longer has been here for long. No request may last longer."""
        self.kept_s = 1.0
        self._lines: dict[bytes, _Lines] = {}
        """By the actor of a coordinator."""
        self._single: dict[bytes, float] = {}
        """What came in batches of several coordinators' versions, behind later ones, or as a copy."""
        self._before: dict[bytes, float] = {}
        """What was in `_single` until it became too old or too much."""
        self._since = 0.0

    def note(self, pairs: list[bytes], now: float) -> None:
        """The records of [key, record, ...] are here now, those of them that were not outdone."""
        if not pairs:
            return
        first, last = pairs[1], pairs[-1]
        actor = first[8:16]
        lines = self._lines.get(actor)
        if lines is None:
            lines = self._lines[actor] = _Lines()
        stamp = first[:8]
        if last[8:16] != actor or last < first or (lines.first and stamp < lines.first[-1]):
            self._note_each(pairs, now)
            return
        lines.first.append(stamp)
        lines.last.append(last[:8])
        lines.came.append(now)
        if len(lines.came) >= lines.trim_at:
            lines.trim(now - self.kept_s)

    def note_copies(self, pairs: list[bytes], now: float, *, held: Callable[[bytes], bytes]) -> None:
        """Copies of [key, record, ...] from anywhere are about to be here, those of them that are not `held` already: hints and repairs."""
        items = iter(pairs)
        fresh = [word for key, record in zip(items, items, strict=True) if held(key) != record for word in (key, record)]
        if fresh:
            self._note_each(fresh, now)

    def _note_each(self, pairs: list[bytes], now: float) -> None:
        if now > self._since + self.kept_s or len(self._single) > VERSIONS_MAX:
            self._before, self._single, self._since = self._single, {}, now
            for actor in [actor for actor, lines in self._lines.items() if not lines.came or lines.came[-1] < now - self.kept_s]:
                del self._lines[actor]
        for record in pairs[1::2]:
            self._single.setdefault(record[:16], now)

    def came(self, version: bytes, now: float) -> float | None:
        """When a version (the first 16 bytes of a record) came; None: it has been here for long."""
        lines = self._lines.get(version[8:])
        told = (self._single.get(version), self._before.get(version), None if lines is None else lines.find(version[:8]))
        # What came twice has been here since the first time.
        at = min((each for each in told if each is not None), default=None)
        return at if at is not None and at >= now - self.kept_s else None
