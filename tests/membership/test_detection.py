"""Who is taken for dead, and when: whole clusters in a simulated network."""

from __future__ import annotations

import pytest

from respkv.membership.members import MemberState
from respkv.membership.options import LAN, LAPTOP, WAN, MembershipOptions
from tests.membership.world import World

BROADCAST = MembershipOptions(protocol="broadcast")
PROTOCOLS = pytest.mark.parametrize("options", [LAN, BROADCAST], ids=["gossip", "broadcast"])
SIZES = pytest.mark.parametrize("count", [2, 3, 5, 10])


def times_of(world: World, state: MemberState, *, target: int, since: float) -> dict[int, float]:
    """When each observer first gave the target this state."""
    times: dict[int, float] = {}
    for at, observer, node, _ in world.moves(state):
        if node == target and at >= since:
            times.setdefault(observer, at - since)
    return times


@PROTOCOLS
@SIZES
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_is_down_everywhere_within_a_second(count: int, seed: int, options: MembershipOptions) -> None:
    world = World(count, seed=seed, options=options)
    world.settle()
    since = world.now
    world.kill(0)
    world.run(0.01)
    assert world.states(0) == {MemberState.SUSPECT}  # a reset link is suspicious at once
    world.run(3.0)
    times = times_of(world, MemberState.DOWN, target=0, since=since)
    assert len(times) == count - 1
    assert max(times.values()) < 1.0
    assert {target for _, _, target, _ in world.moves(MemberState.DOWN)} == {0}
    assert world.states(0) == {MemberState.DOWN}


@PROTOCOLS
@SIZES
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_silent_process_is_down_after_two_and_a_half_to_six_seconds(count: int, loss: float, options: MembershipOptions) -> None:
    world = World(count, seed=count, options=options, loss=loss)
    world.settle()
    since = world.now
    world.stop(0, 30.0)
    world.run(7.0)
    suspected = times_of(world, MemberState.SUSPECT, target=0, since=since)
    times = times_of(world, MemberState.DOWN, target=0, since=since)
    assert len(suspected) == len(times) == count - 1
    assert max(suspected.values()) < 2.0
    assert min(times.values()) > 2.5
    assert max(times.values()) < 6.0
    assert {target for _, _, target, _ in world.moves(MemberState.DOWN)} == {0}


@pytest.mark.parametrize("seed", range(2))
def test_the_same_among_thirty_two_nodes(seed: int) -> None:
    world = World(32, seed=seed, loss=0.05)
    world.settle()
    since = world.now
    world.kill(0)
    world.stop(1, 30.0)
    world.run(7.0)
    killed = times_of(world, MemberState.DOWN, target=0, since=since)
    silent = times_of(world, MemberState.DOWN, target=1, since=since)
    assert len(killed) == 30
    assert max(killed.values()) < 1.0
    assert len(silent) == 30
    assert min(silent.values()) > 2.5
    assert max(silent.values()) < 6.0
    assert {target for _, _, target, _ in world.moves(MemberState.DOWN)} == {0, 1}


@PROTOCOLS
@SIZES
@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_down_after_a_two_second_stall(count: int, seed: int, loss: float, options: MembershipOptions) -> None:
    world = World(count, seed=seed, options=options, loss=loss)
    world.settle()
    world.run(world.rng.random())
    world.stop(0, 2.0)
    world.run(6.0)
    assert world.moves(MemberState.DOWN) == []
    assert world.everybody_up()


@PROTOCOLS
@SIZES
@pytest.mark.parametrize("seconds", [0.7, 5.0, 20.0, 300.0])
def test_a_node_that_was_stopped_wakes_and_declares_nobody_dead(count: int, seconds: float, options: MembershipOptions) -> None:
    world = World(count, seed=count, options=options)
    world.settle()
    world.stop(0, seconds)
    world.run(seconds + 8.0)
    assert [move for move in world.moves(MemberState.DOWN) if move[1] == 0] == []
    assert world.everybody_up()


def test_of_two_that_were_stopped_together_neither_declares_the_other_dead() -> None:
    world = World(5)
    world.settle()
    world.stop(0, 20.0)
    world.stop(1, 20.5)
    world.run(30.0)
    assert [move for move in world.moves(MemberState.DOWN) if move[1] in {0, 1}] == []
    assert world.everybody_up()


@PROTOCOLS
@pytest.mark.parametrize(("count", "seconds"), [(3, 300.0), (10, 60.0)])
def test_a_lossy_network_convicts_nobody(count: int, seconds: float, options: MembershipOptions) -> None:
    world = World(count, seed=7, loss=0.2, options=options, delay_s=(0.0002, 0.1))
    world.settle()
    world.run(seconds)
    assert world.moves(MemberState.DOWN) == []


def test_a_peer_that_only_others_hear_is_suspect_and_not_down() -> None:
    world = World(3, seed=1)
    world.settle()
    world.cut({0}, {1})
    world.run(20.0)
    assert world.moves(MemberState.DOWN) == []
    assert world.state(0, 1) is MemberState.SUSPECT
    assert world.state(1, 0) is MemberState.SUSPECT
    assert world.states(2) == {MemberState.UP}
    assert world.addresses[1].node not in world.machine(0).up()  # its mute link was closed, to be dialled anew
    world.heal()
    assert world.run_until(world.everybody_up, within_s=2.0) < 1.5


def test_a_cut_convicts_on_both_sides_and_heals() -> None:
    world = World(5, seed=3)
    world.settle()
    world.cut({0, 1}, {2, 3, 4})
    world.run(8.0)
    for left, right in [(0, 2), (1, 4), (3, 0)]:
        assert world.state(left, right) is MemberState.DOWN
    assert world.state(0, 1) is MemberState.UP
    assert world.machine(0).up() == {world.addresses[0].node, world.addresses[1].node}
    world.heal()
    assert world.run_until(world.everybody_up, within_s=3.0) < 1.5


def test_a_node_that_comes_back_is_up_at_once_and_its_new_generation_rules() -> None:
    world = World(4, seed=5)
    world.settle()
    world.machine(0).publish("keys", 5)
    world.run(2.0)
    old = world.machine(0).members(world.now)[0].generation
    world.kill(0)
    world.run(5.0)
    assert world.states(0) == {MemberState.DOWN}
    world.restart(0)
    assert world.run_until(world.everybody_up, within_s=2.0) < 0.5
    world.run(1.0)
    for observer in range(1, 4):
        view = world.machine(observer).members(world.now)[0]
        assert view.generation > old
        assert view.application == {}  # what the old incarnation said is void
    assert world.moves(MemberState.DOWN)[-1][0] < world.now - 5.0


def test_a_restart_that_nobody_noticed_is_told() -> None:
    world = World(3, seed=2)
    world.settle()
    world.kill(0)
    world.restart(0)
    world.run(2.0)
    assert world.everybody_up()
    reasons = [change[3] for process in world.processes[1:] for _, change in process.history]
    assert reasons.count("restarted") == 2


def test_presets_differ_in_patience() -> None:
    latest: list[float] = []
    for options in (LAN, LAPTOP, WAN):
        world = World(5, seed=1, options=options)
        world.settle()
        since = world.now
        world.stop(0, 60.0)
        world.run(30.0)
        times = times_of(world, MemberState.DOWN, target=0, since=since)
        assert len(times) == 4
        assert min(times.values()) > options.detector.silence_min_s
        latest.append(max(times.values()))
    assert latest == sorted(latest)
    assert latest[-1] < 25.0
