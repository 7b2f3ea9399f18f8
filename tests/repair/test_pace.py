"""Work behind the scenes gives way to clients, and never stops."""

from __future__ import annotations

import pytest

from respkv.metrics import LatencyHistogram
from respkv.repair.pace import BUSY_BEATS, CALM_BEATS, GROWTH, REQUESTS_MIN, Foreground, Pace

FLOOR, CEILING = 1000.0, 8000.0


class Watched:
    """Clients whose latencies are what a test says."""

    def __init__(self) -> None:
        self.histogram = LatencyHistogram()
        self.foreground = Foreground(LatencyHistogram(), self.histogram)

    def beat(self, *latencies_us: tuple[int, int], late: bool = False, is_working: bool = False) -> bool:
        """(how many, microseconds each). Returns whether clients are strained."""
        for count, microseconds in latencies_us:
            self.histogram.record(microseconds, count)
        self.foreground.beat(loop_is_late=late, is_working=is_working)
        return self.foreground.is_strained


def test_one_request_in_a_hundred_may_be_slow_and_no_more() -> None:
    watched = Watched()
    assert [watched.beat((1000, 4000)) for _ in range(10)] == [False] * 10
    assert 4000 <= watched.foreground.usual_us < 4500
    assert [watched.beat((990, 4000), (10, 20_000)) for _ in range(20)] == [False] * 20
    assert watched.beat((900, 4000), (100, 20_000))
    # A bad moment is not forgotten at once.
    assert [watched.beat((1000, 4000)) for _ in range(20)] == [True] * 4 + [False] * 16


def test_another_latency_becomes_the_usual_one_the_lower_one_sooner() -> None:
    watched = Watched()
    watched.beat((1000, 4000))
    for _ in range(3 * BUSY_BEATS):
        watched.beat((1000, 10_000))
    assert not watched.foreground.is_strained
    for _ in range(3 * CALM_BEATS):
        watched.beat((1000, 4000))
    assert watched.beat((1000, 10_000))


def test_while_work_is_under_way_nobody_gets_used_to_waiting() -> None:
    watched = Watched()
    watched.beat((1000, 4000))
    for _ in range(BUSY_BEATS):
        assert watched.beat((1000, 10_000), is_working=True)


def test_few_requests_make_no_percentile_but_each_of_them_counts() -> None:
    watched = Watched()
    assert not watched.beat((REQUESTS_MIN - 1, 900_000))
    assert (watched.foreground.recent_us, watched.foreground.usual_us) == (0, 0.0)
    watched.beat((1000, 4000))
    assert watched.beat((2, 4000), (1, 900_000))
    assert watched.foreground.recent_us == 0


def test_a_few_requests_of_a_slower_kind_are_no_strain() -> None:
    reads, writes = LatencyHistogram(), LatencyHistogram()
    foreground = Foreground(reads, writes)
    strained = 0
    for _ in range(30):
        reads.record(1000, 900)
        writes.record(8000, 30)
        foreground.beat(loop_is_late=False, is_working=True)
        strained += foreground.is_strained
    assert strained == 0
    for _ in range(3):
        reads.record(1000, 900)
        writes.record(90_000, 30)
        foreground.beat(loop_is_late=False, is_working=True)
    assert foreground.is_strained


def test_what_is_usual_is_told_of_many_requests_however_many_beats_that_takes() -> None:
    watched = Watched()
    # The slowest of each beat are no percentile.
    slowest = [5000 + 1000 * ((7 * number) % 10) for number in range(200)]
    assert not any(watched.beat((98, 4000), (2, microseconds), is_working=True) for microseconds in slowest)
    assert any(watched.beat((98, 4000), (2, 20_000), is_working=True) for _ in range(10))
    assert 8000 < watched.foreground.usual_us < 16_000


def test_a_late_loop_is_a_strain_and_silence_is_none() -> None:
    watched = Watched()
    watched.beat((1000, 4000))
    assert watched.foreground.has_clients
    assert watched.beat(late=True)
    assert not watched.beat()
    assert not watched.foreground.has_clients


def test_figures_that_are_reset_meanwhile_say_nothing() -> None:
    watched = Watched()
    watched.beat((1000, 4000))
    watched.histogram.reset()
    assert not watched.beat((10, 900_000))


def test_the_rate_begins_at_the_floor_and_goes_up_while_clients_do_not_notice() -> None:
    watched, pace = Watched(), Pace(rate_min=FLOOR)

    def beat(latency_us: int, *, is_working: bool) -> int:
        watched.beat((1000, latency_us), is_working=is_working)
        return pace.beat(watched.foreground, is_working=is_working, rate_min=FLOOR, rate_max=CEILING)

    assert [beat(4000, is_working=False) for _ in range(3)] == [FLOOR] * 3
    assert [beat(4000, is_working=True) for _ in range(2)] == [int(FLOOR * GROWTH), int(FLOOR * GROWTH**2)]
    assert [beat(4000, is_working=True) for _ in range(30)][-1] == CEILING
    assert [beat(90_000, is_working=True) for _ in range(5)] == [CEILING / 2, CEILING / 4, FLOOR, FLOOR, FLOOR]


def test_a_node_without_clients_has_no_wish() -> None:
    watched, pace = Watched(), Pace(rate_min=FLOOR)
    watched.beat((1000, 4000))
    assert pace.beat(watched.foreground, is_working=True, rate_min=FLOOR, rate_max=CEILING) == FLOOR
    watched.beat()
    assert pace.beat(watched.foreground, is_working=True, rate_min=FLOOR, rate_max=CEILING) == 0


def test_all_go_as_fast_as_the_clients_of_each_can_bear() -> None:
    pace = Pace(rate_min=FLOOR)
    assert pace.rate == FLOOR
    pace.follow([0, 4000, 2000], rate_min=FLOOR, rate_max=CEILING)
    assert (pace.rate, pace.is_sparing) == (2000.0, True)
    assert pace.pause_s(1000, took_s=0.1) == pytest.approx(0.4)
    assert pace.pause_s(1000, took_s=5.0) == 0.0
    pace.follow([0, 0], rate_min=FLOOR, rate_max=CEILING)
    assert (pace.rate, pace.is_sparing) == (CEILING, False)
    pace.follow([1], rate_min=FLOOR, rate_max=CEILING)
    assert pace.rate == FLOOR


def test_who_was_not_heard_yet_may_have_clients() -> None:
    pace = Pace(rate_min=FLOOR)
    pace.follow([0, None], rate_min=FLOOR, rate_max=CEILING)
    assert pace.rate == FLOOR


def test_what_was_recorded_since_a_moment() -> None:
    histogram = LatencyHistogram()
    histogram.record(100, 99)
    assert 100 <= histogram.since([]).percentile(99.0) < 115
    before = histogram.counts()
    histogram.record(50_000, 10)
    fresh = histogram.since(before)
    assert fresh.count == 10
    assert 50_000 <= fresh.percentile(50.0) < 57_000
    assert (fresh.count_above(40_000), fresh.count_above(60_000)) == (10, 0)
    histogram.reset()
    histogram.record(7, 3)
    assert histogram.since(before).count == 0
