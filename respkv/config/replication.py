"""How many nodes keep each key while `replication-factor` changes on a ring that holds data. Pure numbers.

With `lo` and `hi` for the smaller and the larger N, a change goes through stages, each of which begins when the one before
it is done everywhere, so that nodes which are a stage apart fit together:

    PREPARING   every write goes to `hi` nodes and has to meet both rules: W of `lo` on the first `lo`, W of `hi` on all.
                Reads ask the old N. What is added copies what it will hold; what leaves hands on what the others lack.
    SWITCHED    writes as before, reads ask the new N: whatever was acknowledged since PREPARING is on enough of both.
    DROPPING    (only if N falls) writes meet the new rule; what leaves drops its copies once nobody sends to it any more.

A stage that is set back by a concurrent change of another directive is simply gone through again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from respkv.config.quorums import Quorums

PREPARING = 1
SWITCHED = 2
DROPPING = 3


class Resize(msgspec.Struct, frozen=True, array_like=True):
    """A change of N on its way, as the cluster's value holds it."""

    stamp: int
    """Of the value that began it: its name."""
    old_n: int
    stage: int


class Replication(NamedTuple):
    """Which of a preference list's nodes are read, written and counted."""

    quorum: Quorums
    """n: how many are read. w and pw count among the first `core_n`."""
    core_n: int
    stored_n: int
    """How many are written to."""
    stored_w: int
    """How many of all those have to have a write as well; 0: nothing beside `quorum.w`."""
    held_n: int
    """How many keep their copies and take what is sent to them."""


def steady(quorum: Quorums) -> Replication:
    """The replication that no change is on its way of."""
    return Replication(quorum, quorum.n, quorum.n, 0, quorum.n)
