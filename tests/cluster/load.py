"""Clients that write on while nodes die, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

import hiredis

from tests.cluster.harness import Cluster, NodeProcess, wait_until
from tests.cluster.wire import wire_to

RECONNECT_PAUSE_S = 0.05


class Writer(threading.Thread):
    """One client. It writes its own keys in turn, each time a higher number, and notes what became of each write."""

    def __init__(self, name: str, ports: Sequence[int], *, keys_count: int, pause_s: float, value_bytes: int) -> None:
        super().__init__(name=name, daemon=True)
        self._ports = list(ports)
        self._keys = [b"%b:%d" % (name.encode(), index) for index in range(keys_count)]
        self._pause_s = pause_s
        self._filler = b" " * value_bytes
        self._enough = threading.Event()
        self.acknowledged: dict[bytes, int] = {}
        self.attempted: dict[bytes, int] = {}
        self.refused: set[tuple[bytes, int]] = set()
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.late: list[tuple[float, float]] = []
        """(when, how long) of every write that took longer than half a second."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Write until told that it is enough."""
        try:
            while not self._enough.is_set():
                try:
                    self._write_on()
                except OSError:
                    # Nobody knows what became of the write that was under way.
                    self.outcomes["lost"] += 1
                    self._ports.append(self._ports.pop(0))
                    self._enough.wait(RECONNECT_PAUSE_S)
        except BaseException as error:
            self.failure = error
            raise

    def _write_on(self) -> None:
        with wire_to(self._ports[0]) as wire:
            while not self._enough.is_set():
                number = sum(self.outcomes.values())
                key = self._keys[number % len(self._keys)]
                self.attempted[key] = number
                started = time.monotonic()
                reply = wire.ask("SET", key, b"%d" % number + self._filler)
                took_s = time.monotonic() - started
                self.slowest_s = max(self.slowest_s, took_s)
                if took_s > 0.5:
                    self.late.append((started, took_s))
                if reply == b"OK":
                    self.acknowledged[key] = number
                    self.outcomes["acknowledged"] += 1
                else:
                    assert isinstance(reply, hiredis.ReplyError), reply
                    code = str(reply).split(" ", 1)[0]
                    self.outcomes[code] += 1
                    if code != "TIMEOUT":
                        self.refused.add((key, number))
                if self._pause_s:
                    self._enough.wait(self._pause_s)

    def end(self) -> None:
        """Ask for the end."""
        self._enough.set()


class Load:
    """Some writers, from `with` to its end."""

    def __init__(
        self,
        nodes: Sequence[NodeProcess],
        *,
        writers_count: int = 3,
        keys_count: int = 200,
        pause_s: float = 0.002,
        value_bytes: int = 40,
        name: str = "load",
    ) -> None:
        """Each writer begins with another node, and goes on to the next where one is gone."""
        ports = [node.port for node in nodes]
        self.writers = [
            Writer(
                f"{name}{index}",
                ports[index % len(ports) :] + ports[: index % len(ports)],
                keys_count=keys_count,
                pause_s=pause_s,
                value_bytes=value_bytes,
            )
            for index in range(writers_count)
        ]

    def __enter__(self) -> Load:
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End, and raise what went wrong in a writer."""
        for writer in self.writers:
            writer.end()
        for writer in self.writers:
            writer.join()
            assert writer.failure is None, writer.failure

    def wait_more(self, count: int) -> None:
        """Wait until so many further writes were acknowledged."""
        goal = self.acknowledged_count() + count
        wait_until(f"{count} more writes", lambda: self.acknowledged_count() >= goal)

    def acknowledged_count(self) -> int:
        """How many writes were acknowledged so far."""
        return sum(writer.outcomes["acknowledged"] for writer in self.writers)

    def outcomes(self) -> Counter[str]:
        """How the writes ended, by kind."""
        return sum((writer.outcomes for writer in self.writers), Counter())

    def slowest_s(self) -> float:
        """The longest that a write had to wait for its answer."""
        return max(writer.slowest_s for writer in self.writers)

    def wrong_in(self, values: dict[bytes, list[object]]) -> list[str]:
        """What the replicas of each key hold that they should not: an older write, one that was refused, or different ones."""
        problems = []
        for writer in self.writers:
            for key, acknowledged in writer.acknowledged.items():
                held = values[key]
                numbers = [int(value) if isinstance(value, bytes) else -1 for value in held]
                too_old = min(numbers) < acknowledged
                invented = max(numbers) > writer.attempted[key] or any((key, number) in writer.refused for number in numbers)
                if too_old or invented or len(set(numbers)) > 1:
                    problems.append(f"{key!r}: replicas hold {numbers}, acknowledged is {acknowledged}, last tried {writer.attempted[key]}")
        return problems

    def check_replicas(self, cluster: Cluster, *, n: int = 3) -> None:
        """Every replica of every key holds what was acknowledged, or what was tried after that."""
        keys = [key for writer in self.writers for key in writer.acknowledged]
        assert keys
        problems = self.wrong_in(cluster.holdings(keys, n=n))
        assert problems == [], f"{len(problems)} of {len(keys)} keys are wrong; first: {problems[:3]}"
