"""Planted bugs of copies: hints, repairs, merging, expiry."""

from __future__ import annotations

from typing import Any, ClassVar

from respkv.coordinator.replica import Replica
from respkv.repair.handoff import Handoff
from respkv.repair.hints import HintBook
from respkv.simulation.bug import SLOPPY, Bugs, Patch
from respkv.storage.store import Store
from respkv.versions import records


class HintLost(Bugs):
    """Every third hint row is counted and forgotten."""

    faults = ("cut", "stop")

    def patches(self) -> list[Patch]:
        """Take rows and keep fewer."""
        add, count = HintBook.add, 0

        def forgetful(self: HintBook, owner: str, pairs: list[bytes], now: float) -> list[bytes]:
            nonlocal count
            taken = add(self, owner, pairs, now)
            for key in taken[::2]:
                count += 1
                if count % 3 == 0:
                    self.drop(owner, [key])
            return taken

        return [(HintBook, "add", forgetful)]


class HintDroppedEarly(Bugs):
    """A hint row is dropped when its record was sent, not when the owner has it."""

    faults = ("cut", "reset", "stop")
    directives: ClassVar[dict[str, str]] = {**SLOPPY, "anti-entropy-interval": "0", "read-repair": "off"}
    others: ClassVar[dict[str, Any]] = {"keys": 40, "clients": 9, "think_s": 0.005, "fault_pause_s": 0.3}

    def patches(self) -> list[Patch]:
        """Drop behind the send."""
        send = Handoff._send  # noqa: SLF001

        def hasty(self: Handoff, owner: str, flow: Any, keys: list[bytes]) -> None:
            send(self, owner, flow, keys)
            self._drop(owner, list(flow.sent.get(flow.sequence, ())), reason=None)

        return [(Handoff, "_send", hasty)]


class TieBrokenByPlace(Bugs):
    """Of two versions with one stamp a node keeps the one that it had first."""

    directives = SLOPPY
    others: ClassVar[dict[str, Any]] = {"skew_ms": 0.0, "keys": 2, "think_s": 0.005, "clients": 9}

    def patches(self) -> list[Patch]:
        """Compare stamps alone."""
        merge = Store.merge

        def first_wins(self: Store, partition: int, key: bytes, record: bytes) -> bool:
            old = self.shards[partition].get(key)
            if old and old[:8] == record[:8] and old != record:
                return False
            return merge(self, partition, key, record)

        return [(Store, "merge", first_wins)]


class RepairAssigns(Bugs):
    """A repair or a hint is written over whatever is there."""

    def patches(self) -> list[Patch]:
        """Assign instead of merging."""

        def assign(self: Replica, *arguments: Any) -> None:
            peer, sequence, pairs, body = arguments
            store = self._store
            for key, record in zip(pairs[::2], pairs[1::2], strict=True):
                partition = store.partition(key)
                store.shards[partition].pop(key, None)
                store.merge(partition, key, record)
            self._turn.log.append((1, body))
            if sequence:
                self._acknowledge(peer, sequence, pairs, [])

        return [(Replica, "_merge_repair", assign)]


class ExpiryFromArrival(Bugs):
    """A replica counts a time to live from when the record arrived."""

    def patches(self) -> list[Patch]:
        """Move the expiry of what arrives by a moment."""
        merge = Replica._merge  # noqa: SLF001

        def moved(record: bytes, wall_ms: int) -> bytes:
            when = records.expiry_of(record)
            if when is None or len(record) <= records.EXPIRED_BYTES:
                return record
            ttl_ms = when - (records.stamp_of(record) >> 16)
            return record[:26] + (wall_ms + ttl_ms).to_bytes(8, "big") + record[34:]

        def from_arrival(self: Replica, *arguments: Any) -> None:
            peer, sequence, pairs, body = arguments
            wall_ms = self._turn.wall_ms
            merge(self, peer, sequence, [item if place % 2 == 0 else moved(item, wall_ms) for place, item in enumerate(pairs)], body)

        return [(Replica, "_merge", from_arrival)]


class GuestStays(Bugs):
    """A stand-in keeps its copy when the owner has taken it over."""

    faults = ("cut", "kill", "stop")
    directives = SLOPPY
    others: ClassVar[dict[str, Any]] = {"nodes": 5}

    def patches(self) -> list[Patch]:
        """Forget only what all replicas forget."""
        forget = Store.forget

        def keep(self: Store, partition: int, key: bytes, *, by_all: bool = False) -> None:
            if by_all:
                forget(self, partition, key, by_all=True)

        return [(Store, "forget", keep)]
