"""Measure respkv beside redis-server on this machine, by turns, with redis-benchmark.

    python tools/benchmark.py                 one node (N=1) and three (N=3, R=W=2): SET and GET, -P 1 and -P 16
    python tools/benchmark.py --memory        resident memory of a node with a million keys, and with maxmemory 100mb
    python tools/benchmark.py --restart       how long a node with a million keys takes to serve again
    python tools/benchmark.py --stall         latency at a low fixed rate before, during and after a node is stopped
    python tools/benchmark.py --return        latency while a node is brought up that was away beyond its hints, or lost its disk
    python tools/benchmark.py --repair        how soon replicas with a million keys are equal again, of which some missed writes

Both servers log at `appendfsync everysec`. A round measures redis-server and then respkv, each fresh client by fresh client;
the ratio is taken round by round, so a machine whose speed drifts does not decide. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from tools import benchmark_operations, benchmark_repair, benchmark_return  # noqa: E402 - found only once the path is set
from tools.benchmark_servers import redis_server, respkv_nodes  # noqa: E402

REQUESTS = {1: 100_000, 16: 600_000}


def measure(port: int, test: str, pipeline: int) -> float:
    """Requests per second of one redis-benchmark run."""
    command = ["redis-benchmark", "-p", str(port), "-c", "50", "-d", "64", "-r", "100000", "-t", test]
    command += ["-n", str(REQUESTS[pipeline]), "-P", str(pipeline), "--csv"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    return float(output.strip().splitlines()[-1].split(",")[1].strip('"'))


def compare(title: str, peer: int, ours: int, rounds: int) -> list[dict[str, object]]:
    """Alternate rounds; print and return the median ratios."""
    rows: list[dict[str, object]] = []
    print(f"\n{title}\n{'':14} {'redis-server':>14} {'respkv':>14} {'ratio':>7}  spread")
    for pipeline in (1, 16):
        figures: dict[str, list[tuple[float, float]]] = {"set": [], "get": []}
        for _ in range(rounds):
            for test, found in figures.items():
                found.append((measure(peer, test, pipeline), measure(ours, test, pipeline)))
        for test, found in figures.items():
            ratios = sorted(own / other for other, own in found)
            row = {
                "setup": title,
                "test": f"{test.upper()} -P {pipeline}",
                "peer": statistics.median(other for other, _ in found),
                "respkv": statistics.median(own for _, own in found),
                "ratio": statistics.median(ratios),
                "low": ratios[0],
                "high": ratios[-1],
            }
            rows.append(row)
            figures_text = f"{row['peer']:>12,.0f}/s {row['respkv']:>12,.0f}/s {row['ratio']:7.2f}  {row['low']:.2f}-{row['high']:.2f}"
            print(f"{row['test']:14} {figures_text}", flush=True)
    return rows


def code() -> str:
    """Whether the nodes will run compiled or interpreted code: as a process like theirs finds it."""
    program = "from respkv.compilation import finder; finder.install(); import respkv.server.main; print(finder.describe())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=TOP, check=True).stdout.strip()


def machine() -> str:
    """The machine, the commit and the peer, in one line."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=TOP, check=False).stdout.strip()
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout.split()[2]
    load = os.getloadavg()[0]
    python = platform.python_version()
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, respkv {commit} ({code()} code), "
        f"redis-server {version}, load {load:.2f} at start"
    )


def throughput(rounds: int, setups: list[int]) -> list[dict[str, object]]:
    """The table of the README."""
    rows: list[dict[str, object]] = []
    for count in setups:
        title = "one node, N=1" if count == 1 else f"{count} nodes, N=3 R=W=2"
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            with redis_server(directory / "redis") as peer, respkv_nodes(count, directory / "respkv") as (ports, _):
                for port in (peer, ports[0]):
                    measure(port, "set", 16)
                rows += compare(title, peer, ports[0], rounds)
    return rows


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, action="append", help="cluster sizes to measure (default 1 and 3)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--stall", action="store_true")
    parser.add_argument("--repair", action="store_true")
    parser.add_argument("--return", action="store_true", dest="returning")
    arguments = parser.parse_args()
    print(machine())
    if arguments.memory or arguments.restart or arguments.stall:
        benchmark_operations.run(memory=arguments.memory, restart=arguments.restart, stall=arguments.stall)
        return
    if arguments.repair:
        benchmark_repair.run()
        return
    if arguments.returning:
        benchmark_return.run()
        return
    rows = throughput(arguments.rounds, arguments.nodes or [1, 3])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
