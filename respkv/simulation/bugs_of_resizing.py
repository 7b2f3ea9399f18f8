"""A planted bug of replicas that another N adds."""

from __future__ import annotations

from typing import Any, ClassVar

from respkv.server.copying import Copying
from respkv.simulation.bug import SLOPPY, Bugs, Patch


class CountsUnfilled(Bugs):
    """A replica that a higher N adds counts before it has copied anything."""

    faults = ()
    directives = SLOPPY
    others: ClassVar[dict[str, Any]] = {"nodes": 5, "factors": (1, 3, 5), "rules": (), "flushes": False}

    def patches(self) -> list[Patch]:
        """Be done at once."""
        return [(Copying, "tick", lambda self: True)]
