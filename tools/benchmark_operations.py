"""The measurements of tools/benchmark.py that are no throughput: memory, restart, and latency while a node is stopped."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

import redis

from tools.benchmark_servers import ask, node_command, respkv_nodes, running, wait_for

PRELOAD_KEYS = 1_000_000
VALUE = b"x" * 64
BATCH = 1000
RATE = 200
PHASE_S = 20.0


def fill(port: int, count: int) -> None:
    """Write `count` keys with 64-byte values."""
    client = redis.Redis(port=port, socket_timeout=60)
    for start in range(0, count, BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + BATCH, count)):
            pipeline.set(b"key:%012d" % number, VALUE)
        pipeline.execute()


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def check_all(port: int, count: int) -> int:
    """How many of the keys can be read."""
    client = redis.Redis(port=port, socket_timeout=60)
    found = 0
    for start in range(0, count, BATCH):
        values = client.mget([b"key:%012d" % number for number in range(start, min(start + BATCH, count))])
        found += sum(value == VALUE for value in values)
    return found


def measure_memory(maxmemory: str) -> None:
    """Resident memory of one node with a million keys."""
    with tempfile.TemporaryDirectory() as name, respkv_nodes(1, Path(name), "--maxmemory", maxmemory) as (ports, processes):
        started = time.monotonic()
        fill(ports[0], PRELOAD_KEYS)
        filled_s = time.monotonic() - started
        before = resident_mb(processes[0].pid)
        started = time.monotonic()
        found = check_all(ports[0], PRELOAD_KEYS)
        read_s = time.monotonic() - started
        after = resident_mb(processes[0].pid)
        print(
            f"maxmemory {maxmemory}: {PRELOAD_KEYS:,} keys written in {filled_s:.1f} s, {found:,} read back in {read_s:.1f} s, "
            f"resident {before:.0f} MB after writing, {after:.0f} MB after reading, DBSIZE {ask(ports[0], 'DBSIZE')}",
            flush=True,
        )


def measure_restart() -> None:
    """Time from start to the first answered request, for a node that holds a million keys."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with respkv_nodes(1, directory) as (ports, processes):
            fill(ports[0], PRELOAD_KEYS)
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait()
        started = time.monotonic()
        with running(node_command(ports[0], ports, directory), directory / "again.log") as process:
            wait_for(lambda: ask(ports[0], "GET", "key:000000999999") == VALUE.decode(), "a restart")
            served_s = time.monotonic() - started
            print(
                f"restart after kill -9, {PRELOAD_KEYS:,} keys: serving after {served_s:.1f} s, resident {resident_mb(process.pid):.0f} MB"
            )


def _phase(client: redis.Redis, title: str, seconds: float, *, skip_s: float = 0.0) -> None:
    latencies: list[float] = []
    failed = 0
    started = time.monotonic()
    number = 0
    while True:
        due = started + number / RATE
        now = time.monotonic()
        if now - started > seconds:
            break
        if due > now:
            time.sleep(due - now)
        key = b"stall:%d" % (number % 1000)
        try:
            if number % 2:
                client.get(key)
            else:
                client.set(key, VALUE)
        except redis.RedisError:
            failed += 1
        if time.monotonic() - started > skip_s:
            latencies.append(time.monotonic() - max(due, now))
        number += 1
    cuts = statistics.quantiles(latencies, n=1000)
    figures = f"p50 {cuts[499] * 1e3:.2f} ms, p99 {cuts[989] * 1e3:.2f} ms, p99.9 {cuts[998] * 1e3:.2f} ms"
    print(f"{title:28} {figures}, {len(latencies)} requests, {failed} failed", flush=True)


def measure_stall() -> None:
    """Latency through another node while one of five is stopped."""
    with tempfile.TemporaryDirectory() as name, respkv_nodes(5, Path(name)) as (ports, processes):
        client = redis.Redis(port=ports[0], socket_timeout=10)
        _phase(client, "before", PHASE_S, skip_s=2.0)
        processes[2].send_signal(signal.SIGSTOP)
        _phase(client, "stopped (1st second aside)", PHASE_S, skip_s=1.0)
        processes[2].send_signal(signal.SIGCONT)
        _phase(client, "after", PHASE_S)


def run(*, memory: bool, restart: bool, stall: bool) -> None:
    """Run what was asked for."""
    if memory:
        measure_memory("0")
        measure_memory("100mb")
    if restart:
        measure_restart()
    if stall:
        measure_stall()
