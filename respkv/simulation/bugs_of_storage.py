"""Planted bugs of logs, tables and starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from respkv.server import turns
from respkv.server.rebuild import Rebuild
from respkv.server.restore import Restoration
from respkv.simulation.bug import SLOPPY, STRICT, Bugs, Patch
from respkv.simulation.disk import Disk
from respkv.storage.store import Store

if TYPE_CHECKING:
    from respkv.server.restore import LogRecord


class AckBeforeAppend(Bugs):
    """What a turn acknowledges gets into the log a tenth of a second later."""

    faults = ("kill",)
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def patches(self) -> list[Patch]:
        """Append late, unless the process is dead by then."""
        append = Disk.append

        def late(self: Disk, log: list[tuple[int, bytes]]) -> None:
            self._later((0.1, 0.1), append, self, log)

        return [(Disk, "append", late)]


class SyncLies(Bugs):
    """`appendfsync always` answers before the sync has returned."""

    faults = ("power",)
    directives: ClassVar[dict[str, str]] = {**STRICT, "appendfsync": "always"}
    others: ClassVar[dict[str, Any]] = {"nodes": 3, "keys": 5, "clients": 9, "think_s": 0.03, "sync_s": (0.1, 0.3), "factors": ()}

    def patches(self) -> list[Patch]:
        """Report at once, sync later."""
        begin = Disk._begin_sync  # noqa: SLF001

        def lie(self: Disk) -> None:
            turn = self._sync_wanted
            begin(self)
            self._report((turns.LOG_DURABLE, turn))

        return [(Disk, "_begin_sync", lie)]


class TailNotReplayed(Bugs):
    """A start stops reading its log a little before the end."""

    faults = ("kill",)
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def log_of(self, log: Iterable[LogRecord]) -> Iterable[LogRecord]:
        """All but the last few."""
        return list(log)[:-3]


class TailNotOwed(Bugs):
    """A start does not send the unconfirmed end of its log to the other replicas."""

    faults = ("kill", "cut")
    others: ClassVar[dict[str, Any]] = {"nodes": 3}
    directives = SLOPPY

    def patches(self) -> list[Patch]:
        """Owe nothing."""
        owe = Restoration.owe_tail

        def forget(self: Restoration, **arguments: Any) -> Any:
            self._tail.clear()
            return owe(self, **arguments)

        return [(Restoration, "owe_tail", forget)]


class LogDroppedEarly(Bugs):
    """The log before a freeze is dropped when the freeze begins, not when the tables are flushed."""

    faults = ("kill",)
    others: ClassVar[dict[str, Any]] = {"memtable_bytes": 1 << 12, "sync_s": (0.1, 0.5), "fault_pause_s": 0.4}
    directives: ClassVar[dict[str, str]] = {"write-quorum": "one", "read-quorum": "quorum"}

    def patches(self) -> list[Patch]:
        """Drop first."""
        obey = Disk.obey

        def hasty(self: Disk, departures: Any) -> None:
            obey(self, departures)
            if departures.freeze is not None:
                self.log_start += len(self.log)
                self.log.clear()

        return [(Disk, "obey", hasty)]


class ColdTakenForAbsent(Bugs):
    """A key that is not in memory is taken for one that does not exist."""

    directives: ClassVar[dict[str, str]] = {**STRICT, "maxmemory": "2000"}
    others: ClassVar[dict[str, Any]] = {"memtable_bytes": 1 << 12, "keys": 10}

    def patches(self) -> list[Patch]:
        """Nothing is ever cold."""
        return [(Store, "cold", lambda self, keys: [])]


class RebuildCounts(Bugs):
    """A node whose directory was emptied counts at once, as if it had copied everything."""

    faults = ("cut", "wipe", "wipe")
    directives = STRICT
    others: ClassVar[dict[str, Any]] = {"nodes": 3, "fault_pause_s": 0.4}

    def patches(self) -> list[Patch]:
        """Lack nothing."""
        return [(Rebuild, "begin", lambda self, reason: None)]
