"""Links between nodes, each a stream like TCP's: nothing in it is reordered or missing, but all of it can stall or end.

A link carries frames one way, from the node that dialled it. Two are needed for two nodes to talk. A cut *stalls* a link
(the sender's kernel sends again once the cut is healed) or *breaks* it: bytes vanish from then on, and some time later the
sender's side is reset. What is under way when a link ends may arrive or not, but never after something that came later.

With `echoes` a node that is dialled anew is handed some of the last frames of the link before once more, as far as they
make sense twice. No TCP does that; it shows that frames are idempotent.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from respkv.server import turns
from respkv.simulation.schedule import TINY_S, Schedule
from respkv.transport import frames

if TYPE_CHECKING:
    from respkv.simulation.process import Process

REDIAL_MIN_S = 0.05
REDIAL_MAX_S = 1.0
HANDSHAKE_DELAYS = 3
SYN_AGAIN_S = (0.3, 1.2)
"""A dial into a cut or to a stopped process is tried again after about this long."""
RESEND_S = (0.05, 1.5)
"""TCP notices within this time that a cut is healed."""
SLOW_MAX_S = 1.5
ECHO_LEN = 6
ECHOED_KINDS = frozenset(
    (frames.WRITE, frames.WRITE_ACK, frames.WRITE_ACK_NEWER, frames.STAND_IN, frames.RECORDS, frames.REPAIR, frames.REFUSED, frames.GOSSIP)
)


class Link:
    """A node's stream to another node, from a handshake to its end."""

    __slots__ = ("_last_arrival", "broken", "control_arrival", "ends_at", "held", "is_open", "number", "recent", "source", "target")

    def __init__(self, source: Process, target: Process, number: int) -> None:
        """Between two processes as they are now: neither outlives its own."""
        self.source = source
        self.target = target
        self.number = number
        self.is_open = True
        """Whether the dialler still uses it."""
        self.broken = False
        """Whether bytes vanish from now on."""
        self.ends_at = float("inf")
        """What would arrive later than this is lost: the dialler's process died."""
        self.held: list[bytes] = []
        self._last_arrival = 0.0
        self.control_arrival = 0.0
        self.recent: deque[bytes] = deque(maxlen=ECHO_LEN)

    def next_arrival(self, earliest: float, *, control: bool) -> float:
        """When a frame arrives that is sent now: behind all that were sent before it on its channel."""
        if control:
            self.control_arrival = max(earliest, self.control_arrival + TINY_S)
            return self.control_arrival
        self._last_arrival = max(earliest, self._last_arrival + TINY_S)
        return self._last_arrival


