"""What a connection has read of keys that keep siblings: its next SET of such a key replaces that, and nothing that came since. Pure.

Rule 1: what was read is used up by the first SET that is answered +OK, and by nothing else: one that was refused, or not answered
in time, can be repeated, and replaces no more than before.
Rule 2: it ages out, and is bounded: the oldest goes first. A SET without it replaces what the coordinating replica holds.
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

    def of(self, key: bytes, *, now: float, age_max_s: float) -> bytes | None:
        """What the client has seen of a key; None if it has not read it, or too long ago."""
        found = self._seen.get(key)
        if found is None:
            return None
        read_at, context = found
        if now - read_at > age_max_s:
            del self._seen[key]
            return None
        return context

    def use_up(self, key: bytes, context: bytes | None) -> None:
        """A value that replaces what `of` told is written. What was read since stays."""
        found = self._seen.get(key)
        if found is not None and found[1] == context:
            del self._seen[key]

    def __len__(self) -> int:
        """Keys that were read and not written since."""
        return len(self._seen)
