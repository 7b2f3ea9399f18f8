"""What happens to records that a replica did not take: a fallback stands in, or this node keeps a hint. Pure.

Source: Dynamo section 4.6. Rule: every record that a primary did not acknowledge in time becomes a hint
somewhere, whether or not its client was answered; only a fallback's copy counts towards the quorum, and
only while the quorum is sloppy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.config.quorums import Quorums
from respkv.coordinator.batches import Division, WriteBatch
from respkv.placement.slots import key_slot
from respkv.transport import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.coordinator.coordinator import Coordinator
    from respkv.ids import NodeId

LOG_WRITES = 1
LOG_HINTS = 2
LOG_KEYS_DROPPED = 5
_encode = msgspec.msgpack.Encoder().encode
_ONE = Quorums(1, 1, 1, 0, 0)


def _nobody_waits() -> None:
    """What is kept beside a quorum."""


class Compensation:
    """Stand-ins and hints for the batches of a coordinator."""

    __slots__ = ("_coordinator", "handoff", "sloppy", "usable")

    def __init__(self, coordinator: Coordinator) -> None:
        """`usable` and the two switches follow the routes."""
        self._coordinator = coordinator
        self.sloppy = True
        self.handoff = True
        self.usable: frozenset[NodeId] = frozenset()

    def owners_behind(self, batch: WriteBatch, node: NodeId) -> list[NodeId]:
        """For which owners a node was asked to take a batch: itself if it is a primary, or those it stands in for."""
        owners = [node] if node in batch.route.primary_set else []
        for peer, stood_for in batch.route.stand_ins:
            if peer == node:
                owners += stood_for
        return owners

    def divert(self, batch: WriteBatch, node: NodeId) -> None:
        """A node will not take a batch: let a fallback stand in, or keep hints where there is none."""
        if isinstance(batch.parent, Division):
            self._pass_on(batch, batch.parent)
        elif not self.stand_in_for(batch, node):
            self.keep_for(batch, node)

    def _pass_on(self, part: WriteBatch, division: Division) -> None:
        """A fallback will not take its part: ask those behind it."""
        (owner,) = part.diverted
        # What others are asked for stands for what was lost.
        division.left -= 1
        if not self.sloppy or not self._divide(division, owner, part.items):
            division.left += 1
            self.keep(division.batch, owner, part.items)

    def keep_for(self, batch: WriteBatch, node: NodeId) -> None:
        """Keep this node's own hints for whatever a node was asked to take, unless a fallback stands in already."""
        if isinstance(batch.parent, Division):
            (owner,) = batch.diverted
            self.keep(batch.parent.batch, owner, batch.items)
            return
        for owner in self.owners_behind(batch, node):
            if owner not in batch.diverted:
                batch.diverted[owner] = {}
                self.keep(batch, owner, batch.items)

    def keep(self, batch: WriteBatch, owner: NodeId, pairs: list[bytes], then: Callable[[], None] = _nobody_waits) -> bool:
        """Store records here, with a hint row for their owner. Returns whether there was room for all of them.

        If there was, `then` is called once the copies are in the log.
        """
        coordinator = self._coordinator
        if not self.handoff or owner == coordinator.me:
            return False
        taken = coordinator.hints.add(owner, pairs, coordinator.turn.now)
        is_whole = len(taken) == len(pairs)
        if taken:
            batch.hinted += len(taken) >> 1
            logged = LOG_HINTS, _encode([owner, taken])
            if not coordinator.take_in(taken, logged, then if is_whole else _nobody_waits):
                # Before the copies are there, the rows: without them the log would be confirmed too early.
                coordinator.turn.log.append(logged)
        return is_whole

    def stand_in_here(self, batch: WriteBatch) -> bool:
        """Keep hint rows for the owners for whom this node stands in. Returns whether its copy counts.

        Without a row nobody would ever take the copy back: then it does not count, and is not kept.
        """
        coordinator = self._coordinator
        kept = [self.keep(batch, owner, batch.items) for owner in batch.route.local_owners]
        if all(kept) or coordinator.me in batch.route.primary_set:
            return True
        stranded = [key for key in dict.fromkeys(batch.items[::2]) if not coordinator.hints.is_held(key)]
        for key in stranded:
            coordinator.store.forget(key_slot(key) >> coordinator.shift, key)
        if stranded:
            coordinator.turn.log.append((LOG_KEYS_DROPPED, _encode(stranded)))
        return False

    def kept_here(self, batch: WriteBatch) -> list[bytes]:
        """The records of a batch that this node has kept: where it stands in, not those for which there was no room for a row."""
        coordinator = self._coordinator
        if coordinator.me in batch.route.primary_set:
            return batch.items
        items = iter(batch.items)
        return [word for pair in zip(items, items, strict=True) if coordinator.hints.is_held(pair[0]) for word in pair]

    def stand_in_for(self, batch: WriteBatch, node: NodeId) -> bool:
        """Ask fallbacks to stand in for a node that does not answer. Returns whether somebody could be asked for all of it."""
        if not self.sloppy or isinstance(batch.parent, Division) or not batch.items:
            return False
        owners = [owner for owner in self.owners_behind(batch, node) if owner not in batch.diverted]
        if not owners:
            return bool(self.owners_behind(batch, node))
        asked = [self._divide(Division(batch, owner), owner, batch.items) for owner in owners]
        return all(asked)

    def _divide(self, division: Division, owner: NodeId, pairs: list[bytes]) -> bool:
        """Ask fallbacks to take an owner's records. Returns whether there is one for each of them; else nobody is asked."""
        batch = division.batch
        shares: dict[NodeId, list[bytes]] = {}
        for fallback, share in self._shares(batch, pairs).items():
            if fallback is None:
                return False
            shares[fallback] = share
        asked = batch.diverted.setdefault(owner, {})
        division.left += len(shares)
        for fallback, share in sorted(shares.items()):
            asked[fallback] = asked.get(fallback, []) + share
            self._send_part(division, fallback, owner=owner, pairs=share)
        return True

    def _shares(self, batch: WriteBatch, pairs: list[bytes]) -> dict[NodeId | None, list[bytes]]:
        """Some of a batch's records by the first fallback of each that is up and was not asked to take it yet; None: there is none.

        A fallback that stands in for another owner of the same key is passed over: it would count twice.
        """
        coordinator = self._coordinator
        table = coordinator.table
        assert table is not None
        route = batch.route
        taken = set(route.primary_set) | {peer for peer, _ in route.stand_ins} | ({coordinator.me} if route.local_write else set())
        holders: dict[bytes, set[NodeId]] = {}
        for parts in batch.diverted.values():
            for node, part in parts.items():
                for key in part[::2]:
                    holders.setdefault(key, set()).add(node)
        shares: dict[NodeId | None, list[bytes]] = {}
        items = iter(pairs)
        for key, record in zip(items, items, strict=True):
            preference = table.preference(key_slot(key) >> coordinator.shift)
            busy = taken | holders.get(key, set())
            fallback = next((node for node in preference if node not in busy and node in self.usable), None)
            shares.setdefault(fallback, []).extend((key, record))
        return shares

    def _send_part(self, division: Division, fallback: NodeId, *, owner: NodeId, pairs: list[bytes]) -> None:
        coordinator = self._coordinator
        if fallback == coordinator.me:
            self.keep(division.batch, owner, pairs, lambda: self.part_written(division))
            return
        part = WriteBatch(division.batch.route, _ONE)
        part.parent = division
        part.stored_w = 0
        part.items = pairs
        part.diverted[owner] = {}
        coordinator.writes.send_part(part, fallback, frames.pack_owners((owner,)) + _encode(pairs))

    def part_written(self, division: Division) -> None:
        """A fallback has its part. With the last one, the fallbacks together count as one replica."""
        division.left -= 1
        batch = division.batch
        if division.left == 0:
            batch.acks += division.counts
            batch.acks_beside += not division.counts
            if batch.open and batch.reached():
                self._coordinator.writes.written(batch)
