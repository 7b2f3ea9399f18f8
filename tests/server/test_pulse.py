from __future__ import annotations

from respkv.commands.table import COMMANDS
from tests.commands.node_alone import World


def test_figures_travel_to_the_others_within_seconds() -> None:
    world = World(3)
    client = world.client()
    for number in range(100):
        client("SET", f"key:{number:03}", "x" * 93)
    world.advance(3.0)
    me = world.addresses[0].node
    told = [process.node.membership.application_value(me, "keys") for process in world.processes]
    assert told == [100] * 3
    assert world.processes[1].node.membership.application_value(me, "bytes") == 10_000


def test_the_time_of_turns_is_shared_out_among_commands() -> None:
    world = World(1)
    client = world.client()
    client("CONFIG", "RESETSTAT")
    world.advance(1.5)
    pulse = world.processes[0].node.pulse
    for _ in range(3):
        client("SET", "a", "1")
    client("STRLEN", "a")
    pulse.busy_s = 0.002
    world.advance(1.0)
    plain, measured = COMMANDS["SET"].statistics, COMMANDS["STRLEN"].statistics
    assert (plain.microseconds, measured.microseconds) == (1500, 500)
    # Those that nobody measured have waited for as long as they took.
    assert (plain.latencies.count, plain.latencies.sum_us) == (3, 1500)
    assert measured.latencies.count == 1
    world.advance(5.0)
    assert plain.microseconds == 1500


def test_a_node_whose_loop_is_late_asks_no_further_replicas() -> None:
    world = World(1, loop_lag_threshold="50")
    process = world.processes[0]
    process.node.context.facts["loop_lag_ms"] = 60
    world.advance(1.0)
    assert not process.node.coordinator.speculation_allowed
    process.node.context.facts["loop_lag_ms"] = 3
    world.advance(1.0)
    assert process.node.coordinator.speculation_allowed


def test_clients_of_a_node_that_does_not_work_itself_hold_work_back_only_while_they_wait() -> None:
    world = World(3)
    client = world.client()
    resting, working = (process.node for process in world.processes[:2])
    floor = float(resting.settings.handoff_rate_min)

    def rate_after(beats: int, *, works: bool) -> float:
        for _ in range(beats):
            working.pulse.works_behind = works
            client("GET", "a")
            world.advance(1.0)
        return working.pulse.pace_now().rate

    assert rate_after(5, works=False) == floor
    assert rate_after(10, works=True) > 1.5 * floor
    resting.context.facts["loop_lag_ms"] = 10_000
    assert rate_after(10, works=True) == floor
    resting.context.facts["loop_lag_ms"] = 0
    assert rate_after(10, works=True) > 1.5 * floor
    assert rate_after(3, works=False) == floor
