"""What clients notice while a replica is brought up that missed more than its hints hold, or that lost its directory.

Three nodes, N=3: each key is on all of them. A client reads and writes at a low fixed rate through one node, all the time; another
one writes what the third node misses. Nobody says that anything is to be repaired.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import redis

from tools.benchmark_repair import write
from tools.benchmark_servers import ask, free_ports, is_ready, node_command, running, wait_for

PRELOAD_KEYS = 200_000
RATE = 200
MISSED_KEYS = 10 * 60 * RATE
"""Ten minutes of writes at that rate."""
USUAL_S = 30.0
SETTLE_S = 5.0
LOOK_S = 0.25
FEW_HINTS = ("--max-hints-size", "1mb")


class Foreground:
    """A client at a fixed rate. Its latencies count from when a request was due."""

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(port=port, socket_timeout=10)
        self._latencies: list[tuple[float, float]] = []
        self.failed = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Foreground:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        number = 0
        while not self._is_over:
            due = started + number / RATE
            time.sleep(max(due - time.monotonic(), 0))
            key = b"foreground:%d" % (number % 1000)
            try:
                if number % 2:
                    self._client.get(key)
                else:
                    self._client.set(key, b"v" * 64)
            except redis.RedisError:
                self.failed += 1
            self._latencies.append((due, time.monotonic() - due))
            number += 1

    def p99_s(self, start: float, end: float) -> float:
        """Of the requests that were due between two moments."""
        return statistics.quantiles([latency for due, latency in self._latencies if start <= due <= end], n=100)[98]


def held(node: redis.Redis) -> int:
    """How many keys one node holds copies of itself."""
    return int(node.info("keyspace").get("db0", {}).get("keys", 0))


def run() -> None:
    """Measure both, and print a line for each."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        ports = free_ports(3)
        start = [node_command(port, ports, directory, *FEW_HINTS) for port in ports]
        for port, command in list(zip(ports, start, strict=True))[:2]:
            stack.enter_context(running(command, directory / f"{port}.log"))
        process = _start(stack, start[2], directory / "third.log", ports)
        write(ports[0], "key", PRELOAD_KEYS)
        foreground = stack.enter_context(Foreground(ports[0]))
        time.sleep(SETTLE_S)
        usual_from = time.monotonic()
        polled = [redis.Redis(port=port, socket_timeout=10) for port in (ports[0], ports[2])]
        while time.monotonic() < usual_from + USUAL_S:
            # As often as later, when it is waited for the end of what is measured: that costs time as well.
            for node in polled:
                held(node)
            time.sleep(LOOK_S)
        usual_s = foreground.p99_s(usual_from, time.monotonic())
        print(f"usual: p99 {usual_s * 1e3:.2f} ms at {RATE} requests/s", flush=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        write(ports[0], "missed", MISSED_KEYS)
        process = stack.enter_context(running(start[2], directory / "third.log"))
        _measure(f"away for {MISSED_KEYS:,} writes", ports, foreground, usual_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory / str(ports[2]))
        stack.enter_context(running(start[2], directory / "third.log"))
        _measure("its directory deleted", ports, foreground, usual_s)


def _start(stack: ExitStack, command: list[str], log: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    process = stack.enter_context(running(command, log))
    for port in ports:
        wait_for(lambda port=port: is_ready(port, len(ports)), f"node {port}")  # type: ignore[misc]
    return process


def _measure(title: str, ports: list[int], foreground: Foreground, usual_s: float) -> None:
    started = time.monotonic()
    wait_for(lambda: ask(ports[2], "PING") == "PONG", "a start")
    # To start a process takes a core of this machine for a moment, whatever the process does.
    serves = time.monotonic()
    first, third = (redis.Redis(port=port, socket_timeout=10) for port in (ports[0], ports[2]))
    wait_for(lambda: held(third) >= held(first) > PRELOAD_KEYS + MISSED_KEYS, title, within_s=300, every_s=LOOK_S)
    whole_s = time.monotonic() - started
    wait_for(lambda: is_ready(ports[0], len(ports)), "counting again", every_s=LOOK_S)
    counts_s = time.monotonic() - started
    p99_s = foreground.p99_s(serves, time.monotonic())
    start_p99_s = foreground.p99_s(started, serves)
    print(
        f"{title}: all keys there after {whole_s:.1f} s, counting after {counts_s:.1f} s; meanwhile p99 {p99_s * 1e3:.2f} ms, "
        f"{p99_s / usual_s:.2f} of the usual ({start_p99_s * 1e3:.2f} ms while its process starts); "
        f"{foreground.failed} requests failed so far",
        flush=True,
    )
