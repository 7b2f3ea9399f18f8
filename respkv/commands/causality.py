"""What a connection has read of keys that keep siblings: its next SET of such a key replaces that, and nothing that came since. Pure.

Rule: what was read is used up by the first SET, ages out, and is bounded: the oldest goes first. A SET without it replaces
what the coordinating replica holds.
"""

from __future__ import annotations

from respkv.versions.vectors import without_values


class CausalContexts:
    """The contexts of one connection, the oldest first."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._seen: dict[bytes, tuple[float, bytes]] = {}

    def note(self, key: bytes, record: bytes, *, now: float, keys_max: int) -> None:
        """A record was read for the client."""
        self._seen.pop(key, None)
        self._seen[key] = (now, without_values(record))
        while len(self._seen) > keys_max:
            del self._seen[next(iter(self._seen))]

    def take(self, key: bytes, *, now: float, age_max_s: float) -> bytes | None:
        """What the client has seen of a key, for once; None if it has not read it, or too long ago."""
        read_at, context = self._seen.pop(key, (0.0, None))
        return context if context is not None and now - read_at <= age_max_s else None

    def __len__(self) -> int:
        """Keys that were read and not written since."""
        return len(self._seen)
