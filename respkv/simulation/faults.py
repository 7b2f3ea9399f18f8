"""What goes wrong, and when it is healed.

kill        a process is killed (SIGKILL) and started again
power       a machine loses its power, and gets it back
wipe        a process is killed, and its directory is deleted
term        a process is told to stop, and started again
away        a process is killed, and started again after longer than `max-downtime`
full        a disk has no room
stop        a process does not run for a while (SIGSTOP)
flap        a process is stopped again and again, for moments and for seconds
cut         nothing passes between some nodes: a partition, a node on its own, or one direction of one pair
reset       the connections of one pair are reset
slow-link   bytes between two nodes take much longer
slow-disk   a node's syncs and reads take much longer
clock       a wall clock jumps, forward or back
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.simulation.process import Process
    from respkv.simulation.world import World

Pairs = list[tuple[int, int]]
AWAY_S = (9.0, 15.0)
FREE_BYTES = 1 << 40


class Faults:
    """Draws faults while the load runs, and heals them all in the end."""

    def __init__(self, world: World, rng: random.Random) -> None:
        """Nothing is wrong yet."""
        self._world = world
        self._rng = rng
        self._kinds: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "power": self._power,
            "wipe": self._wipe,
            "term": self._term,
            "away": self._away,
            "full": self._full,
            "stop": self._stop,
            "flap": self._flap,
            "cut": self._cut,
            "reset": self._reset,
            "slow-link": self._slow_link,
            "slow-disk": self._slow_disk,
            "clock": self._clock,
        }
        self._healings: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._is_over = False

    def start(self) -> None:
        """Let faults happen from now on."""
        if self._world.scenario.faults:
            self._pause()

    def heal(self) -> None:
        """Undo what is still wrong; nothing more goes wrong."""
        self._is_over = True
        for healing in list(self._healings.values()):
            healing()
        self._healings.clear()
        for process in self._world.processes:
            process.go_on()
        self._world.mend_clocks()

    def _pause(self) -> None:
        pause_s = self._rng.expovariate(1.0 / self._world.scenario.fault_pause_s)
        self._world.schedule.after(pause_s, self._happen)

    def _happen(self) -> None:
        if not self._is_over:
            self._kinds[self._rng.choice(self._world.scenario.faults)]()
            self._pause()

    def _heal_after(self, seconds: float, healing: Callable[[], None]) -> None:
        self._number += 1
        number = self._number
        self._healings[number] = healing

        def heal() -> None:
            if self._healings.pop(number, None) is not None:
                healing()

        self._world.schedule.after(seconds, heal)

    def _living(self) -> list[Process]:
        return [process for process in self._world.processes if process.node is not None]

    # --- kinds

    def _kill(self, *, power_lost: bool = False) -> None:
        living = self._living()
        if not living:
            return
        # Sometimes all at once: a rack, or an operator's mistake.
        victims = living if self._rng.random() < 0.1 else [self._rng.choice(living)]
        for process in victims:
            if power_lost:
                self._world.power_cuts.append((self._world.schedule.now, process.index))
            process.kill(power_lost=power_lost)
            self._heal_after(self._rng.choice((0.05, 0.5, 2.0, 6.0)) * self._rng.uniform(0.5, 1.5), process.restart)

    def _power(self) -> None:
        self._kill(power_lost=True)

    def _wipe(self) -> None:
        # What one node has lost is on others, and copying it back takes time. Stand-ins' copies and hints are not copied back,
        # so a sloppy quorum bears this once.
        world, living = self._world, self._living()
        may_again = world.scenario.is_strict and "power" not in world.scenario.faults and world.is_whole()
        if living and (may_again or not world.wipes):
            process = self._rng.choice(living)
            self._world.wipes.append((self._world.schedule.now, process.index))
            process.kill(wiped=True)
            self._heal_after(self._rng.uniform(0.05, 3.0), process.restart)

    def _away(self) -> None:
        """A node is away for so long that the others let go of deletions meanwhile."""
        living = self._living()
        if len(living) == len(self._world.processes):
            process = self._rng.choice(living)
            process.kill()
            self._heal_after(self._rng.uniform(*AWAY_S), process.restart)

    def _term(self) -> None:
        living = self._living()
        if living:
            process = self._rng.choice(living)
            process.terminate(restart_after_s=self._rng.uniform(0.05, 2.0))

    def _full(self) -> None:
        living = self._living()
        if living:
            process = self._rng.choice(living)
            process.press(free_bytes=0)
            self._world.note(f"the disk of n{process.index} is full")
            self._heal_after(self._rng.uniform(0.2, 4.0), lambda: process.press(free_bytes=FREE_BYTES))

    def _stop(self) -> None:
        living = self._living()
        if living:
            self._rng.choice(living).stop(self._rng.choice((0.1, 0.5, 2.0, 5.0)) * self._rng.uniform(0.5, 1.5))

    def _flap(self) -> None:
        living = self._living()
        if living:
            process, rng = self._rng.choice(living), self._rng
            self._flap_until(process, process.incarnation, self._world.schedule.now + rng.uniform(1.0, 12.0))

    def _flap_until(self, process: Process, incarnation: int, end: float) -> None:
        """Stop a process, and again a moment after it goes on."""
        schedule, rng = self._world.schedule, self._rng
        if self._is_over or schedule.now >= end or not process.is_running(incarnation):
            return
        seconds = rng.choice((0.05, 0.3, 1.0, 3.0)) * rng.uniform(0.5, 1.7)
        process.stop(seconds)
        schedule.after(seconds + rng.choice((0.02, 0.2, 1.0)) * rng.uniform(0.5, 1.5), self._flap_until, process, incarnation, end)

    def _cut(self) -> None:
        world, rng = self._world, self._rng
        pairs = self._sides()
        breaks = rng.random() < 0.5
        seconds = rng.choice((0.2, 1.0, 5.0)) * rng.uniform(0.5, 1.5)
        world.note(f"cut {'(breaking links)' if breaks else '(stalling)'} for {seconds:.2f} s: {pairs}")
        world.network.cut(pairs, breaks=breaks)

        def mend() -> None:
            world.note(f"mended: {pairs}")
            world.network.mend(pairs, world.processes, breaks=breaks)

        self._heal_after(seconds, mend)

    def _sides(self) -> Pairs:
        """Which directed pairs to cut."""
        rng = self._rng
        names = list(range(len(self._world.processes)))
        rng.shuffle(names)
        kind = rng.random()
        if kind < 0.2:
            return [(names[0], names[1])]
        left = names[:1] if kind < 0.5 else names[: rng.randint(1, len(names) - 1)]
        right = names[len(left) :]
        if kind > 0.9:
            # Both sides still see one node: a bridge.
            right = right[1:] or right
        there = [(a, b) for a in left for b in right]
        return there + [(b, a) for a, b in there]

    def _reset(self) -> None:
        living = self._living()
        if len(living) < 2:
            return
        source, target = self._rng.sample(living, 2)
        self._world.note(f"the link n{source.index} -> n{target.index} is reset")
        self._world.network.reset(source, target)

    def _slow_link(self) -> None:
        world, rng = self._world, self._rng
        a, b = rng.sample(range(len(world.processes)), 2)
        slowness = world.network.slowness
        pairs = [(a, b)] if rng.random() < 0.5 else [(a, b), (b, a)]
        world.note(f"slow: {pairs}")
        for pair in pairs:
            slowness[pair] = rng.choice((20.0, 100.0, 1000.0))

        def mend() -> None:
            for pair in pairs:
                slowness.pop(pair, None)

        self._heal_after(rng.uniform(0.5, 5.0), mend)

    def _slow_disk(self) -> None:
        process = self._rng.choice(self._world.processes)
        self._world.note(f"the disk of n{process.index} is slow")
        process.disk.slowness = self._rng.choice((10.0, 50.0))
        self._heal_after(self._rng.uniform(0.5, 5.0), lambda: setattr(process.disk, "slowness", 1.0))

    def _clock(self) -> None:
        process = self._rng.choice(self._world.processes)
        skew_ms = max(self._world.scenario.skew_ms, 50.0)
        process.clock.put(self._rng.uniform(-skew_ms, skew_ms), now=self._world.schedule.now)
        self._world.note(f"the clock of n{process.index} jumps to {process.clock.offset_ms:+.0f} ms")
