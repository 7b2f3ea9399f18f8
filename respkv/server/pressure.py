"""When this node takes no more writes, because its disk does not. Pure.

Rule 1: what the tables lack is never dropped from memory. So while a freeze does not end, memory grows with every write; the end of
that is here, and others stand in for this node.
Rule 2: `maxmemory` bounds memory as long as the disk keeps up. Where it does not, records may take as much again, but `STALL_BYTES_MIN`
at least: a disk that takes a second to sync is not one that stalls, however little memory a node was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.config.settings import Settings
    from respkv.server.node import Node

#: With `maxmemory`, this part of it is written to the tables at a time ...
MEMTABLES_IN_MEMORY = 8
#: ... but not less than this.
MEMTABLE_BYTES_MIN = 1 << 20
#: What a freeze may let memory grow by beyond `maxmemory`, at least: a second or so of writes as fast as a node takes them.
STALL_BYTES_MIN = 64 << 20
FULL = "the disk is nearly full (min-free-disk)"
STALLED = "the disk is stalled, and what it has to take fills memory far beyond maxmemory"


def memtable_bytes(settings: Settings) -> int:
    """Bytes of log after which memory goes to the tables. What is on its way there cannot be dropped from memory."""
    if not settings.maxmemory:
        return settings.memtable_size
    return min(settings.memtable_size, max(settings.maxmemory // MEMTABLES_IN_MEMORY, MEMTABLE_BYTES_MIN))


class Pressure:
    """Refuses writes while the disk has no room, or takes too long."""

    __slots__ = ("_is_full", "_node", "is_stalled")

    def __init__(self, node: Node) -> None:
        """All is well."""
        self._node = node
        self._is_full = False
        self.is_stalled = False
        """Whether a freeze takes so long that memory has grown far beyond its bound."""

    def told(self, free_disk_bytes: int) -> None:
        """How much room the disk has."""
        limit = self._node.settings.min_free_disk
        was_full, self._is_full = self._is_full, bool(limit) and free_disk_bytes < limit
        if self._is_full and not was_full:
            # The log goes, and deletions make room: nobody can write until there is some.
            self._node.freeze_soon()
        self._decide()

    def look(self) -> None:
        """Once a turn, while memory is bounded."""
        store, maxmemory = self._node.store, self._node.settings.maxmemory
        limit = maxmemory + max(maxmemory, STALL_BYTES_MIN)
        is_stalled = store.frozen is not None and maxmemory > 0 and store.used_bytes > limit
        if is_stalled != self.is_stalled:
            self.is_stalled = is_stalled
            self._decide()

    def _decide(self) -> None:
        node = self._node
        reason = FULL if self._is_full else STALLED if self.is_stalled else ""
        if reason != node.replica.writes_disabled:
            text = f"no more writes are stored: {reason}" if reason else "writes are stored again: the disk has room, and keeps up"
            node.context.turn.events.append(("warning", text))
        node.replica.writes_disabled = node.coordinator.writes_disabled = reason
