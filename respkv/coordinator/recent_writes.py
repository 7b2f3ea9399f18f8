"""How long this node has held the versions that it holds, as far as they are young. Pure.

Why: a write that meets a newer version somewhere may have been outdone by it because of a clock that is ahead, or because it was
slow and somebody who had read it already has written over it. The first calls for a later stamp, the second for none. Stamps do not
tell the two apart, and clocks do not agree; how long one clock has gone on does.

What comes in is only listed here. The list is gone through when somebody asks, which is seldom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

KEYS_MAX = 1 << 17
FOR_LONG_US = 1 << 62
"""Told of what has been here for so long that nobody knows since when."""
NOT_AT_ALL = -1
"""In place of a time: there is no newer version, but it is not known either that the one that came is not much too old."""


class RecentWrites:
    """When the newest version of each key came, in the last moments."""

    __slots__ = ("_before", "_came", "_count", "_listed", "_since", "kept_s")

    def __init__(self) -> None:
        """`kept_s`: what has been here for longer has been here for long. No request may last longer."""
        self.kept_s = 1.0
        self._listed: deque[tuple[float, list[bytes]]] = deque()
        self._count = 0
        self._came: dict[bytes, float] = {}
        self._before: dict[bytes, float] = {}
        """What was in `_came` until it became too old or too much."""
        self._since = 0.0

    def note(self, pairs: list[bytes], newer: Sequence[int], now: float) -> None:
        """The records of [key, record, ...] are here now, but for those where `newer` ones were here already."""
        keys = pairs[::2]
        if newer:
            outdone = set(newer)
            keys = [key for index, key in enumerate(keys) if index not in outdone]
        listed = self._listed
        listed.append((now, keys))
        self._count += len(keys)
        oldest = now - self.kept_s
        while listed and (listed[0][0] < oldest or self._count > KEYS_MAX):
            self._count -= len(listed.popleft()[1])

    def came(self, keys: list[bytes], now: float) -> list[float | None]:
        """When the version of each key came; None: it has been here for long."""
        if now > self._since + self.kept_s or len(self._came) > KEYS_MAX:
            self._before, self._came, self._since = self._came, {}, now
        came, before = self._came, self._before
        for at, noted in self._listed:
            came.update(dict.fromkeys(noted, at))
        self._listed.clear()
        self._count = 0
        return [came.get(key, before.get(key)) for key in keys]
