"""Carry out what another node's coordinator asks of this replica. Pure.

Rule 1: what is acknowledged is in this turn's log, at the level of `appendfsync`.
Rule 2: one answer per frame and kind, not one per record.
Rule 3: a node refuses what it does not hold, unless the request names the primary for whom it stands in.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from respkv.coordinator.recent_writes import FOR_LONG_US, NOT_AT_ALL, RecentWrites
from respkv.errors import PeerProtocolError
from respkv.placement.slots import key_slot
from respkv.transport import border, frames
from respkv.transport.bounds import LONG_BYTES, SECTION_BYTES_MAX
from respkv.versions.clock import highest_credible
from respkv.versions.records import ABSENT, VERSION_BYTES, are_well_formed, newest_stamp_of

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.repair.hints import HintBook
    from respkv.storage.parking import Parking
    from respkv.storage.store import Store
    from respkv.transport.turn import Turn
    from respkv.versions.clock import HybridClock

TOO_MANY_WAIT = "too many requests wait for the disk"
LOG_WRITES = 1
LOG_HINTS = 2
decode_keys = border.reader(list[bytes])
"""[key, ...] from a peer. Raises PeerProtocolError for anything else, as all of these do."""
_encode = msgspec.msgpack.Encoder().encode


def check_pairs(pairs: list[bytes], *, wall_ms: int) -> None:
    """Raise PeerProtocolError unless this is [key, record, ...]."""
    if len(pairs) % 2 or not are_well_formed(pairs[1::2], stamp_max=highest_credible(wall_ms)):
        msg = "a write that is no list of keys and records"
        raise PeerProtocolError(msg)


def decode_pairs(body: bytes, *, wall_ms: int) -> list[bytes]:
    """[key, record, ...] from a peer."""
    pairs = decode_keys(body)
    check_pairs(pairs, wall_ms=wall_ms)
    return pairs


def check_records(records: list[bytes], *, wall_ms: int) -> None:
    """Raise PeerProtocolError unless this is [record, ...], ABSENT among them."""
    if not are_well_formed(list(filter(None, records)), stamp_max=highest_credible(wall_ms)):
        msg = "answers with what are no records"
        raise PeerProtocolError(msg)


def _without(pairs: list[bytes], late: list[int]) -> tuple[list[int], list[bytes]]:
    """The others among [key, record, ...], and their indices."""
    left = [index for index in range(len(pairs) >> 1) if index not in late]
    return left, [word for index in left for word in pairs[2 * index : 2 * index + 2]] if late else pairs


class Replica:
    """This node's copies, as other nodes use them."""

    __slots__ = (
        "_acks",
        "_clock",
        "_hints",
        "_parking",
        "_recent",
        "_store",
        "_turn",
        "distrusted",
        "holds",
        "others",
        "rebuilding",
        "records_refused_total",
        "writes_disabled",
    )

    def __init__(self, *, store: Store, turn: Turn, hints: HintBook, parking: Parking, clock: HybridClock, recent: RecentWrites) -> None:
        """`holds` says for each partition whether this node is one of its primaries; it follows the routes."""
        self._store = store
        self._turn = turn
        self._hints = hints
        self._parking = parking
        self._clock = clock
        self._recent = recent
        self._acks: defaultdict[NodeId, list[int]] = defaultdict(list)
        self.holds: list[bool] = []
        self.others: frozenset[NodeId] = frozenset()
        """The members of the ring beside this node: for whom it may stand in."""
        self.distrusted: frozenset[NodeId] = frozenset()
        """Nodes whose own copies must not be merged: they were away for too long, and may not know it yet."""
        self.rebuilding = False
        """Whether this node lacks data that it may have acknowledged. Others may not have heard of it yet."""
        self.records_refused_total = 0
        self.writes_disabled = ""
        """Why writes are refused at present (no disk space), or empty."""

    def write(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """A coordinator's write, for partitions that this node holds."""
        pairs = decode_pairs(body, wall_ms=self._turn.wall_ms)
        if self.writes_disabled:
            self._refuse(peer, sequence, self.writes_disabled)
            return
        store = self._store
        if store.resident and not self._parking.keys:
            self._merge(peer, sequence, pairs, body)
        elif self._parking.has_room_for(pairs[::2]):
            self._parking.when_loaded(pairs[::2], lambda: self._merge(peer, sequence, pairs, body), len(body))
        else:
            self._refuse(peer, sequence, TOO_MANY_WAIT)

    def _merge(self, peer: NodeId, sequence: int, pairs: list[bytes], body: bytes) -> None:
        holds, shift = self.holds, self._store.shift
        partitions = [(crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> shift for key in pairs[::2]]
        for partition in partitions:
            if not holds[partition]:
                self._refuse(peer, sequence, "not a replica of this partition")
                return
        if late := self._late(pairs):
            left, others = _without(pairs, late)
            newer = [left[index] for index in self._store.merge_pairs(others)]
            if others:
                self._turn.log.append((LOG_WRITES, _encode(others)))
            self._acknowledge(peer, sequence, pairs, newer, late=late)
            return
        newer = self._store.merge_many(partitions, pairs)
        self._turn.log.append((LOG_WRITES, body))
        self._acknowledge(peer, sequence, pairs, newer)

    def _late(self, pairs: list[bytes]) -> list[int]:
        """Which records come later than a deletion that was dropped meanwhile, for all that is known: their keys are absent.

        Stamps of a batch lie close together: the first tells whether to look closer.
        """
        store = self._store
        if not pairs or pairs[1] >= store.reaped_below:
            return []
        below = int.from_bytes(store.reaped_below, "big")
        items = enumerate(zip(pairs[::2], pairs[1::2], strict=True))
        return [index for index, (key, record) in items if newest_stamp_of(record) < below and not store.get(key)]

    def _acknowledge(self, peer: NodeId, sequence: int, pairs: list[bytes], newer: list[int], *, late: Sequence[int] = ()) -> None:
        """Tell that the records of [key, record, ...] are in the log; since when `newer` ones are held; and which came too `late`."""
        turn, recent = self._turn, self._recent
        if newer or late:
            held = [self._store.get(pairs[2 * index]) for index in newer]
            since = [recent.came(record[:VERSION_BYTES], turn.now) for record in held]
            stamps = [newest_stamp_of(record) for record in held]
            recent.note(pairs, turn.now)

            def tell() -> None:
                # For how long until now: as little as can be of the way of a write is to look like a time in which it was held up.
                held_us = [FOR_LONG_US if at is None else int((turn.now - at) * 1_000_000) for at in since]
                told = sorted([*zip(newer, held_us, stamps, strict=True), *((index, NOT_AT_ALL, 0) for index in late)])
                turn.post(peer, frames.WRITE_ACK_NEWER, sequence, _encode([self._clock.last, *chain.from_iterable(told)]))

            turn.when_logged(tell)
            return
        recent.note(pairs, turn.now)
        if turn.sync_each_turn:
            turn.when_logged(lambda: self._acks[peer].append(sequence))
        else:
            self._acks[peer].append(sequence)

    def stand_in(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """A coordinator's write for an owner that is away: stored like any other, with a hint row."""
        owners, body = frames.unpack_owners(body)
        if not self.others.issuperset(owners):
            msg = "asks to stand in for a node that is no other member"
            raise PeerProtocolError(msg)
        pairs = decode_pairs(body, wall_ms=self._turn.wall_ms)
        if self.writes_disabled or not self._parking.has_room_for(pairs[::2]):
            self._refuse(peer, sequence, self.writes_disabled or TOO_MANY_WAIT)
            return
        self._parking.when_loaded(pairs[::2], lambda: self._keep(peer, sequence, owners, pairs), len(body))

    def _keep(self, peer: NodeId, sequence: int, owners: list[NodeId], pairs: list[bytes]) -> None:
        store = self._store
        late = self._late(pairs)
        sent = pairs
        left, pairs = _without(pairs, late)
        kept = [self._hints.add(owner, pairs, self._turn.now) for owner in owners]
        self._turn.log += [(LOG_HINTS, _encode([owner, taken])) for owner, taken in zip(owners, kept, strict=True) if taken]
        fit = bool(owners) and all(len(taken) == len(pairs) for taken in kept)
        if not fit and not all(self.holds[store.partition(key)] for key in pairs[::2]):
            # What has no hint row is not stored: nobody would ever take it back.
            for taken in kept:
                store.merge_pairs(taken)
            self._refuse(peer, sequence, "no room for hints (max-hints-size), or the owner was away for too long (max-hint-window)")
            return
        # A primary that keeps the rows, because no fallback is left, counts for its own copy whatever becomes of them.
        newer = [left[index] for index in store.merge_pairs(pairs)]
        if not fit:
            self._turn.log.append((LOG_WRITES, _encode(pairs)))
        self._acknowledge(peer, sequence, sent, newer, late=late)

    def repair(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """Records that this node lacks, from a read repair or a hint: merged whatever their stamps."""
        pairs = decode_pairs(body, wall_ms=self._turn.wall_ms)
        reason = self.writes_disabled
        if not all(self.holds[self._store.partition(key)] for key in pairs[::2]):
            # A copy without a hint row would stay here for ever.
            reason = "not a replica of this partition"
        if peer in self.distrusted:
            reason = "what you hold is to be set aside"
        if not self._parking.has_room_for(pairs[::2]):
            reason = reason or TOO_MANY_WAIT
        if reason:
            if sequence:
                self._refuse(peer, sequence, reason)
            return
        self._parking.when_loaded(pairs[::2], lambda: self._merge_repair(peer, sequence, pairs, body), len(body))

    def _merge_repair(self, peer: NodeId, sequence: int, pairs: list[bytes], body: bytes) -> None:
        self._recent.note_copies(pairs, self._turn.now, held=self._store.get)
        self._store.merge_pairs(pairs)
        self._turn.log.append((LOG_WRITES, body))
        if sequence:
            self._turn.when_logged(lambda: self._acks[peer].append(sequence))

    def read(self, peer: NodeId, sequence: int, body: bytes, *, stand_in: bool) -> None:
        """A coordinator's read."""
        keys = decode_keys(body)
        if self.rebuilding:
            self._refuse(peer, sequence, "rebuilding: what is not here may exist")
            return
        shift = self._store.shift
        partitions = [(crc_hqx(key, 0) & 16383 if b"{" not in key else key_slot(key)) >> shift for key in keys]
        if not stand_in:
            holds = self.holds
            for partition in partitions:
                if not holds[partition]:
                    self._refuse(peer, sequence, "not a replica of this partition")
                    return
        if self._store.resident and not self._parking.keys:
            self._answer(peer, sequence, partitions, keys)
        elif not self._parking.has_room_for(keys):
            self._refuse(peer, sequence, TOO_MANY_WAIT)
        else:
            self._parking.when_loaded(keys, lambda: self._answer(peer, sequence, partitions, keys))

    def _answer(self, peer: NodeId, sequence: int, partitions: list[int], keys: list[bytes]) -> None:
        shards, floor = self._store.shards, self._store.floor
        records = [shards[partition].get(key, ABSENT) for partition, key in zip(partitions, keys, strict=True)]
        if floor:
            records = [record if record >= floor else ABSENT for record in records]
        size = sum(map(len, records))
        if size > LONG_BYTES and not self._may_answer(peer, sequence, records, size):
            return
        self._turn.post(peer, frames.RECORDS, sequence, _encode(records))

    def _may_answer(self, peer: NodeId, sequence: int, records: list[bytes], size: int) -> bool:
        """Whether a long answer may be sent as it is. If not, whoever asks hears so: it asks for less at a time."""
        cuts = frames.cuts(records) if size > SECTION_BYTES_MAX else [0]
        if len(cuts) == 1 and self._turn.make_room(peer, size):
            return True
        self._turn.post(peer, frames.TOO_LONG, sequence, _encode(cuts if len(cuts) > 1 else []))
        return False

    def _refuse(self, peer: NodeId, sequence: int, reason: str) -> None:
        self.records_refused_total += 1
        self._turn.post(peer, frames.REFUSED, sequence, reason.encode())

    def flush_acks(self) -> None:
        """Put this turn's acknowledgements into the frames to those who wait for them."""
        if self._acks:
            for peer, sequences in self._acks.items():
                self._turn.post(peer, frames.WRITE_ACK, 0, _encode(sequences))
            self._acks.clear()
