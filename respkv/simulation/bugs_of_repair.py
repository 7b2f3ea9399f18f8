"""Planted bugs of hash trees, and of replicas that meet without anybody reading."""

from __future__ import annotations

from typing import Any, ClassVar

from respkv.repair.exchange import differing
from respkv.server import exchanges
from respkv.server.exchanges import Exchange
from respkv.simulation.bug import STRICT, Bugs, Patch
from respkv.storage.store import Store

TREES = {**STRICT, "anti-entropy-interval": "1", "max-hints-size": "1", "read-repair": "off"}
"""What hints and reads would repair is left to the trees."""


class TreeMissesRepairs(Bugs):
    """What repairs, hints and stand-ins bring does not get into the hash trees."""

    faults = ("cut", "stop")
    directives: ClassVar[dict[str, str]] = {**STRICT, "anti-entropy-interval": "1"}

    def patches(self) -> list[Patch]:
        """Forget what changed."""
        merge_pairs = Store.merge_pairs

        def unseen(self: Store, pairs: Any) -> list[int]:
            before = dict(self.changed)
            newer = merge_pairs(self, pairs)
            self.changed.clear()
            self.changed.update(before)
            return newer

        return [(Store, "merge_pairs", unseen)]


class RootsTakenForEqual(Bugs):
    """The last partition of those that are compared is never found to differ."""

    faults = ("cut", "stop")
    directives = TREES

    def patches(self) -> list[Patch]:
        """One less."""
        return [(exchanges, "differing", lambda mine, theirs: differing(mine[:-1], theirs[:-1]))]


class ExchangeGivesOnly(Bugs):
    """Of two replicas that compare, the one that began never takes what the other one has."""

    faults = ("cut", "stop")
    directives = TREES

    def patches(self) -> list[Patch]:
        """Take nothing."""
        return [(Exchange, "_take", lambda self, pairs: [])]
