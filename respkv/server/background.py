"""Where work behind the scenes gives way: between its steps, and after each piece of it. Pure.

Rule: a step is half a millisecond or so, and has a turn of its own in which nothing arrived. While any node has clients there is
none for as long as the last one took; but a node that is never idle makes one every few milliseconds all the same. How long to rest
after a piece is said by the pace that all nodes keep together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from respkv.coordinator.operations import REST_PATIENCE_S, Rest

if TYPE_CHECKING:
    from collections.abc import Generator

    from respkv.server.node import Node

PIECE_BYTES: Final = 256 * 1024
"""What a piece of work has at most, unless a single record is longer."""


def step(node: Node) -> Generator[Rest, None, None]:
    """Wait for a turn in which there is time for a step."""
    pulse, began = node.pulse, node.context.turn.now
    pulse.works_behind = True
    yield Rest(began)
    now = node.context.turn.now
    if pulse.pace_now().is_sparing and now - began < REST_PATIENCE_S:
        yield Rest(now + (now - began))


def rest(node: Node, size: int, *, since: float, is_prompt: bool = True, sharers: int = 1) -> Generator[Rest, None, None]:
    """Rest after a piece of work of so many bytes that began at `since` (monotonic seconds). So many who work share the pace.

    Another node that took long has clients of its own, unless what it was asked for takes many turns by itself: `is_prompt` is False.
    """
    settings, pulse, now = node.settings, node.pulse, node.context.turn.now
    pulse.works_behind = True
    pause_s = pulse.pace_now().pause_s(size * sharers, took_s=now - since)
    # A record that is longer than a piece takes its time on the way.
    if is_prompt and now - since > settings.handoff_latency_target / 1000 * max(size / PIECE_BYTES, 1.0):
        pause_s = size * sharers / settings.handoff_rate_min
    yield Rest(now + pause_s)