class Network:
    """All links, and what is cut."""

    def __init__(self, schedule: Schedule, rng: random.Random, *, delay_s: tuple[float, float], echoes: bool) -> None:
        """`delay_s` are the usual bounds of one way."""
        self._schedule = schedule
        self._rng = rng
        self.delay_s = delay_s
        self.echoes = echoes
        self.slowness: dict[tuple[int, int], float] = {}
        """What delays between two nodes are multiplied by, for now."""
        self._cuts: dict[tuple[int, int], list[bool]] = {}
        self._links_total = 0
        self._last_recent: dict[tuple[int, int], deque[bytes]] = {}

    # --- faults

    def cut(self, pairs: list[tuple[int, int]], *, breaks: bool) -> None:
        """Cut directed pairs of nodes; cuts of several faults add up."""
        for pair in pairs:
            self._cuts.setdefault(pair, []).append(breaks)

    def mend(self, pairs: list[tuple[int, int]], processes: list[Process], *, breaks: bool) -> None:
        """Take back one cut of each of these pairs."""
        for pair in pairs:
            cuts = self._cuts[pair]
            cuts.remove(breaks)
            if not cuts:
                del self._cuts[pair]
                self._resume(processes[pair[0]], processes[pair[1]])

    def is_cut(self, source: int, target: int) -> bool:
        """Whether nothing passes in this direction."""
        return (source, target) in self._cuts

    def reset(self, source: Process, target: Process) -> None:
        """Reset the connection of one link."""
        link = source.links.get(target.me)
        if link is not None:
            link.ends_at = self._schedule.now + self._rng.choice((0.0, self._delay(source.index, target.index)))
            self._schedule.after(self._delay(target.index, source.index), self.close, link, "reset by peer")

    def _resume(self, source: Process, target: Process) -> None:
        back = target.links.get(source.me)
        if back is not None and back.broken:
            self._schedule.after(self._rng.uniform(0.0, 2.0), self.close, back, "reset by peer")
        link = source.links.get(target.me)
        if link is None:
            return
        if link.broken:
            self._schedule.after(self._rng.uniform(0.0, 2.0), self.close, link, "reset by peer")
            return
        held, link.held = link.held, []
        start = self._schedule.now + self._rng.uniform(*RESEND_S)
        for frame in held:
            self._schedule.at(link.next_arrival(start, control=False), self._arrive, link, frame)
        link.control_arrival = max(link.control_arrival, start)

    # --- frames

    def _delay(self, source: int, target: int) -> float:
        low, high = self.delay_s
        delay = low + (high - low) * self._rng.random() ** 3
        slowness = self.slowness.get((source, target)) if self.slowness else None
        return delay if slowness is None else min(delay * slowness, SLOW_MAX_S)

    def send(self, link: Link, frame: bytes, *, control: bool = False) -> None:
        """Put a frame into a link."""
        if link.broken:
            return
        source, target = link.source.index, link.target.index
        cuts = self._cuts.get((source, target))
        if cuts is not None:
            if any(cuts):
                link.broken = True
            else:
                link.held.append(frame)
            return
        when = link.next_arrival(self._schedule.now + self._delay(source, target), control=control)
        if link.held:
            # Still behind what waits for the sender's kernel to try again.
            when = link.next_arrival(when, control=False)
        self._schedule.at(when, self._arrive, link, frame)

    def _arrive(self, link: Link, frame: bytes) -> None:
        target, source = link.target, link.source
        now = self._schedule.now
        if now > link.ends_at or target.incoming.get(source.me) is not link:
            return
        cuts = self._cuts.get((source.index, target.index))
        if cuts is not None:
            if any(cuts):
                link.broken = True
            else:
                link.held.append(frame)
            return
        if self.echoes:
            link.recent.append(frame)
        target.deliver((turns.PEER_FRAME, source.me, frame))

    def _echo(self, link: Link) -> None:
        """Hand the dialled node some of the last frames of the link before once more."""
        pair = (link.source.index, link.target.index)
        for frame in self._last_recent.pop(pair, ()):
            again = echo_of(frame)
            if again and self._rng.random() < 0.5:
                link.target.deliver((turns.PEER_FRAME, link.source.me, again))

    # --- links

    def dial(self, source: Process, target_index: int, pause_s: float = REDIAL_MIN_S) -> None:
        """Keep a process's link to another node: dial now, and again whenever it fails or ends."""
        incarnation = source.incarnation
        self._schedule.after(0.0, self._dial, source, incarnation, target_index, pause_s)

    def _dial(self, source: Process, incarnation: int, target_index: int, pause_s: float) -> None:
        schedule, rng = self._schedule, self._rng
        if not source.is_running(incarnation):
            return
        if source.stopped_until > schedule.now:
            schedule.at(source.stopped_until, self._dial, source, incarnation, target_index, pause_s)
            return
        target = source.world.processes[target_index]
        pair = (source.index, target_index)
        if self.is_cut(*pair) or self.is_cut(pair[1], pair[0]) or target.is_off or target.stopped_until > schedule.now:
            schedule.after(rng.uniform(*SYN_AGAIN_S), self._dial, source, incarnation, target_index, REDIAL_MIN_S)
        elif target.node is None:
            schedule.after(2 * self._delay(*pair), self._refuse, source, incarnation, target_index, pause_s)
        else:
            delay = HANDSHAKE_DELAYS * self._delay(*pair)
            schedule.after(delay, self._open, source, incarnation, target, target.incarnation)

    def _refuse(self, source: Process, incarnation: int, target_index: int, pause_s: float) -> None:
        if source.is_running(incarnation):
            source.deliver((turns.PEER_CLOSED, source.world.processes[target_index].me, "refused"))
            self._schedule.after(pause_s, self._dial, source, incarnation, target_index, min(2 * pause_s, REDIAL_MAX_S))

    def _open(self, source: Process, incarnation: int, target: Process, target_incarnation: int) -> None:
        if not source.is_running(incarnation):
            return
        pair = (source.index, target.index)
        if not target.is_running(target_incarnation) or self.is_cut(*pair) or target.stopped_until > self._schedule.now:
            self._schedule.after(REDIAL_MIN_S, self._dial, source, incarnation, target.index, REDIAL_MIN_S)
            return
        self._links_total += 1
        link = Link(source, target, self._links_total)
        source.links[target.me] = link
        # A newer link of the same peer replaces the older one, and what is unread of that is gone.
        older = target.incoming.get(source.me)
        target.incoming[source.me] = link
        if self.echoes:
            if older is not None:
                self._last_recent[pair] = older.recent
            self._echo(link)
        source.deliver((turns.PEER_OPENED, target.me))

    def close(self, link: Link, reason: str) -> None:
        """The dialler learns that its link has ended, and dials anew."""
        source, target = link.source, link.target
        if source.links.get(target.me) is not link:
            return
        if self.is_cut(target.index, source.index) and reason != "mute":
            # The reset cannot get through: the dialler goes on talking to nobody.
            link.broken = True
            return
        del source.links[target.me]
        link.is_open = False
        if reason == "mute":
            link.ends_at = min(link.ends_at, self._schedule.now + self._delay(source.index, target.index))
        source.deliver((turns.PEER_CLOSED, target.me, reason))
        self._schedule.after(REDIAL_MIN_S, self._dial, source, source.incarnation, target.index, REDIAL_MIN_S)

    def process_died(self, process: Process, *, silently: bool) -> None:
        """A process is gone: its streams end somewhere, and whoever sends to it is reset, unless its machine is dark."""
        now = self._schedule.now
        for link in process.links.values():
            link.ends_at = now if silently else now + self._rng.choice((0.0, 0.0002, 0.002, 1.0))
        for link in self._links_to(process):
            link.ends_at = now
            if silently:
                link.broken = True
            else:
                self._schedule.after(self._delay(process.index, link.source.index), self.close, link, "closed by the peer")

    @staticmethod
    def _links_to(process: Process) -> list[Link]:
        return [source.links[process.me] for source in process.world.processes if process.me in source.links]

    def machine_is_back(self, process: Process) -> None:
        """The machine of a dark node answers again: it resets connections that it does not know."""
        for link in self._links_to(process):
            if link.broken:
                self._schedule.after(self._rng.uniform(0.01, 1.0), self.close, link, "reset by peer")


def echo_of(frame: bytes) -> bytes:
    """What of a frame may arrive twice: requests may not, they have effects each time. Empty if nothing is left."""
    kept = [frames.pack_section(kind, sequence, body) for kind, sequence, body in frames.sections(frame) if kind in ECHOED_KINDS]
    return frame[: frames.HEADER_BYTES] + b"".join(kept) if kept else b""
