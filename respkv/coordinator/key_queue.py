"""Read-then-write commands on one key run one after the other. Pure.

A command waits in the queue of each of its keys, entered all at once, and runs when it stands first in
all of them: so there is an order, and no deadlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class Ticket:
    """A command's place in the queues of its keys."""

    __slots__ = ("ahead", "has_started", "keys", "start")

    def __init__(self, keys: Sequence[bytes], start: Callable[[], None]) -> None:
        """`start` is called once the command is first everywhere."""
        self.keys = tuple(dict.fromkeys(keys))
        self.start = start
        self.ahead = 0
        self.has_started = False


class KeyQueue:
    """The queues of all keys that somebody works on."""

    __slots__ = ("_is_starting", "_queues", "_ready", "length_max")

    def __init__(self, *, length_max: int = 100_000) -> None:
        """At most `length_max` commands may wait for one key."""
        self._queues: dict[bytes, deque[Ticket]] = {}
        self._ready: deque[Ticket] = deque()
        self._is_starting = False
        self.length_max = length_max

    def enter(self, ticket: Ticket) -> bool:
        """Stand in line; starts at once if nobody is ahead. Returns False if a queue is full: nothing was done then."""
        queues = self._queues
        if any(key in queues and len(queues[key]) >= self.length_max for key in ticket.keys):
            return False
        for key in ticket.keys:
            queue = queues.get(key)
            if queue is None:
                queue = queues[key] = deque()
            if queue:
                ticket.ahead += 1
            queue.append(ticket)
        if not ticket.ahead:
            self._start(ticket)
        return True

    def leave(self, ticket: Ticket) -> None:
        """The command is done, or will not begin after all: the next of each key may start."""
        for key in ticket.keys:
            queue = self._queues[key]
            was_first = queue[0] is ticket
            assert was_first or not ticket.has_started
            queue.remove(ticket)
            if not queue:
                del self._queues[key]
            elif was_first:
                follower = queue[0]
                follower.ahead -= 1
                if not follower.ahead:
                    self._start(follower)

    def _start(self, ticket: Ticket) -> None:
        """Start a command. One that ends at once lets the next one start, and so on: by turns, not by recursion."""
        ticket.has_started = True
        self._ready.append(ticket)
        if self._is_starting:
            return
        self._is_starting = True
        try:
            while self._ready:
                self._ready.popleft().start()
        finally:
            self._is_starting = False

    def __len__(self) -> int:
        """Keys that somebody works on."""
        return len(self._queues)
