"""How a cluster finds and repairs what a replica missed: with a million keys, one key that differs, then ten thousand.

A node is stopped (SIGSTOP) until the others have given it up; then they write, and keep no hints. When it goes on, nobody
reads: only the comparison of hash trees can tell that it lacks something.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tools.benchmark_servers import ask, respkv_nodes, wait_for

KEYS = 1_000_000
MANY = 10_000
WITHOUT_HINTS = ("--hinted-handoff", "no", "--sloppy-quorum", "no", "--read-repair", "off")
POLL_S = 0.02


def write(port: int, prefix: str, count: int) -> None:
    """Set many keys in one pipeline."""
    lines = b"".join(b"SET %b:%d %b\r\n" % (prefix.encode(), number, b"v" * 64) for number in range(count))
    subprocess.run(["redis-cli", "-p", str(port), "--pipe"], input=lines, capture_output=True, check=True, timeout=900)


def figures(ports: list[int]) -> dict[str, int]:
    """What the nodes have counted together."""
    names = ("exchange_bytes", "keys_compared", "keys_repaired")
    total = dict.fromkeys(names, 0)
    for port in ports:
        told = dict(line.split(":", 1) for line in ask(port, "INFO", "repair").splitlines() if ":" in line)
        for name in names:
            total[name] += int(told[f"respkv_{name}"])
    return total


def down_count(port: int) -> int:
    """How many nodes one has given up."""
    return next(int(line.split(":")[1]) for line in ask(port, "INFO", "respkv").splitlines() if line.startswith("respkv_nodes_down:"))


def run() -> None:
    """Measure both, and print a line for each."""
    with tempfile.TemporaryDirectory() as name, respkv_nodes(3, Path(name), *WITHOUT_HINTS) as (ports, processes):
        started = time.monotonic()
        write(ports[0], "key", KEYS)
        print(f"{KEYS:,} keys written in {time.monotonic() - started:.1f} s", flush=True)
        for count in (1, MANY):
            _differ(ports, processes[2], prefix=f"missed-{count}", count=count)


def _differ(ports: list[int], stopped: subprocess.Popen[bytes], *, prefix: str, count: int) -> None:
    stopped.send_signal(signal.SIGSTOP)
    wait_for(lambda: down_count(ports[0]) == down_count(ports[1]) == 1, "the stopped node is given up")
    write(ports[0], prefix, count)
    before = figures(ports[:2])
    stopped.send_signal(signal.SIGCONT)
    started = time.monotonic()
    lacking = figures(ports[2:])
    before = {name: before[name] + lacking[name] for name in before}
    wait_for(lambda: figures(ports)["keys_repaired"] - before["keys_repaired"] >= count, f"repair of {count} keys")
    took_s = time.monotonic() - started
    found = {name: value - before[name] for name, value in figures(ports).items()}
    print(
        f"{count:,} keys differ beside {KEYS:,} others: equal {took_s:.1f} s after the node goes on, "
        f"{found['keys_compared']:,} keys compared, {found['exchange_bytes'] / 1024:,.1f} KiB exchanged",
        flush=True,
    )
