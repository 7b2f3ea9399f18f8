from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from respkv.commands.latency import graph
from respkv.metrics import Event, LatencyHistogram, SlowEvents
from tests.commands.node_alone import World


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0, 100))
def test_a_percentile_is_off_by_an_eighth_at_most(values: list[int], percent: float) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]
    assert max(exact, 1) <= histogram.percentile(percent) <= max(exact * 9 // 8 + 1, 1)


@given(st.lists(st.integers(0, 10**9)))
def test_powers_of_two_are_cumulative(values: list[int]) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value, 2)
    told = histogram.powers_of_two()
    bounds, counts = [bound for bound, _ in told], [count for _, count in told]
    assert all(bound & bound - 1 == 0 for bound in bounds)
    assert bounds == sorted(set(bounds))
    assert counts == sorted(set(counts))
    assert (counts[-1] if told else 0) == histogram.count == 2 * len(values)
    assert histogram.sum_us == 2 * sum(values)


def test_of_one_second_the_slowest_is_kept_and_no_more_than_160_seconds() -> None:
    events = SlowEvents()
    for unix_s in range(200):
        events.record("command", unix_s=unix_s, milliseconds=50)
        events.record("command", unix_s=unix_s, milliseconds=200 - unix_s)
    samples = events.events["command"].samples
    assert len(samples) == 160
    assert samples[0] == (40, 160)
    assert samples[-1] == (199, 50)
    assert events.events["command"].longest_ms == 200


def test_slow_commands_and_late_turns_are_told() -> None:
    world = World(3, latency_monitor_threshold="100", request_timeout="500", hinted_handoff="yes")
    client = world.client()
    assert client("LATENCY", "DOCTOR").startswith(b"Dave, no latency spike")
    for process in world.processes[1:]:
        process.is_alive = False
    # Nobody answers, and nobody has noticed yet.
    assert str(client("STRLEN", "a")).startswith("TIMEOUT")
    world.processes[0].node.context.facts["loop_lag_ms"] = 130
    world.advance(1.5)
    latest = {name: worst for name, _, _, worst in client("LATENCY", "LATEST")}
    assert latest[b"command"] >= 500
    assert latest[b"loop-lag"] == 130
    assert not world.processes[0].node.coordinator.speculation_allowed
    assert len(client("LATENCY", "HISTORY", "command")) == 1
    assert client("LATENCY", "HISTORY", "nosuch") == []
    assert b"Worst all time event" in client("LATENCY", "DOCTOR")
    assert client("LATENCY", "GRAPH", "command").startswith(b"command - high ")
    assert str(client("LATENCY", "GRAPH", "nosuch")) == "ERR No samples available for event 'nosuch'"
    assert client("LATENCY", "RESET", "nosuch", "command") == 1
    assert client("LATENCY", "RESET") == 1
    assert client("LATENCY", "LATEST") == []


def test_histograms_of_commands() -> None:
    world = World(3)
    client = world.client()
    client("CONFIG", "RESETSTAT")
    client("SET", "a", "1")
    client("STRLEN", "a")
    told = client("LATENCY", "HISTOGRAM", "strlen", "set", "nosuch")
    assert told[::2] == [b"set", b"strlen"] or told[::2] == [b"strlen", b"set"]
    assert told[1][:3] == [b"calls", 1, b"histogram_usec"]
    assert World(1).client()("LATENCY", "DOCTOR").startswith(b"I'm sorry, Dave")


def test_a_graph_has_a_column_for_each_sample() -> None:
    event = Event()
    event.samples.extend([(0, 100), (60, 200), (3600, 300), (90_000, 100)])
    event.longest_ms = 400
    lines = graph("command", event, now_s=90_005).splitlines()
    assert lines[:2] == ["command - high 300 ms, low 100 ms (all time high 400 ms)", "-" * 80]
    assert lines[2:6] == ["  #", "  |", " #|", "_||_"]
    assert lines[6:] == ["", "1115", "ddds"]
