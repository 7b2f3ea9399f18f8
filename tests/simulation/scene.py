"""A small stage for what one test wants to show: a cluster, clients that speak when they are told, and faults on cue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from respkv.simulation.clients import Reader
from respkv.simulation.scenario import Scenario
from respkv.simulation.world import World

if TYPE_CHECKING:
    from respkv.server.node import Node
    from respkv.simulation.process import Process


class Scene:
    """A world that has come up."""

    def __init__(self, **scenario: Any) -> None:
        self.world = World(Scenario(seed=1, **scenario), keep_trace=True)
        self.world.start()
        self.wait_for_rest()
        self.run(2.5)
        self._readers: dict[tuple[int, int], Reader] = {}

    def run(self, seconds: float) -> None:
        self.world.schedule.run_until(self.world.schedule.now + seconds)

    def wait_for_rest(self) -> None:
        end = self.world.schedule.now + 60.0
        while unrest := self.world.unrest():
            assert self.world.schedule.now < end, unrest
            self.run(0.05)
        assert self.world.problems == []

    def process(self, index: int) -> Process:
        return self.world.processes[index]

    def node(self, index: int) -> Node:
        node = self.process(index).node
        assert node is not None
        return node

    def ask(self, index: int, *lines: str) -> list[object]:
        """Send commands to a node in one packet, wait for the replies."""
        reader = self._readers.get((index, self.process(index).incarnation))
        if reader is None:
            reader = self._readers[index, self.process(index).incarnation] = Reader(self.world, self.process(index))
        return reader.ask(*[line.encode().split() for line in lines])

    def send(self, index: int, *lines: str) -> Reader:
        """Send commands on a connection of their own, and wait for nothing."""
        reader = Reader(self.world, self.process(index))
        reader.connection.send([line.encode().split() for line in lines])
        return reader

    @staticmethod
    def replies(reader: Reader) -> list[object]:
        return [request.reply for request in reader.history.requests]

    def cut(self, *pairs: tuple[int, int], breaks: bool = False) -> None:
        self.world.network.cut(list(pairs), breaks=breaks)

    def mend(self, *pairs: tuple[int, int], breaks: bool = False) -> None:
        self.world.network.mend(list(pairs), self.world.processes, breaks=breaks)

    def skew(self, index: int, milliseconds: float) -> None:
        self.process(index).clock.offset_ms += milliseconds

    def key_of(self, *, primary: int, without: int | None = None) -> str:
        """A key whose first primary is a node, and of which another one holds no copy."""
        for number in range(10_000):
            owners = [process.index for process in self.world.primaries(b"k%d" % number)]
            if owners[0] == primary and without not in owners:
                return f"k{number}"
        raise AssertionError
