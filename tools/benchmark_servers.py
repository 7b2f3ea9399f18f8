"""The servers that tools/benchmark.py compares: started on free ports, waited for, ended by their process ids."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
READY_S = 30.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, each with its cluster port 10000 above."""
    ports: list[int] = []
    candidate = 20000 + os.getpid() % 5000
    while len(ports) < count:
        candidate += 1
        with contextlib.ExitStack() as stack:
            try:
                for port in (candidate, candidate + 10000):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(candidate)
    return ports


def ask(port: int, *words: str) -> str:
    """One command by redis-cli; its output."""
    result = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, timeout=60, check=False)
    return result.stdout.strip()


def wait_for(condition: Callable[[], bool], what: str, *, within_s: float = READY_S, every_s: float = 0.02) -> None:
    """Wait until a condition holds, or fail. To look at it may take processor time from what is measured."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"benchmark: {what} did not happen within {within_s:g} s")
        time.sleep(every_s)


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ended by its process id."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=TOP)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """redis-server with its log as respkv's: everysec, no snapshots."""
    (port,) = free_ports(1)
    directory.mkdir(parents=True, exist_ok=True)
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "yes", "appendfsync": "everysec", "dir": directory}
    command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    with running(command, directory / "log"):
        wait_for(lambda: ask(port, "PING") == "PONG", "redis-server")
        yield port


def node_command(port: int, ports: list[int], directory: Path, *more: str) -> list[str]:
    """The command line of one respkv node."""
    nodes = [f"127.0.0.1:{each}@{each + 10000}" for each in ports]
    options = ["--port", str(port), "--cluster-port", str(port + 10000), "--dir", str(directory / str(port)), "--cluster-nodes", *nodes]
    return [sys.executable, "-m", "respkv", "server", *options, *more]


def is_ready(port: int, count: int) -> bool:
    """Whether a node sees all others, and counts."""
    told = ask(port, "INFO", "respkv").split()
    return f"respkv_nodes_counting:{count}" in told


@contextlib.contextmanager
def respkv_nodes(count: int, directory: Path, *more: str) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """A cluster of respkv nodes with N = min(3, count)."""
    ports = free_ports(count)
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running(node_command(port, ports, directory, *more), directory / f"{port}.log")) for port in ports]
        for port in ports:
            wait_for(functools.partial(is_ready, port, count), f"node {port}")
        yield ports, processes
