"""Virtual time: what happens next, and a trace by which two runs of a seed are compared.

Rule: everything that happens is an event of one heap, and equal times keep the order in which they were asked for.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

TRACE_LEN = 4000
TINY_S = 1e-6


class Trace:
    """The last events in words, and a checksum over all of them."""

    __slots__ = ("digest", "is_kept", "lines")

    def __init__(self, *, is_kept: bool) -> None:
        """Lines are kept only where somebody will read them."""
        self.is_kept = is_kept
        self.lines: deque[tuple[float, str]] = deque(maxlen=TRACE_LEN)
        self.digest = 0

    def add(self, data: bytes) -> None:
        """Count bytes into the checksum."""
        self.digest = zlib.crc32(data, self.digest)

    def note(self, now: float, text: str) -> None:
        """Keep a line. It counts for nothing: runs with and without a reader compare equal."""
        if self.is_kept:
            self.lines.append((now, text))


class Schedule:
    """Events in the order of their times."""

    __slots__ = ("_heap", "_order", "events_total", "now")

    def __init__(self) -> None:
        """Nothing is to happen yet."""
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self.events_total = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time; what lies in the past happens next."""
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen in a while."""
        self.at(self.now + delay_s, action, *arguments)

    def run_until(self, end: float) -> None:
        """Let everything happen up to a time."""
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= end:
            when, _, action, arguments = pop(heap)
            self.now = max(self.now, when)
            self.events_total += 1
            action(*arguments)
        self.now = max(self.now, end)
