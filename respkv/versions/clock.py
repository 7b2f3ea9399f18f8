"""The hybrid logical clock (Kulkarni et al. 2014): 48 bits of milliseconds, 16 bits of logic; and the wall clock that it follows.

Rule 1: a stamp that this clock gave is never given again by it, nor a smaller one.
Rule 2: what was absorbed lies below every later stamp, so a write that follows a read wins over what was read.
Rule 3: one bad reading of the wall clock moves nothing: a hybrid clock never goes back, and what has expired does not return.
"""

from __future__ import annotations

import math

LOGIC_BITS = 16
CLOCK_AHEAD_MAX_MS = 3_600_000 * 24
"""A stamp this far in the future comes from no working node, and absorbing it would spoil every clock for good."""
BELIEVED_AFTER_S = 10.0
STEP_MS_MAX_MIN = 1000
"""A process that was not run between its readings of two clocks must not doubt them."""


class HybridClock:
    """A clock that is handed the wall time and never goes back.

    `last` is the highest stamp given or absorbed, as an integer. A burst of more than 65,536
    stamps in one millisecond carries into the milliseconds: integers do that by themselves.
    """

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        """Start above `last`, the highest stamp that this node ever persisted."""
        self.last = last

    def advance(self, wall_ms: int) -> None:
        """Learn the wall time, once per turn."""
        floor = wall_ms << LOGIC_BITS
        self.last = max(self.last, floor)

    def next(self) -> int:
        """Give a stamp above every earlier one."""
        self.last += 1
        return self.last

    def absorb(self, stamp: int) -> None:
        """Make all later stamps lie above one that another node gave."""
        self.last = max(self.last, stamp)


class WallClock:
    """The wall time that a node goes by.

    A reading that is far from what the monotonic clock promises is believed once it has stood for a while, or because others
    agree with it. Until then time goes on from the last one that was believed.
    """

    __slots__ = ("_doubted_ms", "_doubted_since", "_offset_ms", "step_ms_max")

    def __init__(self, now: float, wall_ms: int) -> None:
        """The first reading is believed: there is nothing to compare it with."""
        self._offset_ms = wall_ms - now * 1000.0
        self._doubted_ms = 0.0
        self._doubted_since = math.inf
        self.step_ms_max = STEP_MS_MAX_MIN
        """How far a reading may be off to be believed at once."""

    def read(self, now: float, wall_ms: int) -> int:
        """The time to go by, once a turn."""
        offset_ms = wall_ms - now * 1000.0
        if -self.step_ms_max <= offset_ms - self._offset_ms <= self.step_ms_max:
            self._offset_ms = offset_ms
            self._doubted_since = math.inf
            return wall_ms
        if self._doubted_since == math.inf or abs(offset_ms - self._doubted_ms) > self.step_ms_max:
            self._doubted_since = now
        self._doubted_ms = offset_ms
        if now - self._doubted_since >= BELIEVED_AFTER_S:
            self.believe()
            return wall_ms
        return round(now * 1000.0 + self._offset_ms)

    @property
    def doubted_step_ms(self) -> int | None:
        """How far the last reading was off, if it is not believed."""
        return None if self._doubted_since == math.inf else round(self._doubted_ms - self._offset_ms)

    def believe(self) -> None:
        """Go by the last reading from now on."""
        self._offset_ms = self._doubted_ms
        self._doubted_since = math.inf


def highest_credible(wall_ms: int) -> int:
    """The highest stamp that another node may have given at a wall time."""
    return (wall_ms + CLOCK_AHEAD_MAX_MS) << LOGIC_BITS


def ahead_us(stamp: int, other: int) -> int:
    """How many microseconds of wall time a stamp lies above another one at least."""
    return 1000 * ((stamp >> LOGIC_BITS) - (other >> LOGIC_BITS) - 1)


def milliseconds(stamp: int) -> int:
    """The wall time in a stamp, in unix milliseconds."""
    return stamp >> LOGIC_BITS
