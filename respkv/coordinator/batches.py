"""The reads and writes of one turn that go to the same replicas, and who waits for them. Pure.

A batch is what is paid for per turn: one section in the frame to each replica, one answer, one tally.
A reply that waits is a cell, a list with one element: None until the reply is there. A connection keeps
its cells in the order of its commands; all plain writes of a batch share one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from respkv.versions.vectors import merge

if TYPE_CHECKING:
    from respkv.config.quorums import Quorums
    from respkv.coordinator.read_repairs import Repair
    from respkv.coordinator.routes import Route
    from respkv.errors import ClientError
    from respkv.ids import NodeId

ENDED_SHOWN_MAX = 8
"""So many of the commands that were slow or failed together are told one by one."""
Cell = list[Any]
"""[None], then [reply bytes]."""


class Waiter:
    """A connection, as batches see it."""

    __slots__ = ("last", "mutating", "nil", "pending", "reading", "setting")

    def __init__(self, nil: bytes) -> None:
        """`nil` is what it hears of keys that do not exist."""
        self.nil = nil
        self.last: Any = None
        """For RESPKV LAST and WAIT: the batch or batches of the last read or write, or the node that it was passed on to."""
        self.pending: deque[Cell] = deque()
        self.reading: set[bytes] = set()
        self.mutating: set[bytes] = set()
        self.setting: set[bytes] = set()
        """Keys of plain SETs on their way that are merged into this node's own copy: only a blind write may pass them."""

    def drain(self) -> None:
        """Some of the cells were filled: send what can be sent, in order."""
        raise NotImplementedError


class Gatherer(Protocol):
    """An operation, as batches see it."""

    def receive(self, index: int, record: bytes) -> None:
        """One of the records that the operation reads."""

    def failed(self, error: ClientError) -> None:
        """A read or a write that it waits for has failed."""

    def written(self) -> None:
        """One of the batches that its writes went into reached its quorum."""


class Ended:
    """Plain GETs or SETs that failed, or were slow, together."""

    __slots__ = ("count", "error", "lines", "microseconds", "name")

    def __init__(self, name: str, lines: list[tuple[Waiter | None, list[bytes]]], *, count: int, microseconds: int, error: bytes) -> None:
        """`lines` are some of the `count` commands, and who waited for each, where that is known; `error` is what all heard, or empty."""
        self.name = name
        self.lines = lines
        self.count = count
        self.microseconds = microseconds
        self.error = error


class WriteBatch:
    """Writes of one turn to one set of replicas."""

    __slots__ = (
        "acks",
        "acks_beside",
        "asked_at",
        "cell",
        "conns",
        "count",
        "diverted",
        "gathered",
        "hinted",
        "instant",
        "items",
        "last_conn",
        "open",
        "operations",
        "parent",
        "predecessors",
        "primary_acks",
        "quorum",
        "resends",
        "route",
        "sent_at",
        "sequence",
        "size",
        "stamp",
        "stored_w",
        "turn",
        "waiting",
    )

    def __init__(self, route: Route, quorum: Quorums) -> None:
        """Nothing is in it yet, nobody was asked."""
        self.route = route
        self.quorum = quorum
        self.sequence = 0
        self.turn = 0
        """The number of the turn in which it was sent."""
        self.count = 0
        self.stamp = 0
        """How many records were sent, and the stamp of the last; `items` go when all have acknowledged."""
        self.size = 0
        """Bytes of those records that may make it too long."""
        self.asked_at = self.sent_at = 0.0
        """When its clients began to wait, at the earliest; and when it was sent: nobody can have read it before."""
        self.items: list[bytes] = []
        """[key, record, key, record, ...]"""
        self.gathered: set[int] = set()
        """The places in `items` of what operations write: the others are plain SETs."""
        self.cell: Cell = [None]
        self.conns: list[Waiter] = []
        self.last_conn: Waiter | None = None
        self.operations: list[Gatherer] = []
        self.waiting: set[NodeId] = set()
        """Nodes that were asked and have neither acknowledged nor been given up."""
        self.acks = 0
        self.primary_acks = 0
        self.acks_beside = 0
        self.stored_w = route.stored_w if quorum.w >= route.quorum.w else 0
        """While N changes: acknowledgements of nodes that do not count for W, and how many are needed of all together."""
        self.instant = False
        """Whether this node's own log is all that is needed: the reply is made at once."""
        self.open = True
        """Whether the clients still wait."""
        self.diverted: dict[NodeId, dict[NodeId, list[bytes]]] = {}
        """Owners for which fallbacks were asked, and what of each; nothing where this node keeps the hints."""
        self.hinted = 0
        self.resends = 0
        """What the answer waits for beside its own acknowledgements: what is sent again under a later stamp, and successors."""
        self.predecessors: list[WriteBatch] = []
        """Batches that lost to another version and that this one writes over: they are answered when this one has its quorum."""
        self.parent: Division | WriteBatch | None = None
        """What to tell when this batch has its quorum: a batch whose records it sends again, or of a fallback's share."""

    def carried_bytes(self) -> int:
        """How long its records are."""
        return sum(map(len, self.items))

    def reached(self) -> bool:
        """Whether the quorum is met."""
        return (
            self.acks >= self.quorum.w
            and self.primary_acks >= self.quorum.pw
            and not self.resends
            and self.acks + self.acks_beside >= self.stored_w
        )


