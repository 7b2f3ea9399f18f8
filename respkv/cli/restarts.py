"""When a node that died is started again. Pure: the time is an argument.

The delay doubles from one second to half a minute, and begins anew after a node has run for a minute:
a node that cannot start is not hammered, one that was killed by hand is back at once.
"""

from __future__ import annotations

DELAY_MIN_S = 1.0
DELAY_MAX_S = 30.0
STEADY_AFTER_S = 60.0


class Restarts:
    """The back-off of one node."""

    def __init__(self) -> None:
        self._delay_s = DELAY_MIN_S
        self._started_at = 0.0
        self._due_at: float | None = None

    def started(self, now: float) -> None:
        """The node runs."""
        self._started_at = now
        self._due_at = None

    def died(self, now: float) -> float:
        """The node ran and died; how long to wait."""
        if now - self._started_at >= STEADY_AFTER_S:
            self._delay_s = DELAY_MIN_S
        delay_s = self._delay_s
        self._due_at = now + delay_s
        self._delay_s = min(delay_s * 2, DELAY_MAX_S)
        return delay_s

    def is_pending(self) -> bool:
        """Whether it is to be started again, now or later."""
        return self._due_at is not None

    def is_due(self, now: float) -> bool:
        """Whether to start it now."""
        return self._due_at is not None and now >= self._due_at
