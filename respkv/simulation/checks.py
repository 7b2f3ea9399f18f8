"""What must be true after a run, whatever happened in it. Each check returns the violations that it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.server.cluster import SAVE_S
from respkv.simulation.copies import check_copies, check_leftovers, check_replicas, check_trees
from respkv.simulation.history import NEVER
from respkv.simulation.promises import check_appends, check_counters, check_locks, check_registers
from respkv.simulation.sibling_promises import check_siblings

if TYPE_CHECKING:
    from respkv.simulation.world import World

VIOLATIONS_MAX = 12
WAITS_FOR_THE_DISK = {b"CONFIG", b"FLUSHALL", b"FLUSHDB"}
"""What all nodes are to know is on a node's disk before it is answered; twice where a quorum changes."""


def check_patience(world: World) -> list[str]:
    """Every request is answered in time, counted from when its turn had come, while the node that was asked runs."""
    found = []
    bound_s = world.patience_s()
    for request in world.history.requests:
        if request.is_queued:
            continue
        # Commands of one transaction that touch one key wait for each other.
        allowed_s = bound_s * (1 + len(request.transaction or ()))
        if "slow-disk" in world.scenario.faults and request.arguments[0].upper() in WAITS_FOR_THE_DISK:
            allowed_s += 2 * SAVE_S
        begun = max(request.invoked, request.expected_after)
        waited = request.replied - begun if request.replied < NEVER else 0.0
        stopped = world.processes[request.node].stopped_between(begun, request.replied)
        if waited - stopped > allowed_s:
            found.append(f"answered after {waited:.2f} s (bound {allowed_s:.2f} s): {request}")
    found += [f"never answered: {request}" for request in world.unanswered()]
    return found


CHECKS = (
    check_replicas,
    check_copies,
    check_trees,
    check_registers,
    check_counters,
    check_appends,
    check_locks,
    check_siblings,
    check_patience,
    check_leftovers,
)


def check_all(world: World) -> list[str]:
    """Every check, on a cluster that was healed and is at rest."""
    found = list(world.problems)
    for check in CHECKS:
        found += check(world)
        if len(found) > VIOLATIONS_MAX:
            return [*found[:VIOLATIONS_MAX], f"... and {len(found) - VIOLATIONS_MAX} more"]
    return found
