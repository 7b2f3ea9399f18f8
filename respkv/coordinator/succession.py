"""What a write of a key that keeps siblings replaces: the coordinator's part of dotted version vectors. Pure.

Rule 1: only a node that holds a copy of the key coordinates such a write, and it merges the new version into that copy in the
turn in which it made it: so an actor never claims to have seen what it has not.
Rule 2: in a partition of which this node has given up copies it goes on as another actor. As the old one, its next version would
cover writes of its own that it remembers no more (the oldest Dynamo bug; Riak's kv679). Elsewhere it stays who it is: each actor is
one more entry in the vectors of keys that are written without a pause, and those are shortened when they rest.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from respkv.errors import ClientError, NoQuorumError, TooManySiblingsError
from respkv.ids import new_actor
from respkv.placement.slots import key_slot
from respkv.transport.bounds import siblings_bytes_max
from respkv.versions.clock import CLOCK_AHEAD_MAX_MS
from respkv.versions.policy import ConflictPolicy
from respkv.versions.records import newest_stamp_of, reversioned, siblings_in
from respkv.versions.vectors import successor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from respkv.coordinator.coordinator import Coordinator

CONTEXT_AHEAD_MAX_MS = CLOCK_AHEAD_MAX_MS // 2
"""A context further in the future was made up: following it would spoil every clock. Well below what other nodes still believe."""


class Succession:
    """Makes the new records of keys that keep siblings."""

    __slots__ = ("_coordinator", "bytes_max", "policy", "refused_total", "rng", "siblings_max")

    def __init__(self, coordinator: Coordinator) -> None:
        """The last write of every key wins, until told otherwise. Who builds the coordinator gives it dice."""
        self._coordinator = coordinator
        self.policy = ConflictPolicy()
        self.siblings_max = 100
        self.bytes_max = siblings_bytes_max(64 << 20)
        """What a record may have in all: a longer one could not be sent to the other replicas."""
        self.refused_total = 0
        """Writes that were refused because of `max-siblings`, or because all values together were too long."""
        self.rng = random.Random(coordinator.actor)

    def replaced(self, pairs: list[tuple[bytes, bytes]], seen: Mapping[bytes, bytes | None]) -> list[tuple[bytes, bytes]]:
        """The records that `pairs` of keys and plain records become. The keys are in memory.

        `seen` is for each key that is to keep siblings what its writer has seen; None: what this node holds.
        Raises ClientError before any effect.
        """
        return [(key, self._replaced(key, record, seen[key]) if key in seen else record) for key, record in pairs]

    def _replaced(self, key: bytes, plain: bytes, seen: bytes | None) -> bytes:
        coordinator = self._coordinator
        partition = key_slot(key) >> coordinator.shift
        if not coordinator.routes[partition].local_write:
            msg = "this node holds no copy of the key, as it sees the cluster now; nothing was done"
            raise NoQuorumError(msg)
        lost = coordinator.store.lost
        if partition in lost:
            lost.clear()
            coordinator.use_actor(new_actor(self.rng))
        held = coordinator.store.get(key)
        context = held if seen is None else seen
        newest, clock = newest_stamp_of(context), coordinator.clock
        if newest > clock.last and (newest >> 16) > coordinator.turn.wall_ms + CONTEXT_AHEAD_MAX_MS:
            msg = "invalid context: it is of a time to come"
            raise ClientError(msg)
        clock.absorb(max(newest, newest_stamp_of(held)))
        record = successor(held, context, reversioned(plain, clock.next(), coordinator.actor))
        # Those that have expired as well: they stay in the record until somebody replaces them, or all are of the past.
        count = len(siblings_in(record))
        if count > self.siblings_max and count > len(siblings_in(held)):
            self.refused_total += 1
            raise TooManySiblingsError(f"{self.siblings_max} siblings (max-siblings)")
        if len(record) > self.bytes_max and count > 1 and len(record) > len(held):
            self.refused_total += 1
            raise TooManySiblingsError(f"siblings of {self.bytes_max >> 20} MB together, which is all that can be sent to a replica")
        return record
