"""Calls that may have been on their way for long: who made one is asked whether it still waits, before anything is done. Pure.

A link that stood still hands over in the end what was put into it before, and a process that stood still finds the same in its
mail. A command among it would take effect long after its client was told that it timed out, upon what was acknowledged since.

Rule 1: no clocks are compared. What follows a silence may be as old as the silence was long, by the time of this node.
Rule 2: the answer to a question that was put after the silence comes behind all that was sent before it. What comes later is not old.
Rule 3: the calls of one node are carried out in the order in which they came, whether it was asked about them or not.
Rule 4: what waits here may grow old as well: an answer counts for as long as a call may wait for its turn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from respkv.coordinator.operations import Ask
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.commands.context import Context
    from respkv.coordinator.operations import Call, Steps
    from respkv.ids import NodeId

WAITS, WAITS_NO_MORE = b":1\r\n", b":0\r\n"
TOO_LATE = b"-TIMEOUT the command was on its way for too long; the key's primary did nothing\r\n"
HARMFUL = frozenset(("command", "put"))
"""The calls that do harm when nobody waits for them any more: what they write replaces what is there by then."""
_decode_sequence = border.reader(int)


class _Late:
    """A call that is kept back."""

    __slots__ = ("call", "is_wanted")

    def __init__(self, call: Call, *, is_wanted: bool | None) -> None:
        """`is_wanted`: whether somebody waits for it; None: that is not known yet."""
        self.call = call
        self.is_wanted = is_wanted


class _Doubt:
    """A peer whose calls may be old."""

    __slots__ = ("calls", "is_over", "since")

    def __init__(self, since: float) -> None:
        """`since`: when the silence ended."""
        self.since = since
        self.is_over = False
        """Whether what comes from now on is not old."""
        self.calls: deque[_Late] = deque()
        """Those that are kept back, in the order in which they came."""


class LateCalls:
    """The calls that are kept back until it is known whether somebody waits for them."""

    __slots__ = ("_carry_out", "_context", "_doubts")

    def __init__(self, context: Context, *, carry_out: Callable[[Call], None]) -> None:
        """`carry_out` does what a call asks for."""
        self._context = context
        self._carry_out = carry_out
        self._doubts: dict[NodeId, _Doubt] = {}

    def doubt(self, peer: NodeId) -> None:
        """A frame of a peer came after a silence: it, and what follows, may be old."""
        doubt, now = self._doubts.get(peer), self._context.turn.now
        if doubt is None:
            self._doubts[peer] = _Doubt(now)
        else:
            doubt.since, doubt.is_over = now, False

    def keeps(self, call: Call) -> bool:
        """Keep a call back if it may be old, or stands behind one that may. Returns whether it is kept."""
        doubt = self._doubts.get(call.source)
        if doubt is None or call.name not in HARMFUL:
            return False
        late = _Late(call, is_wanted=True if doubt.is_over else None)
        doubt.calls.append(late)
        if late.is_wanted is None:
            self._context.operations.start(self._inquire(doubt, late), on_done=lambda _: self._go_on(call.source, doubt))
        return True

    def _inquire(self, doubt: _Doubt, late: _Late) -> Steps:
        source = late.call.source
        answers = yield Ask([source], "waits", msgspec.msgpack.encode(late.call.sequence))
        answer = answers[source]
        late.is_wanted = answer == WAITS
        if answer is not None and late.call.came_at >= doubt.since:
            doubt.is_over = True
        return b""

    def _go_on(self, source: NodeId, doubt: _Doubt) -> None:
        """Do what is known to be wanted, up to the first call of which that is not known."""
        context, calls = self._context, doubt.calls
        while calls and calls[0].is_wanted is not None:
            late = calls.popleft()
            if late.is_wanted and context.turn.now < late.call.came_at + context.coordinator.request_timeout_s:
                self._carry_out(late.call)
            else:
                context.statistics.late_calls_total += 1
                late.call.answer(TOO_LATE)
        if doubt.is_over and not calls:
            del self._doubts[source]

    def answer_waits(self, call: Call) -> None:
        """The call "waits": whether this node still waits for a call that it made of the one who asks."""
        waits = self._context.operations.awaits(call.source, _decode_sequence(call.argument))
        call.answer(WAITS if waits else WAITS_NO_MORE)
