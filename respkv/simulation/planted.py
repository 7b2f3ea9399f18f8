"""Bugs that exist in the simulator only, each a known way to lose data: checks that find none of them prove nothing.

A bug replaces methods of the node's classes while a seed is played; the node itself knows nothing of it. Each says what has
to go wrong for it to show, and what the cluster has to promise for that to be wrong.

The bugs themselves are in files by the room that they are planted in; here is the table of all, and how one is planted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from respkv.simulation.bugs_of_copies import ExpiryFromArrival, GuestStays, HintDroppedEarly, HintLost, RepairAssigns, TieBrokenByPlace
from respkv.simulation.bugs_of_quorums import (
    ClockNotAbsorbed,
    DoneTwice,
    NewerIgnored,
    RefusedYetDone,
    RepairNotWaitedFor,
    RepliesOvertake,
    StaleReadCounted,
    StandInsCount,
    WriteAnsweredEarly,
)
from respkv.simulation.bugs_of_repair import (
    ExchangeGivesOnly,
    ReapedByAge,
    RebuiltUnjudged,
    ReturnsAsItWas,
    RootsTakenForEqual,
    TreeMissesRepairs,
)
from respkv.simulation.bugs_of_resizing import CountsUnfilled
from respkv.simulation.bugs_of_siblings import ActorKept, ActorReused, ContextIgnored, ReplacedComesBack, SiblingDropped
from respkv.simulation.bugs_of_storage import (
    AckBeforeAppend,
    ColdTakenForAbsent,
    LogDroppedEarly,
    RebuildCounts,
    SyncLies,
    TailNotOwed,
    TailNotReplayed,
)

if TYPE_CHECKING:
    from respkv.simulation.bug import Bugs
    from respkv.simulation.scenario import Scenario


@contextlib.contextmanager
def planted(bugs: Bugs) -> Iterator[None]:
    """Play with bugs, and go on without them."""
    patches = bugs.patches()
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def made_for(scenario: Scenario, bugs: Bugs) -> Scenario:
    """The scenario in which a bug may show."""
    faults = scenario.faults if bugs.faults is None else bugs.faults
    # Where trees are compared what got lost is found again; and hints have room, where nothing else is said.
    roomy = {name: text for name, text in scenario.directives.items() if name not in {"max-hints-size", "read-repair"}}
    directives = {**roomy, "anti-entropy-interval": "0", **bugs.directives}
    return replace(scenario, faults=faults, directives=directives, **bugs.others)


BUGS: dict[str, type[Bugs]] = {
    "actor reused": ActorReused,
    "actor kept after a loss": ActorKept,
    "sibling dropped by a merge": SiblingDropped,
    "replaced value comes back": ReplacedComesBack,
    "context ignored": ContextIgnored,
    "tombstone reaped by age": ReapedByAge,
    "absent node merged": ReturnsAsItWas,
    "rebuilt unjudged": RebuiltUnjudged,
    "tree misses repairs": TreeMissesRepairs,
    "trees taken for equal": RootsTakenForEqual,
    "exchange gives, never takes": ExchangeGivesOnly,
    "hint lost": HintLost,
    "hint dropped before ack": HintDroppedEarly,
    "tie broken by place": TieBrokenByPlace,
    "repair assigns": RepairAssigns,
    "ack before append": AckBeforeAppend,
    "sync lies": SyncLies,
    "expiry from arrival": ExpiryFromArrival,
    "stale read counted": StaleReadCounted,
    "empty node counts": RebuildCounts,
    "added replica counts unfilled": CountsUnfilled,
    "read repair left to hints": RepairNotWaitedFor,
    "write answered early": WriteAnsweredEarly,
    "log tail not replayed": TailNotReplayed,
    "log tail not owed": TailNotOwed,
    "clock not absorbed": ClockNotAbsorbed,
    "newer version ignored": NewerIgnored,
    "stand-ins count (strict)": StandInsCount,
    "refused yet done": RefusedYetDone,
    "replies overtake": RepliesOvertake,
    "command done twice": DoneTwice,
    "guest copy stays": GuestStays,
    "log dropped before flush": LogDroppedEarly,
    "cold taken for absent": ColdTakenForAbsent,
}