class Division:
    """The share of one unreachable owner in a batch, divided among fallbacks: together they count as one."""

    __slots__ = ("batch", "counts", "left")

    def __init__(self, batch: WriteBatch, owner: NodeId) -> None:
        """`left` counts the parts that no fallback has acknowledged yet."""
        self.batch = batch
        self.counts = owner in batch.route.core_set
        self.left = 0


class ReadBatch:
    """Reads of one turn from one set of replicas."""

    __slots__ = (
        "answers",
        "asked",
        "asked_at",
        "best",
        "cells",
        "conns",
        "crowded",
        "differs",
        "keys",
        "local",
        "need",
        "open",
        "primary_answers",
        "quorum",
        "repair",
        "route",
        "sequence",
        "waiting",
    )

    def __init__(self, route: Route, quorum: Quorums, *, local: bool) -> None:
        """`local` tells whether this node's own records are among the answers."""
        self.route = route
        self.quorum = quorum
        self.sequence = 0
        self.asked_at = 0.0
        """When its clients began to wait, at the earliest."""
        self.local = local
        self.keys: list[bytes] = []
        self.best: list[bytes] = []
        """The newest record seen of each key."""
        self.cells: list[Any] = []
        """For each key a cell, or the index that an operation gave it."""
        self.conns: list[Any] = []
        """For each key the connection (Waiter) or the operation (Gatherer) that waits."""
        self.need = quorum.r - local
        self.primary_answers = 0
        self.waiting: set[NodeId] = set()
        self.asked: set[NodeId] = set()
        self.answers: list[tuple[NodeId, list[bytes]]] = []
        self.differs = False
        self.crowded = False
        """Whether a node had no room for its answer, or there was none for what it would have been asked."""
        self.open = True
        self.repair: Repair | None = None
        """Those of its keys that wait until enough replicas have what was found."""

    def carried_bytes(self) -> int:
        """How long the answers are, for all that is known of them."""
        return sum(map(len, self.best))


def merge_answers(best: list[bytes], records: list[bytes]) -> None:
    """Merge one replica's answers into the newest seen."""
    for index, record in enumerate(records):
        best[index] = merge(best[index], record)


def lacks(newest: bytes, held: bytes) -> bool:
    """Whether a replica that holds one record of a key lacks some of another."""
    return newest != held and merge(newest, held) != held


def stale_indices(batch: ReadBatch, records: list[bytes]) -> list[int]:
    """The keys of which a replica that answered `records` lacks something. A late answer may hold newer ones."""
    return [index for index, (newest, held) in enumerate(zip(batch.best, records, strict=True)) if lacks(newest, held)]
