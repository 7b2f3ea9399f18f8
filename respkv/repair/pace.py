"""How fast work behind the scenes may go: as fast as the clients of this node do not notice, and never slower than a floor. Pure.

`Foreground` says whether clients wait longer than they use to; `Pace` is a rate that follows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.metrics import LatencyHistogram

REQUESTS_MIN = 50
"""Of fewer, in one beat, a percentile says nothing."""
PERCENT = 99.0
STRAIN_RATIO = 1.5
SLACK_US = 1000
"""Nobody notices a delay of less than this."""
GROWTH = 1.1
"""From one piece to the next. What it does to clients is known a beat later: many pieces."""
MEMORY_BEATS = 60
"""How many beats it takes to get used to another latency; while work is under way it takes ten times as many."""


class Foreground:
    """The latency that clients see of late, beside their usual one. A beat is a second or so."""

    __slots__ = ("_histograms", "_seen", "is_strained", "recent_us", "usual_us")

    def __init__(self, *histograms: LatencyHistogram) -> None:
        """Of reads, of writes."""
        self._histograms = histograms
        self._seen = [histogram.counts() for histogram in histograms]
        self.recent_us = 0
        """0 where too few asked to tell."""
        self.usual_us = 0.0
        self.is_strained = False

    def beat(self, *, loop_is_late: bool, is_working: bool) -> None:
        """Look at what was answered since the last beat. `is_working`: work behind the scenes is under way."""
        recent = 0
        for index, histogram in enumerate(self._histograms):
            counts = histogram.counts()
            recent = max(recent, histogram.percentile_since(self._seen[index], PERCENT, count_min=REQUESTS_MIN))
            self._seen[index] = counts
        self.recent_us = recent
        self.is_strained = loop_is_late
        if not recent:
            return
        if not self.usual_us:
            self.usual_us = float(recent)
        self.is_strained = loop_is_late or recent > self.usual_us * STRAIN_RATIO + SLACK_US
        beats = MEMORY_BEATS * 10 if is_working and recent > self.usual_us else MEMORY_BEATS
        self.usual_us += (recent - self.usual_us) / beats


class Pace:
    """A rate, in bytes a second, between a floor and a ceiling."""

    __slots__ = ("rate", "rate_max", "rate_min")

    def __init__(self, *, rate_min: float, rate_max: float) -> None:
        """Begin at the floor."""
        self.rate = self.rate_min = rate_min
        self.rate_max = rate_max

    def pause_s(self, size: int, *, took_s: float, is_strained: bool) -> float:
        """How long to rest after a piece of work of so many bytes, which took so long."""
        if is_strained:
            self.rate = max(self.rate / 2, self.rate_min)
        else:
            self.rate = min(self.rate * GROWTH, self.rate_max)
        return max(size / self.rate - took_s, 0.0)
