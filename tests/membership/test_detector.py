"""The rules of suspicion, one at a time."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.membership.detector import WINDOW_LEN, ArrivalWindow, Detector, Health
from respkv.membership.members import MemberState
from respkv.membership.options import DetectorOptions


def make(**changes: float) -> Detector:
    return Detector(DetectorOptions(**changes), gossip_interval_s=0.2, direct_interval_s=0.2)


def linked(*, interval_s: float = 0.2, beats: int = 50) -> Health:
    """A peer that was last heard at time 0."""
    health = Health(now=-interval_s * beats)
    health.link_open = True
    for _ in range(beats):
        health.window.add(interval_s)
    health.heard_at = health.news_at = health.sampled_at = 0.0
    return health


def verdict(detector: Detector, health: Health, *, now: float, state: MemberState = MemberState.UP, confirmations: int = 0) -> MemberState:
    return detector.judge(health, state=state, now=now, confirmations=confirmations).state


@given(st.lists(st.floats(0.0, 3.0), min_size=2, max_size=3 * WINDOW_LEN))
def test_the_window_keeps_the_last_intervals(intervals: list[float]) -> None:
    window = ArrivalWindow()
    for interval in intervals:
        window.add(interval)
    last = intervals[-WINDOW_LEN:]
    assert window.mean_s(default=9.0) == pytest.approx(statistics.fmean(last), abs=1e-5)
    assert window.deviation_s() == pytest.approx(statistics.pstdev(last), abs=1e-3)


def test_an_empty_window_takes_the_default() -> None:
    assert ArrivalWindow().mean_s(default=0.2) == 0.2
    assert ArrivalWindow().deviation_s() == 0.0


@given(st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_phi_never_falls_while_the_silence_grows(left: float, right: float) -> None:
    shorter, longer = sorted([left, right])
    detector, health = make(), linked()
    assert 0.0 <= detector.phi(health, silence_s=shorter) <= detector.phi(health, silence_s=longer) <= 300.0


def test_a_fast_and_steady_beat_does_not_convict_early() -> None:
    detector, health = make(), linked(interval_s=0.001, beats=64)
    assert verdict(detector, health, now=0.5) is MemberState.UP
    assert verdict(detector, health, now=2.4) is MemberState.SUSPECT
    assert verdict(detector, health, now=4.0) is MemberState.DOWN


def test_a_jittery_past_does_not_hide_a_death() -> None:
    detector, health = make(), linked()
    for interval in [0.1, 5.0] * 32:
        health.window.add(interval)
    assert verdict(detector, health, now=4.0) is MemberState.SUSPECT
    assert verdict(detector, health, now=5.8) is MemberState.DOWN


@pytest.mark.parametrize(("phi_down", "latest"), [(5.0, 3.0), (8.0, 3.7), (12.0, 4.6), (16.0, 5.5), (100.0, 13.4)])
def test_a_higher_threshold_waits_longer(phi_down: float, latest: float) -> None:
    detector, health = make(phi_down=phi_down), linked()
    assert verdict(detector, health, now=latest - 0.7) is MemberState.SUSPECT
    assert verdict(detector, health, now=latest) is MemberState.DOWN


def test_a_second_opinion_hastens_the_verdict_but_not_below_the_floor() -> None:
    detector, health = make(), linked()
    assert verdict(detector, health, now=3.2) is MemberState.SUSPECT
    assert verdict(detector, health, now=3.2, confirmations=1) is MemberState.DOWN
    eager = make(phi_down=2.0)
    assert verdict(eager, health, now=2.4, confirmations=3) is MemberState.SUSPECT
    assert verdict(eager, health, now=2.6, confirmations=3) is MemberState.DOWN


def test_a_closed_link_alone_is_suspicion_and_a_refusal_is_a_verdict() -> None:
    detector, health = make(), linked()
    health.link_open = False
    assert verdict(detector, health, now=1.0) is MemberState.SUSPECT
    health.refused_at = 1.0
    assert verdict(detector, health, now=1.05, confirmations=1) is MemberState.SUSPECT
    assert verdict(detector, health, now=1.1, confirmations=1) is MemberState.DOWN
    assert verdict(detector, health, now=1.4) is MemberState.SUSPECT
    assert verdict(detector, health, now=1.5) is MemberState.DOWN
    health.news_at = 1.3  # somebody passed on a newer heartbeat
    assert verdict(detector, health, now=1.5) is MemberState.SUSPECT
    health.heard_at = 1.4  # it speaks, though its port refuses us
    assert verdict(detector, health, now=2.2, confirmations=2) is MemberState.SUSPECT


def test_news_through_others_keep_a_peer_alive_but_suspect() -> None:
    detector, health = make(), linked()
    health.news_at = 9.9
    assert verdict(detector, health, now=10.0, confirmations=1) is MemberState.SUSPECT
    assert detector.is_mute(health, now=10.0)
    health.heard_at = 9.9
    assert verdict(detector, health, now=10.0) is MemberState.UP
    assert not detector.is_mute(health, now=10.0)


def test_only_a_sign_of_life_ends_down() -> None:
    detector, health = make(), linked()
    health.heard_at = 10.0
    assert verdict(detector, health, now=10.0, state=MemberState.DOWN) is MemberState.DOWN


def test_time_in_which_this_node_did_not_run_is_nobodys_silence() -> None:
    detector, health = make(), linked()
    since, seconds = detector.stalled(now=20.5, seconds=20.0)
    assert (since, seconds) == (0.5, 20.0)
    health.forgive(since=since, seconds=seconds)
    assert health.silence_s(20.5) == pytest.approx(0.5)
    assert verdict(detector, health, now=20.5) is MemberState.UP
    # The allowance goes on for a while: who is not well doubts itself first.
    assert verdict(detector, health, now=24.5) is MemberState.SUSPECT
    assert verdict(detector, health, now=28.0) is MemberState.DOWN


def test_what_was_heard_in_the_stall_is_not_moved() -> None:
    health = linked()
    health.heard_at = 20.4
    health.forgive(since=0.5, seconds=20.0)
    assert health.heard_at == 20.4
    assert health.news_at == 20.0


def test_a_stall_that_is_reported_twice_counts_once() -> None:
    detector = make()
    assert detector.stalled(now=10.0, seconds=5.0) == (5.0, 5.0)
    assert detector.stalled(now=10.0, seconds=4.0) == (10.0, 0.0)
    assert detector.stalled(now=12.0, seconds=4.0) == (10.0, 2.0)


def test_the_allowance_is_bounded_and_fades() -> None:
    detector = make()
    assert detector.slack_s(0.0) == 0.0
    detector.stalled(now=100.0, seconds=90.0)
    assert detector.slack_s(100.0) == 3.0
    assert detector.slack_s(105.0) == pytest.approx(1.5)
    assert detector.slack_s(160.0) == 0.0


def test_samples_are_taken_once_per_sign_of_life_and_outages_are_cut_short() -> None:
    detector, health = make(), Health(now=0.0)
    detector.sample(health)
    assert health.window.mean_s(default=9.0) == 9.0
    health.heard_at = 0.4
    detector.sample(health)
    detector.sample(health)
    assert health.window.mean_s(default=9.0) == pytest.approx(0.4)
    health.heard_at = 300.4
    detector.sample(health)
    assert health.window.mean_s(default=9.0) < 2.0
