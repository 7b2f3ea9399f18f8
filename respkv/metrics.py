"""Figures that are gathered while a node runs: latencies as histograms, and slow events. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

SUBDIVISIONS_BITS = 3
"""Each power of two is cut into eight: a percentile is off by an eighth at most."""
BUCKETS_COUNT = 40 << SUBDIVISIONS_BITS
EVENT_SAMPLES_MAX = 160
"""As Redis: the last 160 seconds in which something was slow."""


class LatencyHistogram:
    """How often something took how long, in microseconds."""

    __slots__ = ("_buckets", "count", "sum_us")

    def __init__(self) -> None:
        """Nothing was recorded yet."""
        self._buckets: list[int] = []
        self.count = 0
        self.sum_us = 0

    def record(self, microseconds: int, count: int = 1) -> None:
        """Something took so long, so many times."""
        if not self._buckets:
            self._buckets = [0] * BUCKETS_COUNT
        self._buckets[_bucket_of(microseconds)] += count
        self.count += count
        self.sum_us += microseconds * count

    def reset(self) -> None:
        """Forget everything."""
        self._buckets = []
        self.count = self.sum_us = 0

    def percentile(self, percent: float) -> int:
        """The time that so many percent did not exceed; 0 where nothing was recorded."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket, count in self._counted():
            seen += count
            if seen >= wanted:
                return _upper_of(bucket)
        return 0

    def counts(self) -> list[int]:
        """What was recorded, to compare with later."""
        return list(self._buckets)

    def since(self, before: list[int]) -> LatencyHistogram:
        """What was recorded since `counts` told `before`; nothing if it was reset meanwhile."""
        fresh = LatencyHistogram()
        buckets = (
            [now - then for now, then in zip(self._buckets, before, strict=True)] if len(before) == len(self._buckets) else self._buckets
        )
        if buckets and min(buckets) >= 0:
            fresh._buckets = list(buckets)
            fresh.count = sum(buckets)
        return fresh

    def add(self, other: LatencyHistogram) -> None:
        """Take in what another one has recorded."""
        if other._buckets:
            held = self._buckets or [0] * BUCKETS_COUNT
            self._buckets = [mine + theirs for mine, theirs in zip(held, other._buckets, strict=True)]
        self.count += other.count
        self.sum_us += other.sum_us

    def count_above(self, microseconds: int) -> int:
        """How many took longer, but for those in the same bucket."""
        return sum(self._buckets[_bucket_of(microseconds) + 1 :])

    def powers_of_two(self) -> list[tuple[int, int]]:
        """(bound, how many took no longer), where that changes from one power of two to the next."""
        cumulative: dict[int, int] = {}
        seen = 0
        for bucket, count in self._counted():
            seen += count
            cumulative[1 << (_upper_of(bucket) - 1).bit_length()] = seen
        return list(cumulative.items())

    def _counted(self) -> Iterator[tuple[int, int]]:
        return ((bucket, count) for bucket, count in enumerate(self._buckets) if count)


def _bucket_of(microseconds: int) -> int:
    if microseconds < 1 << SUBDIVISIONS_BITS:
        return max(microseconds, 0)
    exponent = microseconds.bit_length() - 1 - SUBDIVISIONS_BITS
    return min((exponent << SUBDIVISIONS_BITS) + (microseconds >> exponent), BUCKETS_COUNT - 1)


def _upper_of(bucket: int) -> int:
    """The longest time that falls into a bucket; 1 for what took no time that a clock could tell."""
    if bucket < 2 << SUBDIVISIONS_BITS:
        return max(bucket, 1)
    exponent = (bucket >> SUBDIVISIONS_BITS) - 1
    return (((bucket & (1 << SUBDIVISIONS_BITS) - 1) + (1 << SUBDIVISIONS_BITS) + 1) << exponent) - 1


@dataclass(slots=True)
class Event:
    """The slow moments of one kind."""

    samples: deque[tuple[int, int]] = field(default_factory=deque)
    """(unix seconds, the longest of that second in milliseconds), oldest first."""
    longest_ms: int = 0


class SlowEvents:
    """What LATENCY tells: events that took at least `latency-monitor-threshold`."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        """Nothing was slow yet."""
        self.events: dict[str, Event] = {}

    def record(self, name: str, *, unix_s: int, milliseconds: int) -> None:
        """Something was slow. Of one second the longest is kept."""
        event = self.events.setdefault(name, Event())
        event.longest_ms = max(event.longest_ms, milliseconds)
        samples = event.samples
        if samples and samples[-1][0] == unix_s:
            samples[-1] = (unix_s, max(samples[-1][1], milliseconds))
            return
        samples.append((unix_s, milliseconds))
        if len(samples) > EVENT_SAMPLES_MAX:
            samples.popleft()
