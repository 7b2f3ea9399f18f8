"""Work behind the scenes gives way to clients, and never stops."""

from __future__ import annotations

import pytest

from respkv.metrics import LatencyHistogram
from respkv.repair.pace import GROWTH, MEMORY_BEATS, REQUESTS_MIN, Foreground, Pace


def beat(foreground: Foreground, histogram: LatencyHistogram, microseconds: int, *, count: int = 1000, late: bool = False) -> None:
    histogram.record(microseconds, count)
    foreground.beat(loop_is_late=late, is_working=False)


def test_the_rate_grows_while_clients_do_not_notice_and_falls_no_lower_than_the_floor() -> None:
    pace = Pace(rate_min=1000.0, rate_max=4000.0)
    assert pace.pause_s(1000, took_s=0.0, is_strained=False) == pytest.approx(1 / GROWTH)
    assert pace.pause_s(1000, took_s=0.4, is_strained=False) == pytest.approx(1 / GROWTH**2 - 0.4)
    for _ in range(20):
        pace.pause_s(1, took_s=0.0, is_strained=False)
    assert pace.rate == 4000.0
    for _ in range(5):
        pace.pause_s(1, took_s=0.0, is_strained=True)
    assert pace.rate == 1000.0
    assert pace.pause_s(1000, took_s=5.0, is_strained=True) == 0.0


def test_clients_that_wait_longer_than_usual_are_noticed() -> None:
    histogram = LatencyHistogram()
    foreground = Foreground(histogram, LatencyHistogram())
    strained = []
    for microseconds in (4000,) * 10 + (10_000, 4000):
        beat(foreground, histogram, microseconds)
        strained.append(foreground.is_strained)
    assert strained == [False] * 10 + [True, False]
    assert 4000 <= foreground.usual_us < 5000


def test_another_latency_becomes_the_usual_one() -> None:
    histogram = LatencyHistogram()
    foreground = Foreground(histogram)
    beat(foreground, histogram, 4000)
    for _ in range(5 * MEMORY_BEATS):
        beat(foreground, histogram, 10_000)
    assert not foreground.is_strained


def test_few_requests_say_nothing_but_a_late_loop_does() -> None:
    histogram = LatencyHistogram()
    foreground = Foreground(histogram)
    beat(foreground, histogram, 4000)
    beat(foreground, histogram, 900_000, count=REQUESTS_MIN - 1)
    strained = [foreground.is_strained]
    assert foreground.recent_us == 0
    beat(foreground, histogram, 4000, count=0, late=True)
    assert [*strained, foreground.is_strained] == [False, True]


def test_a_percentile_since_a_moment() -> None:
    histogram = LatencyHistogram()
    before = histogram.counts()
    histogram.record(100, 99)
    assert 100 <= histogram.percentile_since(before, 99.0, count_min=1) < 115
    before = histogram.counts()
    histogram.record(50_000, 10)
    assert 50_000 <= histogram.percentile_since(before, 50.0, count_min=1) < 57_000
    assert histogram.percentile_since(before, 50.0, count_min=11) == 0
    histogram.reset()
    histogram.record(7, 3)
    assert histogram.percentile_since(before, 50.0, count_min=1) == 0
