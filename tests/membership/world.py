"""A network of `Membership` machines under a virtual clock: delays, losses, cuts, stalls, crashes.

Everything is an event in one heap. A node's shell is imitated as `DESIGN.md` 2 has it: what has
arrived comes before timers, links are redialled, a stopped process reads its mail when it wakes.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from respkv.membership.gossip import Membership
from respkv.membership.members import MemberAddress, MemberState
from respkv.membership.options import LAN, MembershipOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.membership.liveness import Change

EPOCH_MS = 1_700_000_000_000
RESET_DELAY_S = 0.002
REDIAL_S = 0.1
DIAL_TIMEOUT_S = 0.5


def address_of(index: int) -> MemberAddress:
    return MemberAddress.founding(host="10.0.0.1", port=7000 + index, cluster_port=17000 + index, zone=f"z{index % 3}")


@dataclass
class Process:
    """One node: its machine, its mail, and what its shell knows."""

    index: int
    address: MemberAddress
    machine: Membership
    is_alive: bool = True
    stopped_until: float = 0.0
    started_at: float = 0.0
    mail: list[Callable[[], None]] = field(default_factory=list)
    links: set[int] = field(default_factory=set)
    dialling: set[int] = field(default_factory=set)
    history: list[tuple[float, Change]] = field(default_factory=list)
    wall_offset_ms: int = 0
    incarnation: int = 0


class World:
    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        options: MembershipOptions = LAN,
        loss: float = 0.0,
        delay_s: tuple[float, float] = (0.0002, 0.002),
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.options = options
        self.loss = loss
        self.delay_s = delay_s
        self.cuts: set[tuple[int, int]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.addresses = [address_of(index) for index in range(count)]
        self.index_of = {address.node: index for index, address in enumerate(self.addresses)}
        self.processes = [self._process(index) for index in range(count)]
        for process in self.processes:
            self._begin(process, delay_s=self.rng.uniform(0, 0.2))

    # What a test does.

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> float:
        """Run in small steps until the condition holds; the time that it took."""
        start = self.now
        while not condition():
            assert self.now - start <= within_s, f"not within {within_s} s"
            self.run(0.02)
        return self.now - start

    def stop(self, index: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        process = self.processes[index]
        process.stopped_until = self.now + seconds
        self._at(process.stopped_until, lambda: self._serve(process))

    def kill(self, index: int) -> None:
        """SIGKILL: the kernel resets all connections."""
        process = self.processes[index]
        process.is_alive = False
        process.links.clear()
        process.mail.clear()
        for other in self.processes:
            if other is not process and index in other.links:
                self._deliver(other, RESET_DELAY_S, lambda other=other: self._lose_link(other, index))  # type: ignore[misc]

    def restart(self, index: int) -> None:
        incarnation = self.processes[index].incarnation + 1
        process = self.processes[index] = self._process(index)
        process.incarnation = incarnation
        self._begin(process, delay_s=0.0)

    def cut(self, lefts: set[int], rights: set[int]) -> None:
        """Drop everything between the two sides, silently."""
        self.cuts |= {(a, b) for a in lefts for b in rights} | {(b, a) for a in lefts for b in rights}

    def heal(self) -> None:
        self.cuts.clear()

    def machine(self, index: int) -> Membership:
        return self.processes[index].machine

    def state(self, observer: int, target: int) -> MemberState:
        return self.machine(observer).state_of(self.addresses[target].node)

    def states(self, target: int) -> set[MemberState]:
        """What all living others hold of a node."""
        return {self.state(p.index, target) for p in self.processes if p.index != target and p.is_alive}

    def everybody_up(self) -> bool:
        return all(self.states(p.index) == {MemberState.UP} for p in self.processes if p.is_alive)

    def settle(self) -> None:
        """Start, meet, and learn each other's rhythm."""
        self.run_until(self.everybody_up, within_s=5.0)
        self.run(6.0)
        for process in self.processes:
            process.history.clear()

    def moves(self, state: MemberState) -> list[tuple[float, int, int, str]]:
        """All changes to this state so far: (time, observer, target, reason)."""
        return [
            (at, process.index, self.index_of[node], reason)
            for process in self.processes
            for at, (node, _, new, reason) in process.history
            if new is state
        ]

    # The shells.

    def _process(self, index: int) -> Process:
        address = self.addresses[index]
        machine = Membership(
            address.node,
            generation=EPOCH_MS + round(self.now * 1000),
            seeds=self.addresses,
            options=self.options,
            rng=random.Random(self.rng.random()),
            now=self.now,
        )
        return Process(index=index, address=address, machine=machine, started_at=self.now)

    def _begin(self, process: Process, *, delay_s: float) -> None:
        self._at(self.now + delay_s, lambda: self._serve(process))
        for other in range(len(self.addresses)):
            if other != process.index:
                self._at(self.now + delay_s, lambda other=other: self._dial(process, other))  # type: ignore[misc]

    def _at(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), event))

    def _deliver(self, process: Process, delay_s: float, arrival: Callable[[], None]) -> None:
        """Put something into a node's mail, and wake it unless it is stopped."""

        def arrive() -> None:
            if process.is_alive:
                process.mail.append(arrival)
                if process.stopped_until <= self.now:
                    self._serve(process)

        self._at(self.now + delay_s, arrive)

    def _serve(self, process: Process) -> None:
        """One turn: mail, then the timer."""
        if not process.is_alive or process.stopped_until > self.now:
            return
        mail, process.mail = process.mail, []
        for arrival in mail:
            arrival()
        machine = process.machine
        if machine.next_due <= self.now:
            wall_ms = EPOCH_MS + round(self.now * 1000) + process.wall_offset_ms
            self._send_all(process, machine.tick(self.now, wall_ms))
            for node in machine.mute_links(self.now):
                self._lose_link(process, self.index_of[node])
            self._at(max(machine.next_due, self.now + 0.001), lambda: self._serve(process))
        process.history.extend((self.now, change) for change in machine.changes())

    def _send_all(self, process: Process, messages: list[tuple[str, bytes]]) -> None:
        for node, payload in messages:
            target = self.index_of[node]
            if target not in process.links or (process.index, target) in self.cuts or self.rng.random() < self.loss:
                continue
            receiver = self.processes[target]
            delay = self.rng.uniform(*self.delay_s)
            self._deliver(receiver, delay, lambda p=payload, r=receiver: self._receive(r, process, p))  # type: ignore[misc]

    def _receive(self, receiver: Process, sender: Process, payload: bytes) -> None:
        receiver.machine.heard(sender.address.node, self.now)
        self._send_all(receiver, receiver.machine.receive(sender.address.node, payload, self.now))

    def _lose_link(self, process: Process, target: int) -> None:
        if target in process.links:
            process.links.discard(target)
            process.machine.link_closed(self.addresses[target].node, self.now, refused=False)
            self._dial(process, target)

    def _dial(self, process: Process, target: int) -> None:
        """Connect and shake hands; a stopped process accepts but does not answer."""
        if not process.is_alive or process is not self.processes[process.index] or target in process.links:
            return
        if process.stopped_until > self.now:
            self._at(process.stopped_until, lambda: self._dial(process, target))
            return
        other = self.processes[target]
        again = lambda: self._dial(process, target)  # noqa: E731
        if (process.index, target) in self.cuts or (other.is_alive and other.stopped_until > self.now):
            self._at(self.now + DIAL_TIMEOUT_S, again)
        elif not other.is_alive:
            self._deliver(process, RESET_DELAY_S, lambda: self._refuse(process, target))
            self._at(self.now + REDIAL_S, again)
        else:
            self._deliver(process, 3 * self.rng.uniform(*self.delay_s), lambda: self._open_link(process, target, other))

    def _refuse(self, process: Process, target: int) -> None:
        if target not in process.links:
            process.machine.link_closed(self.addresses[target].node, self.now, refused=True)

    def _open_link(self, process: Process, target: int, other: Process) -> None:
        if target in process.links:
            return
        if not other.is_alive or self.processes[target] is not other:
            self._dial(process, target)
            return
        process.links.add(target)
        process.machine.link_opened(self.addresses[target].node, self.now)
