"""Read what some leaves of a hash tree stand for, and set them right if they are wrong. Pure.

Rule: a leaf is only judged if nothing of it changed while it was read. Its keys are read in one go where all is in memory;
where the tables are asked, the tree tells whether it changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from respkv.storage.hash_trees import waiting

if TYPE_CHECKING:
    from respkv.server.node import Node
    from respkv.server.rows import Rows

Then = Callable[["Rows", bool], None]
"""Gets the rows, and whether the leaves are known to be right now."""

ROWS_MIN = 16
ROWS_MAX = 500
CHANGES_FOLLOWED_MAX = 500
"""In one go; it takes half a millisecond."""
CHANGES_JUDGED_MAX = 5000
"""The same where leaves must be judged: more than a turn brings, or under full load the day would never come."""


class LeafReader:
    """Reads leaves of a node's partitions."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        """`node` is whose records are read."""
        self._node = node

    def read(self, partition: int, first: int, end: int, then: Then, *, must_judge: bool = True) -> None:
        """Hand all (key, record) of the leaves from `first` to before `end` to `then`.

        At once if everything is in memory, in a later turn otherwise. Where the trees have much to follow, leaves that need not be
        judged are not.
        """
        _Reading(self._node, partition, range(first, end), then, must_judge=must_judge).begin()


class _Reading:
    """Some leaves on their way."""

    __slots__ = ("_before", "_end", "_first", "_hash_end", "_limit", "_must_judge", "_node", "_partition", "_rows", "_then")

    def __init__(self, node: Node, partition: int, leaves: range, then: Then, *, must_judge: bool) -> None:
        store = node.store
        self._must_judge = must_judge
        self._node = node
        self._partition = partition
        self._first = leaves.start
        self._end = leaves.stop
        self._then = then
        self._rows: Rows = []
        self._hash_end = 0
        held = max(len(store.shards[partition]), store.live[partition])
        self._limit = min(max(2 * held * len(leaves) >> store.trees.leaf_bits, ROWS_MIN), ROWS_MAX)
        self._before = self._followed()

    def _followed(self) -> list[int] | None:
        """The leaves as the tree has them, if the tree has taken in all changes; else None."""
        store = self._node.store
        if not self._must_judge and waiting(store) > CHANGES_FOLLOWED_MAX:
            return None
        is_current = store.trees.take_in(store, CHANGES_JUDGED_MAX if self._must_judge else CHANGES_FOLLOWED_MAX)
        return store.trees.part(self._partition, self._first, self._end) if is_current else None

    def begin(self) -> None:
        first_hash, self._hash_end = self._node.store.trees.bounds(self._first, self._end)
        self._go_on(first_hash)

    def _go_on(self, first_hash: int) -> None:
        self._node.rows.read(self._partition, first_hash, self._limit, self._take)

    def _take(self, rows: Rows, next_hash: int | None) -> None:
        end = self._hash_end
        self._rows += [(key, record) for key, record in rows if xxh64_intdigest(key) < end]
        if next_hash is not None and next_hash < end:
            self._go_on(next_hash)
            return
        trees = self._node.store.trees
        is_judged = self._before is not None and self._followed() == self._before
        if is_judged:
            trees.correct(self._partition, self._first, trees.part_of(self._rows, self._first, self._end))
        self._then(self._rows, is_judged)
