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
    # Its quorum, and the node's loop.
    assert client("LATENCY", "RESET") == 2
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


class SlowWorld(World):
    """What nodes send each other may be late."""

    is_slow = False
    late: list[tuple[str, str, bytes]]

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        if self.is_slow:
            self.late.append((source, target, frame))
        else:
            super().deliver(source, target, frame)


def test_plain_commands_that_time_out_are_told() -> None:
    world = World(3, latency_monitor_threshold="100", request_timeout="500", hinted_handoff="yes")
    client, other = world.client(), world.client()
    client("CONFIG", "RESETSTAT")
    client("SLOWLOG", "RESET")
    for process in world.processes[1:]:
        process.is_alive = False
    client.send("GET", "{x}a")
    other.send("GET", "{x}b")
    client.send("SET", "{x}c", "long" * 100)
    assert str(client.receive()).startswith("TIMEOUT")
    assert str(client.receive()).startswith("TIMEOUT")
    assert str(other.receive()).startswith("TIMEOUT")
    stats = client("INFO", "commandstats").decode()
    told = {line.partition(":")[0]: line for line in stats.splitlines()}
    assert told["cmdstat_get"].startswith("cmdstat_get:calls=2,")
    assert told["cmdstat_get"].endswith("failed_calls=2")
    assert told["cmdstat_set"].endswith("failed_calls=1")
    assert b"errorstat_TIMEOUT:count=3" in client("INFO", "errorstats")
    ((name, _, last, worst),) = client("LATENCY", "LATEST")
    assert name == b"quorum-timeout"
    assert last == worst == 500
    assert b"request-timeout" in client("LATENCY", "DOCTOR")
    lines = [entry[3] for entry in client("SLOWLOG", "GET")]
    assert sorted(lines)[:2] == [[b"GET", b"{x}a"], [b"GET", b"{x}b"]]
    assert [line[:2] for line in sorted(lines)[2:]] == [[b"SET", b"{x}c"]]
    assert all(entry[2] >= 500_000 for entry in client("SLOWLOG", "GET"))


def test_plain_commands_that_are_answered_slowly_are_told_a_few_of_each_batch() -> None:
    world = SlowWorld(3, latency_monitor_threshold="100", speculative_retry="0")
    client = world.client()
    client("CONFIG", "RESETSTAT")
    client("SLOWLOG", "RESET")
    client("SET", "{x}", "v")
    client("GET", "{x}")
    assert client("SLOWLOG", "LEN") == 0
    world.is_slow, world.late = True, []
    for number in range(20):
        client.send("GET", f"{{x}}{number}")
        client.send("SET", f"{{y}}{number}", number)
    world.advance(0.2)
    world.is_slow = False
    for source, target, frame in world.late:
        world.deliver(source, target, frame)
    assert [client.receive() for _ in range(40)] == [None, b"OK"] * 20
    told = [entry[3][0] for entry in client("SLOWLOG", "GET", "-1")]
    assert told.count(b"GET") == told.count(b"SET") == 8
    ((name, _, _, worst),) = client("LATENCY", "LATEST")
    assert name == b"command"
    assert worst >= 200


def test_operations_that_are_slow_count_once() -> None:
    world = World(3, request_timeout="500", hinted_handoff="yes")
    client = world.client()
    client("CONFIG", "RESETSTAT")
    client("SLOWLOG", "RESET")
    for process in world.processes[1:]:
        process.is_alive = False
    assert str(client("MSET", "{x}a", "1", "{x}b", "2")).startswith("TIMEOUT")
    assert str(client("STRLEN", "{x}a")).startswith("TIMEOUT")
    assert [entry[3][0] for entry in client("SLOWLOG", "GET")] == [b"STRLEN", b"MSET"]
    stats = client("INFO", "commandstats").decode()
    assert "cmdstat_set" not in stats
    assert "cmdstat_get" not in stats
