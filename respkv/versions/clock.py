"""The hybrid logical clock (Kulkarni et al. 2014): 48 bits of milliseconds, 16 bits of logic.

Rule 1: a stamp that this clock gave is never given again by it, nor a smaller one.
Rule 2: what was absorbed lies below every later stamp, so a write that follows a read wins over what was read.
"""

from __future__ import annotations

LOGIC_BITS = 16
CLOCK_AHEAD_MAX_MS = 3_600_000 * 24
"""A stamp this far in the future comes from no working node, and absorbing it would spoil every clock for good."""


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


def highest_credible(wall_ms: int) -> int:
    """The highest stamp that another node may have given at a wall time."""
    return (wall_ms + CLOCK_AHEAD_MAX_MS) << LOGIC_BITS


def milliseconds(stamp: int) -> int:
    """The wall time in a stamp, in unix milliseconds."""
    return stamp >> LOGIC_BITS
