"""What a connection has read of keys that keep siblings: its next SET of such a key replaces that, and nothing that came since. Pure.

Rule 1: what was read is used up by the first SET that is answered +OK, and by nothing else: one that was refused, or not answered
in time, can be repeated, and replaces no more than before.
Rule 2: it ages out, and is bounded: the oldest goes first. A SET without it replaces what the coordinating replica holds.
"""

from __future__ import annotations

from respkv.versions.vectors import without_values

CONTEXT_BYTES_MAX = 4 << 20
"""So much is kept for a connection, keys and contexts: keys may be long."""


class CausalContexts:
    """The contexts of one connection, the oldest first."""

    __slots__ = ("_bytes", "_seen")

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._seen: dict[bytes, tuple[float, bytes]] = {}
        self._bytes = 0

    def note(self, key: bytes, record: bytes, *, now: float, keys_max: int) -> None:
        """A record was read for the client."""
        if key in self._seen:
            self._forget(key)
        context = without_values(record)
        self._seen[key] = (now, context)
        self._bytes += len(key) + len(context)
        while len(self._seen) > keys_max or self._bytes > CONTEXT_BYTES_MAX:
            self._forget(next(iter(self._seen)))

    def _forget(self, key: bytes) -> None:
        _, context = self._seen.pop(key)
        self._bytes -= len(key) + len(context)

    def of(self, key: bytes, *, now: float, age_max_s: float) -> bytes | None:
        """What the client has seen of a key; None if it has not read it, or too long ago."""
        found = self._seen.get(key)
        if found is None:
            return None
        read_at, context = found
        if now - read_at > age_max_s:
            self._forget(key)
            return None
        return context

    def use_up(self, key: bytes, context: bytes | None) -> None:
        """A value that replaces what `of` told is written. What was read since stays."""
        found = self._seen.get(key)
        if found is not None and found[1] == context:
            self._forget(key)

    def __len__(self) -> int:
        """Keys that were read and not written since."""
        return len(self._seen)
