"""A node that lacks data it may have acknowledged copies its partitions from their other replicas before it votes. Pure.

That is a node that found its log damaged, one whose directory was emptied, and one that is new: the members of a new
cluster copy nothing from each other and are done at once.

Rule: until it is done the node stores what it is sent, but neither its acknowledgements nor its answers count.
When a partition has been copied, `copying` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.server.copying import Copying

if TYPE_CHECKING:
    from respkv.server.node import Node

MARKER_FILE = "complete"


class Rebuild:
    """Copies what this node lacks."""

    __slots__ = ("_copying", "_n", "_node", "needed")

    def __init__(self, node: Node) -> None:
        """Nothing is lacking."""
        self._node = node
        self._copying = Copying(node, low=0, high=0)
        self._n = 0
        self.needed = False

    def begin(self, reason: str) -> None:
        """From now on this node does not count, until it is rebuilt."""
        node = self._node
        self.needed = True
        self._n = 0
        node.topology.rebuilding = node.replica.rebuilding = True
        node.topology.redraw_due = True
        node.membership.publish("rebuilding", 1)
        node.context.turn.events.append(("warning", f"rebuilding from the other replicas, and not counting until it is done: {reason}"))

    def tick(self) -> None:
        """Once a turn: copy from those who can be reached, and see whether that was all."""
        if not self.needed:
            return
        table = self._node.coordinator.table
        assert table is not None
        if table.n != self._n:
            # A node that has lost everything learns from the others how many replicas there are.
            self._n = table.n
            self._copying.is_over = True
            self._copying = Copying(self._node, low=0, high=table.n)
        if self._copying.tick():
            self._finish()

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._copying.next_due() if self.needed else None

    def _finish(self) -> None:
        node, copying = self._node, self._copying
        self.needed = False
        node.topology.rebuilding = node.replica.rebuilding = False
        node.topology.redraw_due = True
        node.membership.publish("rebuilding", 0)
        node.context.save_file(MARKER_FILE, b"1")
        node.freeze_soon()
        node.context.turn.events.append(("notice", f"complete: {copying.keys_total} records copied from {copying.sources_count()} nodes"))
