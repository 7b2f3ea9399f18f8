"""One run of a seed: play it, heal it, wait until it is at rest, check it."""

from __future__ import annotations

import random
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from respkv.config.quorums import Quorums
from respkv.simulation.bug import Bugs
from respkv.simulation.checks import check_all
from respkv.simulation.clients import Client, Reader
from respkv.simulation.copies import all_keys, check_surveys, last_expiry_s
from respkv.simulation.faults import Faults
from respkv.simulation.planted import planted
from respkv.simulation.workload import Workload
from respkv.simulation.world import World

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.simulation.scenario import Scenario

SETTLE_S = 20.0
NEWS_S = 2.5
"""Until every node has heard that every other one is complete."""
DRAIN_S = 25.0
REST_S = 60.0
READ_S = 1.0
EXCHANGES_INTERVALS = 3
EXCHANGES_S = 15.0
"""What is added for pairs of which one was busy, or could not be reached for a moment."""
STEP_S = 0.1


@dataclass(slots=True)
class Verdict:
    """What became of a seed."""

    scenario: Scenario
    violations: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    requests: int = 0
    turns: int = 0
    digest: int = 0
    trace: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations


def play(scenario: Scenario, *, bugs: Bugs | None = None, keep_trace: bool = False) -> Verdict:
    """Run a scenario from the first event to the last check."""
    bugs = bugs or Bugs()
    world = World(scenario, bugs=bugs, keep_trace=keep_trace)
    verdict = Verdict(scenario)
    with planted(bugs):
        try:
            verdict.violations += _play(world)
        except Exception as error:
            # Whatever a node raises is what the seed has found; but a planted bug that no longer fits its place has found nothing.
            if type(bugs) is not Bugs and isinstance(error, TypeError | AttributeError):
                raise
            verdict.violations.append(traceback.format_exc())
    verdict.virtual_s = world.schedule.now
    verdict.requests = len(world.history.requests)
    verdict.turns = sum(process.turns_total for process in world.processes)
    verdict.digest = world.trace.digest
    verdict.trace = [f"{when:10.4f}  {text}" for when, text in world.trace.lines]
    return verdict


def _play(world: World) -> list[str]:
    scenario, schedule = world.scenario, world.schedule
    world.start()
    if not _wait(world, SETTLE_S):
        return [f"the cluster did not come up within {SETTLE_S} s: {world.unrest()}"]
    schedule.run_until(schedule.now + NEWS_S)
    workload = Workload(random.Random(world.rng.random()), scenario)
    clients = [
        Client(world, workload, random.Random(world.rng.random()), number=number, think_s=scenario.think_s)
        for number in range(scenario.clients)
    ]
    for client in clients:
        client.start()
    faults = Faults(world, random.Random(world.rng.random()))
    faults.start()
    schedule.run_until(schedule.now + scenario.load_s)
    world.note("healing")
    faults.heal()
    schedule.run_until(schedule.now + 1.0)
    for client in clients:
        client.stop()
    world.note("the load ends")
    _drain(world, clients)
    if not _wait(world, REST_S):
        return [f"not at rest {REST_S} s after everything was healed: {world.unrest()}", *world.problems]
    schedule.run_until(schedule.now + NEWS_S)
    if scenario.compares_trees and (missing := _wait_for_exchanges(world)):
        return [missing, *world.problems]
    if scenario.operates:
        world.problems += _repair_everything(world)
    elif scenario.may_differ:
        world.problems += _read_everything(world)
    schedule.run_until(schedule.now + last_expiry_s(world))
    # A deletion that is let go of at this moment is on some replicas only.
    if not _wait(world, REST_S):
        return [f"not at rest {REST_S} s after the last value expired: {world.unrest()}", *world.problems]
    return check_all(world) + check_surveys(world)


def _wait_for_exchanges(world: World) -> str:
    """Wait until every pair of replicas has compared its trees since the cluster is at rest: who has not in time, or nothing."""
    schedule = world.schedule
    since = {process.me: process.clock.read(schedule.now) for process in world.processes}
    end = schedule.now + EXCHANGES_INTERVALS * world.settings.anti_entropy_interval + EXCHANGES_S
    while missing := _unmet(world, since):
        if schedule.now >= end:
            return missing
        schedule.run_until(schedule.now + STEP_S)
    return ""


def _unmet(world: World, since: dict[NodeId, int]) -> str:
    lists = [world.primaries_of(partition) for partition in range(world.scenario.ring_size)]
    for process, node in world.nodes():
        met = node.anti_entropy.statistics.completed_at_ms
        others = {other.me for primaries in lists if process in primaries for other in primaries if other is not process}
        missing = [f"n{world.index_of[other]}" for other in sorted(others) if met.get(other, 0) <= since[process.me]]
        if missing:
            return f"n{process.index} has not compared its trees with {', '.join(missing)}"
    return ""


def _read_everything(world: World) -> list[str]:
    """Read every key from all its replicas: read repair brings together what died with the only node that knew of it."""
    problems: list[str] = []
    keys: dict[int, list[bytes]] = {}
    for key in all_keys(world):
        keys.setdefault(world.primaries(key)[0].index, []).append(key)
    for index, owned in keys.items():
        process = world.processes[index]
        reader = Reader(world, process)
        reader.ask([b"PING"])
        assert process.node is not None
        assert reader.connection.client_id is not None
        session = process.node.clients[reader.connection.client_id]
        n, _, w, _, pw = process.node.coordinator.quorum
        session.quorum = Quorums(n, n, w, 0, pw)
        session.settle()
        replies = reader.ask(*([b"GET", key] for key in owned))
        problems += [f"n{index} at rest: GET {key!r} {reply!r}" for key, reply in zip(owned, replies, strict=True) if is_error(reply)]
        reader.connection.close()
    world.schedule.run_until(world.schedule.now + READ_S)
    return problems


def _repair_everything(world: World) -> list[str]:
    """What an operator does who trusts nothing: all replicas are compared, and what one of them lacks is sent."""
    reader = Reader(world, world.rng.choice(world.processes))
    end = world.schedule.now + EXCHANGES_S
    (reply,) = reader.ask([b"RESPKV", b"REPAIR"])
    while isinstance(reply, bytes) and not msgspec.json.decode(reply)["is_done"] and world.schedule.now < end:
        world.schedule.run_until(world.schedule.now + STEP_S)
        (reply,) = reader.ask([b"RESPKV", b"REPAIR", b"STATUS"])
    told = msgspec.json.decode(reply) if isinstance(reply, bytes) else {}
    reader.connection.close()
    is_whole = told.get("is_done") and not told["unreached"] and not told["total"]["failures"]
    return [] if is_whole else [f"a repair at rest is not done {EXCHANGES_S} s later: {reply!r}"]


def is_error(reply: object) -> bool:
    """Whether a reply to GET is one: counters and appended values are strings like all others."""
    return reply is not None and not isinstance(reply, bytes)


def _drain(world: World, clients: list[Client]) -> None:
    """Wait for the answers that are still to come."""
    end = world.schedule.now + DRAIN_S
    while world.schedule.now < end and not all(client.is_idle for client in clients):
        world.schedule.run_until(world.schedule.now + STEP_S)


def _wait(world: World, seconds: float) -> bool:
    """Wait until the cluster is at rest."""
    end = world.schedule.now + seconds
    while world.unrest():
        if world.schedule.now >= end:
            return False
        world.schedule.run_until(world.schedule.now + STEP_S)
    return True
