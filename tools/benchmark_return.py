"""What clients notice while a replica is brought up that missed more than its hints hold, or that lost its directory.

Three nodes, N=3: each key is on all of them. A client, in a process of its own, reads and writes at a low fixed rate through one
node, all the time; another one writes what the third node misses. Nobody says that anything is to be repaired.

Rule: a 99th percentile of some thousand requests differs by half from one half minute to the next, although nothing else runs. So
this is done several times, each time with a new cluster; the usual percentile is measured before each return, and it is the
percentiles of all rounds together that are compared. Each round's own are shown as well.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from tools.benchmark_repair import write
from tools.benchmark_servers import ask, free_ports, is_ready, node_command, running, wait_for

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ROUNDS = 3
PRELOAD_KEYS = 200_000
RATE = 200
MISSED_KEYS = 10 * 60 * RATE
"""Ten minutes of writes at that rate."""
USUAL_S = 30.0
SETTLE_S = 5.0
LOOK_S = 0.25
FEW_HINTS = ("--max-hints-size", "1mb")
AWAY, EMPTIED = f"away for {MISSED_KEYS:,} writes", "its directory deleted"


class Foreground:
    """A client at a fixed rate. Its latencies count from when a request was due."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_request_at_a_rate, args=(port, theirs), daemon=True)

    def __enter__(self) -> Foreground:
        self._process.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()

    def stop(self) -> tuple[list[tuple[float, float]], int]:
        """End it. Returns (when a request was due, seconds until its reply) of each, and how many failed."""
        self._end.send(None)
        latencies, failed = self._end.recv()
        return latencies, failed


def _request_at_a_rate(port: int, end: Connection) -> None:
    client = redis.Redis(port=port, socket_timeout=10)
    latencies: list[tuple[float, float]] = []
    failed = number = 0
    started = time.monotonic()
    while not end.poll():
        due = started + number / RATE
        time.sleep(max(due - time.monotonic(), 0))
        key = b"foreground:%d" % (number % 1000)
        try:
            if number % 2:
                client.get(key)
            else:
                client.set(key, b"v" * 64)
        except redis.RedisError:
            failed += 1
        latencies.append((due, time.monotonic() - due))
        number += 1
    end.send((latencies, failed))


@dataclass
class Round:
    """What was seen of one cluster."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Title -> from when to when (monotonic seconds)."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0
    whole_s: dict[str, float] = field(default_factory=dict)
    """Title -> how long until the node had all keys, and counted."""

    def of(self, title: str) -> list[float]:
        """The latencies of the requests that were due in these spans."""
        spans = self.spans[title]
        return [latency for due, latency in self.latencies if any(start <= due <= end for start, end in spans)]


def p99_ms(latencies: list[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return statistics.quantiles(latencies, n=100)[98] * 1000


def run(rounds_count: int = ROUNDS) -> None:
    """Measure both, several times, and print what all rounds say together."""
    rounds = []
    for number in range(rounds_count):
        rounds.append(_round())
        usual_ms = p99_ms(rounds[-1].of("usual"))
        told = [f"round {number + 1}: usual p99 {usual_ms:.2f} ms"]
        for title in (AWAY, EMPTIED):
            p99 = p99_ms(rounds[-1].of(title))
            told.append(f"{title}: {rounds[-1].whole_s[title]:.1f} s, p99 {p99:.2f} ms ({p99 / usual_ms:.2f})")
        print("; ".join(told), flush=True)
    usual_ms = p99_ms([latency for each in rounds for latency in each.of("usual")])
    failed = sum(each.failed for each in rounds)
    print(f"all rounds: usual p99 {usual_ms:.2f} ms at {RATE} requests/s; {failed} requests failed", flush=True)
    for title in (AWAY, EMPTIED):
        p99 = p99_ms([latency for each in rounds for latency in each.of(title)])
        seconds = sorted(each.whole_s[title] for each in rounds)
        print(
            f"{title}: all keys there, and counting, after {seconds[0]:.1f} to {seconds[-1]:.1f} s; "
            f"meanwhile p99 {p99:.2f} ms, {p99 / usual_ms:.2f} of the usual",
            flush=True,
        )


def _round() -> Round:
    found = Round()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        ports = free_ports(3)
        start = [node_command(port, ports, directory, *FEW_HINTS) for port in ports]
        for port, command in list(zip(ports, start, strict=True))[:2]:
            stack.enter_context(running(command, directory / f"{port}.log"))
        process = stack.enter_context(running(start[2], directory / "third.log"))
        for port in ports:
            wait_for(lambda port=port: is_ready(port, len(ports)), f"node {port}")  # type: ignore[misc]
        write(ports[0], "key", PRELOAD_KEYS)
        foreground = stack.enter_context(Foreground(ports[0]))
        _usual(found, ports)
        _end(process)
        write(ports[0], "missed", MISSED_KEYS)
        process = stack.enter_context(running(start[2], directory / "third.log"))
        _returns(found, AWAY, ports)
        _usual(found, ports)
        _end(process)
        shutil.rmtree(directory / str(ports[2]))
        stack.enter_context(running(start[2], directory / "third.log"))
        _returns(found, EMPTIED, ports)
        found.latencies, found.failed = foreground.stop()
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def _usual(found: Round, ports: list[int]) -> None:
    """Let time pass; asking as often as when it is waited for a return, because that costs time as well."""
    time.sleep(SETTLE_S)
    started = time.monotonic()
    asked = [redis.Redis(port=port, socket_timeout=10) for port in (ports[0], ports[2])]
    while time.monotonic() < started + USUAL_S:
        for node in asked:
            _held(node)
        time.sleep(LOOK_S)
    found.spans.setdefault("usual", []).append((started, time.monotonic()))


def _returns(found: Round, title: str, ports: list[int]) -> None:
    wait_for(lambda: ask(ports[2], "PING") == "PONG", "a start")
    # To start a process takes a core of this machine for a moment, whatever the process does: that is not counted.
    started = time.monotonic()
    first, third = (redis.Redis(port=port, socket_timeout=10) for port in (ports[0], ports[2]))
    wait_for(lambda: _held(third) >= _held(first) > PRELOAD_KEYS + MISSED_KEYS, title, within_s=300, every_s=LOOK_S)
    wait_for(lambda: is_ready(ports[0], len(ports)), "counting again", every_s=LOOK_S)
    found.whole_s[title] = time.monotonic() - started
    found.spans[title] = [(started, time.monotonic())]


def _held(node: redis.Redis) -> int:
    """How many keys one node holds copies of itself."""
    return int(node.info("keyspace").get("db0", {}).get("keys", 0))
