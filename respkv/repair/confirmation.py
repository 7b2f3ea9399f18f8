"""How far back the log is confirmed: what a node that restarts has to send to the other replicas again. Pure.

Each second a mark goes into the log; once everything that was in flight at that mark has been acknowledged or has become
a hint, the mark is confirmed. After a crash the part of the log behind the last confirmed mark may be known to this node alone.
"""

from __future__ import annotations

from collections import deque

LOG_CONFIRMED = 4
LOG_MARK = 6
INTERVAL_S = 1.0


class Confirmation:
    """Marks in the log, and which of them are confirmed."""

    __slots__ = ("_due", "_marks", "_next_number", "_written")

    def __init__(self, now: float) -> None:
        """No mark is open."""
        self._marks: deque[tuple[int, int]] = deque()
        self._next_number = 1
        self._due = now + INTERVAL_S
        self._written = False

    def wrote(self) -> None:
        """Something was appended to the log."""
        self._written = True

    def tick(self, *, now: float, turn_number: int, oldest_in_flight: int | None) -> list[tuple[int, bytes]]:
        """Records for the log of this turn. `oldest_in_flight` is the turn in which the oldest write in flight began."""
        if now < self._due:
            return []
        self._due = now + INTERVAL_S
        records: list[tuple[int, bytes]] = []
        confirmed = 0
        while self._marks and (oldest_in_flight is None or self._marks[0][1] < oldest_in_flight):
            confirmed = self._marks.popleft()[0]
        if confirmed:
            records.append((LOG_CONFIRMED, confirmed.to_bytes(8)))
        if self._written:
            self._written = False
            records.append((LOG_MARK, self._next_number.to_bytes(8)))
            self._marks.append((self._next_number, turn_number))
            self._next_number += 1
        return records
