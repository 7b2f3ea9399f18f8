"""What a planted bug is: methods of the node that are replaced while a seed is played, and what has to go wrong for it to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from respkv.server.restore import LogRecord

Patch = tuple[Any, str, Callable[..., Any]]
STRICT = {"replication-factor": "3", "read-quorum": "quorum", "write-quorum": "quorum", "sloppy-quorum": "no"}
SLOPPY = {"replication-factor": "3", "read-quorum": "quorum", "write-quorum": "quorum", "sloppy-quorum": "yes"}


class Bugs:
    """No bug at all; the base of those that follow."""

    faults: ClassVar[tuple[str, ...] | None] = None
    """What has to go wrong; None: whatever the seed says."""
    directives: ClassVar[dict[str, str]] = {}
    others: ClassVar[dict[str, Any]] = {}
    """What else the scenario has to be."""

    def patches(self) -> list[Patch]:
        """(class or module, name, what takes its place)."""
        return []

    def log_of(self, log: Iterable[LogRecord]) -> Iterable[LogRecord]:
        """What a start reads of its log."""
        return log
