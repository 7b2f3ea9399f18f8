"""How fast work behind the scenes may go: as fast as the clients of the cluster do not notice, and never slower than a floor. Pure.

`Foreground` says whether clients wait longer than they use to; `Pace` is a rate that follows it. Both are an error budget: as
many requests may be slow as are above any 99th percentile. What the budget pays for is work that nobody waits for.
"""

from __future__ import annotations

from respkv.metrics import LatencyHistogram

REQUESTS_MIN = 500
"""Of fewer a percentile says nothing: what is usual would be what it is by luck. Then several beats are taken together."""
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

    __slots__ = ("_histograms", "_pooled", "_pooled_beats", "_seen", "_slow_share", "has_clients", "is_strained", "recent_us", "usual_us")

    def __init__(self, *histograms: LatencyHistogram) -> None:
        """Of reads, of writes: all requests count alike, or the few slower ones of a kind would look like a strain for good."""
        self._histograms = histograms
        self._seen = [histogram.counts() for histogram in histograms]
        self._pooled = LatencyHistogram()
        self._pooled_beats = 0
        """What was answered since there was enough to tell a percentile of, and in how many beats."""
        self._slow_share = 0.0
        self.recent_us = 0
        """0 where too few asked to tell."""
        self.usual_us = 0.0
        self.has_clients = False
        """Whether anybody asked since the last beat."""
        self.is_strained = False

    def beat(self, *, loop_is_late: bool, is_working: bool) -> None:
        """Look at what was answered since the last beat. `is_working`: work behind the scenes is under way."""
        fresh = LatencyHistogram()
        for histogram, seen in zip(self._histograms, self._seen, strict=True):
            fresh.add(histogram.since(seen))
        self._seen = [histogram.counts() for histogram in self._histograms]
        self.has_clients = fresh.count > 0
        share = fresh.count_above(int(self.usual_us * SLOW_RATIO)) / fresh.count if fresh.count and self.usual_us else 0.0
        self._slow_share += (share - self._slow_share) / SLOW_BEATS
        self.is_strained = loop_is_late or self._slow_share > SLOW_SHARE_MAX
        self._get_used_to(fresh, is_working=is_working)

    def _get_used_to(self, fresh: LatencyHistogram, *, is_working: bool) -> None:
        self._pooled_beats += self.has_clients
        if fresh.count < REQUESTS_MIN:
            self._pooled.add(fresh)
            fresh = self._pooled
        self.recent_us = fresh.percentile(PERCENT) if fresh.count >= REQUESTS_MIN else 0
        if not self.recent_us:
            return
        self.usual_us = self.usual_us or float(self.recent_us)
        beats = CALM_BEATS if self.recent_us < self.usual_us else BUSY_BEATS * 10 if is_working else BUSY_BEATS
        self.usual_us += (self.recent_us - self.usual_us) * min(self._pooled_beats / beats, 1.0)
        self._pooled, self._pooled_beats = LatencyHistogram(), 0


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
