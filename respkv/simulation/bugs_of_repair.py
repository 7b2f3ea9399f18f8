"""Planted bugs of hash trees, and of replicas that meet without anybody reading."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from respkv.repair.exchange import differing
from respkv.server import exchanges
from respkv.server.downtime import Downtime
from respkv.server.exchanges import Exchange
from respkv.server.reaping import Reaping
from respkv.server.turns import LOG_KEYS_DROPPED
from respkv.simulation.bug import STRICT, Bugs, Patch
from respkv.simulation.disk import Disk
from respkv.storage.store import Store
from respkv.versions.records import newest_stamp_of

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


class ReapedByAge(Bugs):
    """A deletion goes after a second, whoever lacks it."""

    faults = ("cut", "kill", "stop")
    directives: ClassVar[dict[str, str]] = {**STRICT, "anti-entropy-interval": "1"}

    def patches(self) -> list[Patch]:
        """Ask nobody."""

        def hasty(self: Reaping) -> None:
            node = self._node
            store = node.store
            self._look_at = node.context.turn.now + 0.5
            for partition, keys in enumerate(store.remains):
                old = [key for key in keys if (node.clock.last - newest_stamp_of(store.get(key))) >> 16 > 1000]
                for key in old:
                    store.forget(partition, key)
                    node.context.turn.log.append((LOG_KEYS_DROPPED, msgspec.msgpack.encode([key])))

        return [(Reaping, "tick", hasty)]


class ReturnsAsItWas(Bugs):
    """A node that was away for longer than deletions are remembered keeps what it holds, and merges it."""

    faults = ("away",)
    directives: ClassVar[dict[str, str]] = {**STRICT, "anti-entropy-interval": "1", "tombstone-grace": "1", "max-downtime": "2"}
    others: ClassVar[dict[str, Any]] = {"nodes": 3, "load_s": 24.0, "fault_pause_s": 2.0, "clients": 3, "factors": ()}

    def patches(self) -> list[Patch]:
        """Set nothing aside."""
        return [(Disk, "set_aside", lambda self, *names: None)]


class RebuiltUnjudged(Bugs):
    """Whatever node an operator names is rebuilt, although it may be the last one that has what it acknowledged."""

    faults = ("cut", "kill")
    directives = STRICT
    others: ClassVar[dict[str, Any]] = {"nodes": 3, "operates": True, "rules": (), "factors": ()}

    def patches(self) -> list[Patch]:
        """Have no objection."""
        return [(Downtime, "why_not", lambda self, member, among=None: "")]


class ExchangeGivesOnly(Bugs):
    """Of two replicas that compare, the one that began never takes what the other one has."""

    faults = ("cut", "stop")
    directives = TREES

    def patches(self) -> list[Patch]:
        """Take nothing."""
        return [(Exchange, "_take", lambda self, pairs: [])]
