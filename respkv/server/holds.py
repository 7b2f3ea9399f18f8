"""EXEC after WATCH runs alone: the first live primary of its smallest watched key holds a place for it in a queue. Pure.

Rule 1: what looks at the watched keys, finds them unchanged and runs the commands has the place meanwhile. So of transactions
that watch the same keys one goes after the other, and each sees what the one before has done.
Rule 2: the queue is not the key's own: the commands of the transaction have to take their turn in that one.
Rule 3: who gives its place back before it is granted is granted none: a link broke, or the answer took too long.
Rule 4: who is granted a place and does not give it back loses it after a while: its node may have died.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.transactions import HOLD_TIMEOUTS, Hold
from respkv.coordinator.operations import Until
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.coordinator.operations import Call, Steps
    from respkv.server.node import Node

PLACE = b"\0watched\0"
"""Before a key it is the name of the queue of those who watch it."""
_decode_hold = border.reader(Hold)


class Holds:
    """The places that this node holds for transactions."""

    __slots__ = ("_node", "_wanted")

    def __init__(self, node: Node) -> None:
        """None is held."""
        self._node = node
        self._wanted: set[bytes] = set()
        """Tokens of those who wait for a place or have one, and have not given it back."""

    def table(self) -> dict[str, Callable[[Call], None]]:
        """The handlers of calls, by name."""
        return {"hold": self._hold, "release": self._release}

    def _hold(self, call: Call) -> None:
        """The call "hold": answered once the place is granted, or will not be."""
        hold = _decode_hold(call.argument)
        granted: list[bytes] = []

        def ended(reply: bytes) -> None:
            self._wanted.discard(hold.token)
            if not granted:
                call.answer(reply)

        def grant() -> Steps:
            granted.append(hold.token)
            call.answer(b"+OK\r\n")
            deadline = self._node.context.turn.now + HOLD_TIMEOUTS * self._node.coordinator.request_timeout_s
            yield Until(lambda: hold.token not in self._wanted, deadline)
            return b""

        self._node.operations.start(grant(), on_done=ended, exclusive=[PLACE + hold.key])
        # Not before: where too many wait already, `start` raises, and nobody would take the token out again.
        self._wanted.add(hold.token)

    def _release(self, call: Call) -> None:
        """The call "release": the holder of a token is done, or does not wait for its place any more."""
        self._wanted.discard(call.argument)
        call.answer(b"+OK\r\n")
