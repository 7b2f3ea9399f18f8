"""Planted bugs of keys that keep concurrent values."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.succession import Succession
from respkv.server.node import Node
from respkv.simulation.bug import SLOPPY, STRICT, Bugs, Patch
from respkv.simulation.scenario import SIBLINGS_PREFIXES
from respkv.versions import vectors

SIBLINGS = {"conflict-resolution-prefix": SIBLINGS_PREFIXES}


class ActorReused(Bugs):
    """A node goes on under its old name although it has lost its last writes: the oldest bug of Dynamo's kind."""

    faults = ("power",)
    directives: ClassVar[dict[str, str]] = {**STRICT, **SIBLINGS, "appendfsync": "everysec"}
    others: ClassVar[dict[str, Any]] = {
        "nodes": 3,
        "keys": 5,
        "clients": 9,
        "think_s": 0.03,
        "sync_s": (0.3, 1.0),
        "fault_pause_s": 3.0,
        "factors": (),
        "skew_ms": 5.0,
        "load_s": 20.0,
    }

    def patches(self) -> list[Patch]:
        """One actor for all processes of a node."""
        begin = Node.__init__

        def reuse(self: Node, **arguments: Any) -> None:
            begin(self, **{**arguments, "actor": hashlib.sha1(arguments["me"].encode()).digest()[:8]})

        return [(Node, "__init__", reuse)]


class ActorKept(Bugs):
    """A node that gave up copies coordinates again under its old name."""

    faults = ("cut", "kill")
    directives: ClassVar[dict[str, str]] = {**SLOPPY, **SIBLINGS, "replication-factor": "1"}
    others: ClassVar[dict[str, Any]] = {"nodes": 3, "keys": 5, "fault_pause_s": 0.4, "clients": 9, "think_s": 0.03}

    def patches(self) -> list[Patch]:
        """Stay who you are."""
        return [(Coordinator, "use_actor", lambda self, actor: None)]


class SiblingDropped(Bugs):
    """Merging keeps the newest of the values that nobody has replaced."""

    faults = ("cut", "stop")
    directives: ClassVar[dict[str, str]] = {**SLOPPY, **SIBLINGS}

    def patches(self) -> list[Patch]:
        """The last write wins, after all."""
        joined = vectors._joined  # noqa: SLF001

        def newest(left: vectors.Dotted, right: vectors.Dotted) -> vectors.Dotted:
            whole = joined(left, right)
            return whole._replace(siblings=dict([max(whole.siblings.items())] if whole.siblings else []))

        return [(vectors, "_joined", newest)]


class ReplacedComesBack(Bugs):
    """Merging keeps a value of one side although the other side has replaced it."""

    directives = SIBLINGS

    def patches(self) -> list[Patch]:
        """Forget what the other side has seen."""
        joined = vectors._joined  # noqa: SLF001

        def everything(left: vectors.Dotted, right: vectors.Dotted) -> vectors.Dotted:
            return joined(left, right)._replace(siblings={**left.siblings, **right.siblings})

        return [(vectors, "_joined", everything)]


class ContextIgnored(Bugs):
    """A write replaces all that its coordinator holds, whatever its writer has seen."""

    directives = SIBLINGS

    def patches(self) -> list[Patch]:
        """Pass no context on."""
        replaced = Succession._replaced  # noqa: SLF001
        return [(Succession, "_replaced", lambda self, key, plain, seen: replaced(self, key, plain, None))]
