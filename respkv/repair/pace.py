"""How fast work behind the scenes may go: as fast as the clients of the cluster do not notice, and never slower than a floor. Pure.

`Foreground` says whether clients wait longer than they use to; `Pace` is a rate that follows it. Both are an error budget: as
many requests may be slow as are above any 99th percentile. What the budget pays for is work that nobody waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.metrics import LatencyHistogram

REQUESTS_MIN = 50
"""Of fewer, in one beat, a percentile says nothing."""
PERCENT = 99.0
SLOW_RATIO = 1.25
"""Of the usual percentile: what a node sees of a request is less than what its client does."""
SLOW_SHARE_MAX = 1 - PERCENT / 100
SLOW_BEATS = 5
"""How many beats it takes to forget slow requests."""
CALM_BEATS, BUSY_BEATS = 10, 120
"""How many beats it takes to get used to a lower latency, and to a higher one; to that ten times as many while work is under way."""
GROWTH = 1.1
"""Of the rate, from one beat to the next."""


class Foreground:
    """The latency that clients see of late, beside their usual one. A beat is a second or so."""

    __slots__ = ("_histograms", "_seen", "_slow_share", "has_clients", "is_strained", "recent_us", "usual_us")

    def __init__(self, *histograms: LatencyHistogram) -> None:
        """Of reads, of writes."""
        self._histograms = histograms
        self._seen = [histogram.counts() for histogram in histograms]
        self._slow_share = 0.0
        self.recent_us = 0
        """0 where too few asked to tell."""
        self.usual_us = 0.0
        self.has_clients = False
        """Whether anybody asked since the last beat."""
        self.is_strained = False

    def beat(self, *, loop_is_late: bool, is_working: bool) -> None:
        """Look at what was answered since the last beat. `is_working`: work behind the scenes is under way."""
        fresh = [histogram.since(seen) for histogram, seen in zip(self._histograms, self._seen, strict=True)]
        self._seen = [histogram.counts() for histogram in self._histograms]
        count = sum(histogram.count for histogram in fresh)
        self.has_clients = count > 0
        self.recent_us = max(histogram.percentile(PERCENT) if histogram.count >= REQUESTS_MIN else 0 for histogram in fresh)
        if count and self.usual_us:
            slow = sum(histogram.count_above(int(self.usual_us * SLOW_RATIO)) for histogram in fresh)
            self._slow_share += (slow / count - self._slow_share) / SLOW_BEATS
        else:
            self._slow_share -= self._slow_share / SLOW_BEATS
        self.is_strained = loop_is_late or self._slow_share > SLOW_SHARE_MAX
        if not self.recent_us:
            return
        if not self.usual_us:
            self.usual_us = float(self.recent_us)
        beats = CALM_BEATS if self.recent_us < self.usual_us else BUSY_BEATS * 10 if is_working else BUSY_BEATS
        self.usual_us += (self.recent_us - self.usual_us) / beats


class Pace:
    """A rate in bytes a second, for all work behind the scenes of a node: between a floor and a ceiling."""

    __slots__ = ("_own", "is_sparing", "rate")

    def __init__(self, *, rate_min: float) -> None:
        """Nothing is known of clients yet."""
        self._own = 0.0
        self.rate = rate_min
        """What all nodes together allow, when it was last asked for."""
        self.is_sparing = True
        """Whether any node has clients."""

    def beat(self, foreground: Foreground, *, is_working: bool, rate_min: float, rate_max: float) -> int:
        """How fast this node wants all nodes to be at most, for its clients' sake; 0 where it has none.

        It begins at the floor, and goes up only while this node sees what that does to its clients.
        """
        if not foreground.has_clients:
            self._own = 0.0
            return 0
        if foreground.is_strained:
            self._own /= 2
        elif is_working:
            self._own *= GROWTH
        else:
            self._own = rate_min
        self._own = min(max(self._own, rate_min), rate_max)
        return int(self._own)

    def follow(self, told: list[int | None], *, rate_min: float, rate_max: float) -> None:
        """Go as fast as the node whose clients bear the least.

        `told` is what each node said in its last beat; None: it was not heard yet, and may have clients that bear no more than the floor.
        """
        wishes = [rate_min if rate is None else float(rate) for rate in told if rate != 0]
        self.is_sparing = bool(wishes)
        self.rate = max(min(wishes, default=rate_max), rate_min)

    def pause_s(self, size: int, *, took_s: float) -> float:
        """How long to rest after a piece of work of so many bytes, which took so long."""
        return max(size / self.rate - took_s, 0.0)
