"""Requests whose keys are not in memory wait here, in their order, until the tables have told. Pure.

Rule 1: requests on one key run in the order in which they arrived, whether the key is in memory or not.
So whoever touches a key for which somebody waits, waits behind it.
Rule 2: a disk that hangs is no place to wait for everybody. Once the queue is full, whoever lets requests in refuses them; what this
node owes by itself still waits here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.storage.store import Store

KEYS_MAX = 100_000
"""The queue is full with so many keys, a request without any counting as one ..."""
BYTES_MAX = 64 * 1024 * 1024
"""... or with so many bytes."""


class _Parked:
    __slots__ = ("action", "keys", "missing", "size")

    def __init__(self, keys: Sequence[bytes], action: Callable[[], None], *, missing: int, size: int) -> None:
        self.keys = keys
        self.action = action
        self.missing = missing
        self.size = size


class Parking:
    """A queue of requests in front of cold keys. It is empty while everything is in memory."""

    __slots__ = ("_loading", "_queue", "_store", "_token", "bytes_waiting", "keys", "keys_waiting", "requests")

    def __init__(self, store: Store) -> None:
        """`keys` maps each key that somebody waits for to the number of those who do; `requests` are the loads to ask for."""
        self._store = store
        self._queue: deque[_Parked] = deque()
        self._loading: dict[int, tuple[_Parked, list[tuple[int, bytes]]]] = {}
        self._token = 0
        self.keys_waiting = 0
        self.bytes_waiting = 0
        self.keys: dict[bytes, int] = {}
        self.requests: list[tuple[int, list[tuple[int, bytes]]]] = []

    @property
    def is_full(self) -> bool:
        """Whether as much waits as may."""
        return self.keys_waiting >= KEYS_MAX or self.bytes_waiting >= BYTES_MAX

    def has_room_for(self, keys: Sequence[bytes]) -> bool:
        """Whether a request on these keys may be let in: there is room for it, or it need not wait."""
        return not self.is_full or (not self._store.cold(keys) and self.keys.keys().isdisjoint(keys))

    def when_loaded(self, keys: Sequence[bytes], action: Callable[[], None], size: int = 0) -> bool:
        """Run an action once all these keys are in memory. Returns whether that was now: they are, and nobody waits for them.

        `size` is what waits with it, in bytes, beside the keys.
        """
        cold = self._store.cold(keys)
        if not cold and self.keys.keys().isdisjoint(keys):
            action()
            return True
        parked = _Parked(keys, action, missing=len(cold), size=size + sum(map(len, keys)))
        for key in keys:
            self.keys[key] = self.keys.get(key, 0) + 1
        self._append(parked)
        if cold:
            self._token += 1
            self._loading[self._token] = (parked, cold)
            self.requests.append((self._token, cold))
        return False

    def behind_all(self, action: Callable[[], None]) -> None:
        """Run an action behind everything that waits now: a count must not overtake the writes that it counts."""
        if self._queue:
            self._append(_Parked((), action, missing=0, size=0))
        else:
            action()

    def _append(self, parked: _Parked) -> None:
        self._queue.append(parked)
        self.keys_waiting += len(parked.keys) or 1
        self.bytes_waiting += parked.size

    def is_clear(self, key: bytes, partition: int) -> bool:
        """Whether a key is in memory and nobody waits for it."""
        return key in self._store.shards[partition] and key not in self.keys

    def loaded(self, token: int, found: Sequence[bytes | None]) -> None:
        """Take in what the tables hold, and run those whose turn has come."""
        parked, cold = self._loading.pop(token)
        for (partition, key), record in zip(cold, found, strict=True):
            self._store.loaded(partition, key, record)
        parked.missing = 0
        while self._queue and not self._queue[0].missing:
            first = self._queue.popleft()
            self.keys_waiting -= len(first.keys) or 1
            self.bytes_waiting -= first.size
            for key in first.keys:
                left = self.keys[key] - 1
                if left:
                    self.keys[key] = left
                else:
                    del self.keys[key]
            first.action()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)
