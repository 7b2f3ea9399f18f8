"""`respkv up`: start a local cluster, say when it is ready, watch over it, stop it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from respkv.cli import processes
from respkv.cli.directives import directives_of
from respkv.cli.local_cluster import LocalCluster, LocalNode, held_by_this_process, how_to_stop, open_cluster
from respkv.cli.readiness import problem_at
from respkv.cli.restarts import Restarts
from respkv.cli.units import show_nodes
from respkv.errors import RespkvError

EXIT_STOPPED = 0
EXIT_FAILED = 1
TICK_S = 0.1
PATIENCE_S = 10.0
LOG_LINES_SHOWN = 5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_cluster(folder: Path, *, nodes: int | None, first_port: int | None, restart: bool, arguments: Sequence[str]) -> int:
    """Run until told to stop; the result is the exit code."""
    try:
        cluster = open_cluster(folder, node_count=nodes, first_port=first_port, directives=directives_of(arguments))
        with held_by_this_process(cluster):
            cluster.write()
            return Supervisor(cluster, restart=restart).run()
    except RespkvError as error:
        print(f"respkv: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        where = error.filename or folder
        print(f"respkv: cannot work in {folder}: {where}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED


def own_command() -> str:
    """How the user called respkv, so that the lines we show can be typed as they are."""
    installed = Path(sys.argv[0]).name == "respkv"
    return os.environ.get("RESPKV_COMMAND") or ("respkv" if installed else f"{sys.executable} -m respkv")


def server_line(node: LocalNode) -> str:
    """What starts this node by hand."""
    return f"{own_command()} server {shlex.quote(str(node.conf_path))}"


def say(text: str) -> None:
    """Print now: a program may be waiting for the banner."""
    print(text, flush=True)


class Watched:
    """A node and its process."""

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = Restarts()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self.process is not None and self.process.returncode is None

    def start(self, now: float) -> None:
        """Start its process."""
        # The safe path goes on to the children: no file of the working directory takes a library's place.
        safe_path = ["-P"] if sys.flags.safe_path else []
        command = [sys.executable, *safe_path, "-m", "respkv", "server", str(self.node.conf_path)]
        self.process = processes.start(command, log_path=self.node.log_path)
        self.restarts.started(now)


class Supervisor:
    """Watches over the processes. One loop, ten times a second; nothing here is on a client's way."""

    def __init__(self, cluster: LocalCluster, *, restart: bool) -> None:
        self._cluster = cluster
        self._restart = restart
        self._watched = [Watched(node) for node in cluster.nodes]
        self._signals_received = 0
        self._is_announced = False
        self._started_at = time.monotonic()
        self._patience_until = self._started_at + PATIENCE_S

    def run(self) -> int:
        """Start all nodes, and stop them when a signal says so."""
        before = {number: signal.signal(number, self._count_signal) for number in STOP_SIGNALS}
        try:
            for watched in self._watched:
                watched.start(self._started_at)
            return self._watch()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count_signal(self, number: int, frame: object) -> None:
        del number, frame
        self._signals_received += 1

    def _watch(self) -> int:
        while not self._signals_received:
            now = time.monotonic()
            self._reap(now)
            if self._restart:
                self._start_again(now)
            if not any(watched.is_running or watched.restarts.is_pending() for watched in self._watched):
                say("No node is left.")
                return EXIT_FAILED
            if not self._is_announced:
                self._announce_if_ready(now)
            time.sleep(TICK_S)
        return EXIT_STOPPED

    def _reap(self, now: float) -> None:
        """Report nodes that ended since the last look."""
        for watched in self._watched:
            process, node = watched.process, watched.node
            if process is None or not watched.is_running or process.poll() is None:
                continue
            say(f"{node.name} (port {node.port}, process {process.pid}) {processes.ending_of(process.returncode)}.")
            if process.returncode > 0:
                say(tail_of(node.log_path))
            if self._restart and process.returncode != EXIT_STOPPED:
                say(f"{node.name} is started again in {watched.restarts.died(now):.0f} s.")
            else:
                say(f"It stays down; start it again with: {server_line(node)}")

    def _start_again(self, now: float) -> None:
        for watched in self._watched:
            if watched.restarts.is_due(now):
                watched.start(now)
                say(f"{watched.node.name} is started again (process {watched.process.pid if watched.process else '?'}).")

    def _announce_if_ready(self, now: float) -> None:
        running = [watched.node for watched in self._watched if watched.is_running]
        for node in running:
            address = self._cluster.address_of(node)
            problem = problem_at(address, node_count=len(self._watched), up_count=len(running))
            if problem:
                if now >= self._patience_until:
                    say(f"Waiting for {node.name} (port {node.port}): it {problem}. Its log: {node.log_path}")
                    self._patience_until = now + PATIENCE_S
                return
        if running:
            self._is_announced = True
            say(self._banner(len(running), took_s=time.monotonic() - self._started_at))

    def _banner(self, running_count: int, *, took_s: float) -> str:
        nodes = self._cluster.nodes
        count = f"{running_count} of {show_nodes(len(nodes))}" if running_count < len(nodes) else show_nodes(len(nodes))
        state = "is up and agrees on the ring" if running_count == 1 else "are up and agree on the ring"
        lines = [
            f"{count} {state}, after {took_s:.1f} s. Data and logs: {self._cluster.folder}",
            "",
            "  node  port   process  this line starts it again",
        ]
        for watched in self._watched:
            node = watched.node
            pid = str(watched.process.pid) if watched.process and watched.is_running else "down"
            lines.append(f"  {node.name:<4}  {node.port:<5}  {pid:<7}  {server_line(node)}")
        port = next(watched.node.port for watched in self._watched if watched.is_running)
        password = " -a PASSWORD" if self._cluster.address_of(self._cluster.nodes[0]).password else ""
        lines += ["", f"  redis-cli -p {port}{password} SET greeting hello", f"  {own_command()} status -p {port}{password}"]
        lines += ["", "Ctrl-C stops all nodes."]
        return "\n".join(lines)

    def _stop(self) -> None:
        running = [watched.process for watched in self._watched if watched.process is not None and watched.is_running]
        if running:
            self._stop_all(running)
        others = [watched.node for watched in self._watched if watched.node.is_running()]
        if others:
            say(f"Still running, as this `respkv up` did not start them:\n{how_to_stop(others)}")

    def _stop_all(self, running: Sequence[subprocess.Popen[bytes]]) -> None:
        say(f"Stopping {show_nodes(len(running))}.")
        signals_before = self._signals_received
        killed_count = processes.stop(running, is_hurried=lambda: self._signals_received > signals_before)
        say(f"Killed {show_nodes(killed_count)} that did not end." if killed_count else "All nodes ended.")


def tail_of(log_path: Path) -> str:
    """The last lines of a log, indented."""
    try:
        lines = log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        lines = []
    return "\n".join(f"    {line}" for line in lines)
