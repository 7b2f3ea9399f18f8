"""`respkv up`: a supervised cluster for a terminal; and the commands that look at it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import IO

import pytest

from respkv.cli.processes import dying_with
from tests.cluster.harness import HOST, PATIENCE_S, PORTS, ROOT, wait_until
from tests.cluster.wire import wire_to

pytestmark = pytest.mark.cluster

BANNER_S = 5.0
# The promise is made for two idle cores.
SLACK_S = 15.0
OFFSET = 10_000


def free_run(count: int) -> int:
    """The first of so many consecutive ports on which nobody listens, nor on those of their nodes."""
    for first in SystemRandom().sample(range(PORTS.start, PORTS.stop - count), 200):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    for each in (port, port + OFFSET):
                        stack.enter_context(socket.socket()).bind((HOST, each))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


class Supervisor:
    """`respkv up` and what it prints."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "respkv", "up", "--dir", str(folder), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509
        )
        assert self.process.stdout is not None
        self._output: IO[str] = self.process.stdout
        self.said = ""

    def read_until(self, text: str) -> str:
        """Wait for a line that holds this; all that was said up to it."""
        # A hang here is ended by pytest's own timeout, with a trace of where it was.
        while text not in self.said:
            line = self._output.readline()
            assert line, f"it ended without {text!r}:\n{self.said}"
            self.said += line
        return self.said

    def nodes(self) -> dict[str, tuple[int, int, list[str]]]:
        """Port, process and the line that starts it again, of each node in the banner."""
        rows = re.findall(r"^  (n\d+) +(\d+) +(\d+) +(.+)$", self.said, flags=re.MULTILINE)
        return {name: (int(port), int(pid), line.split()) for name, port, pid, line in rows}

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C; its exit code."""
        self.process.send_signal(number)
        self.said += self._output.read()
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def supervised(folder: Path, *arguments: str) -> Iterator[Supervisor]:
    supervisor = Supervisor(folder, *arguments)
    try:
        yield supervisor
    finally:
        # Its nodes die with it, whatever happens.
        supervisor.process.kill()
        supervisor.process.wait()
        supervisor.process.stdout.close()  # type: ignore[union-attr]


def ask(port: int, *words: str) -> object:
    with wire_to(port) as wire:
        return wire.ask(*words)


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def respkv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "respkv", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_five_nodes_a_loss_and_what_the_commands_tell_of_it(tmp_path: Path) -> None:
    """The first minutes with respkv, as the README tells them."""
    folder, first = tmp_path / "data", free_run(5)
    with supervised(folder, "--port", str(first)) as up:
        banner = up.read_until("Ctrl-C stops all nodes.")
        assert time.monotonic() - up.started < BANNER_S + SLACK_S
        assert "5 nodes are up and agree on the ring" in banner
        nodes = up.nodes()
        assert [port for port, _, _ in nodes.values()] == list(range(first, first + 5))
        assert f"redis-cli -p {first} SET greeting hello" in banner
        assert {ask(port, "SET", f"via:{port}", "x") for port, _, _ in nodes.values()} == {b"OK"}
        # With W=2, the replica that is asked may be the one that has yet to hear of a key.
        wait_until("each node counts five keys", lambda: {ask(port, "DBSIZE") for port, _, _ in nodes.values()} == {5})
        status = respkv("status", "-p", str(first))
        assert (status.returncode, status.stderr) == (0, "")
        assert status.stdout.startswith("Cluster respkv (N=3 R=2 W=2 sloppy=yes)   5 up")
        told = json.loads(respkv("status", "-p", str(first), "--json").stdout)
        assert len(told["nodes"]) == 5
        # A node that is killed stays down, and the others go on.
        port, pid, line = nodes["n3"]
        os.kill(pid, signal.SIGKILL)
        up.read_until("It stays down; start it again with:")
        assert f"n3 (port {port}, process {pid}) was ended by SIGKILL." in up.said
        wait_until("the others notice", lambda: respkv("status", "-p", str(first)).returncode == 1)
        assert {ask(each, "SET", "k", "while n3 is down") for each, _, _ in nodes.values() if each != port} == {b"OK"}
        key = respkv("key", "-p", str(first), "k")
        assert (key.returncode, key.stderr) in {(0, ""), (1, "")}
        assert "preference list:" in key.stdout
        assert not is_alive(pid)
        # The line of the banner starts it again.
        with started_again(line):
            wait_until("it is back", lambda: respkv("status", "-p", str(first)).returncode == 0)
            assert ask(port, "GET", "k") == b"while n3 is down"
            wait_until("all replicas agree", lambda: respkv("key", "-p", str(first), "k").returncode == 0)
        assert up.stop() == 0
        assert "All nodes ended." in up.said
        assert not any(is_alive(each) for _, each, _ in nodes.values())


@contextlib.contextmanager
def started_again(line: Sequence[str]) -> Iterator[None]:
    """Run a line of the banner, as somebody would in another terminal, and end it."""
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, preexec_fn=dying_with(os.getpid()))  # noqa: PLW1509
    try:
        yield
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_data_outlives_the_cluster_and_settings_are_kept(tmp_path: Path) -> None:
    folder, first = tmp_path / "data", free_run(3)
    with supervised(folder, "--nodes", "3", "--port", str(first), "--maxmemory", "50mb") as up:
        up.read_until("Ctrl-C stops all nodes.")
        with wire_to(first) as wire:
            assert set(wire.ask_all([("SET", f"k{index}", "kept") for index in range(200)])) == {b"OK"}
            assert wire.ask("CONFIG", "SET", "read-quorum", "1") == b"OK"
        assert up.stop(signal.SIGTERM) == 0
    # It knows by itself how many nodes there are, and on which ports.
    with supervised(folder) as up:
        assert "3 nodes are up" in up.read_until("Ctrl-C stops all nodes.")
        with wire_to(first + 2) as wire:
            assert set(wire.ask_all([("GET", f"k{index}") for index in range(200)])) == {b"kept"}
            assert wire.ask("CONFIG", "GET", "read-quorum") == [b"read-quorum", b"1"]
            assert wire.ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"52428800"]
        second = respkv("up", "--dir", str(folder))
        assert (second.returncode, "another `respkv up` runs on" in second.stderr) == (1, True)
        assert up.stop() == 0
    wrong = respkv("up", "--dir", str(folder), "--nodes", "4")
    assert (wrong.returncode, "holds a cluster of 3 nodes" in wrong.stderr) == (1, True)


def test_nonsense_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for arguments in (["--nonsense", "1"], ["--write-quorum", "9"], ["--maxmemory", "much"]):
        done = respkv("up", "--dir", str(folder), "--port", str(free_run(5)), *arguments)
        assert done.returncode == 1
        assert arguments[0].removeprefix("--") in done.stderr
        assert not folder.exists()
    nowhere = respkv("up", "--dir", "/proc/nowhere", "--port", str(free_run(5)))
    assert (nowhere.returncode, nowhere.stderr) == (
        1,
        "respkv: cannot work in /proc/nowhere: /proc/nowhere: No such file or directory\n",
    )
    assert "port" in respkv("up", "--dir", str(folder), "--port", "60000").stderr


def test_with_restart_a_dead_node_comes_back(tmp_path: Path) -> None:
    with supervised(tmp_path / "data", "--nodes", "3", "--port", str(free_run(3)), "--restart") as up:
        up.read_until("Ctrl-C stops all nodes.")
        port, pid, _ = up.nodes()["n2"]
        assert ask(port, "SET", "k", "x") == b"OK"
        os.kill(pid, signal.SIGKILL)
        up.read_until("n2 is started again (process")
        wait_until("it serves", lambda: ask(port, "GET", "k") == b"x")
        # What was told to stop stays down, and when that are all, there is nothing left to do.
        ports = [each for each, _, _ in up.nodes().values()]
        for each in ports:
            with wire_to(each) as wire, pytest.raises(ConnectionError):
                wire.ask("SHUTDOWN")
            up.read_until(f"(port {each}, ")
        up.read_until("No node is left.")
        assert up.said.count("exit code 0") == 3
        assert up.said.count("It stays down") == 3
        assert up.process.wait(PATIENCE_S) == 1


def test_a_node_that_was_started_by_hand_is_named_at_the_end_and_at_the_next_start(tmp_path: Path) -> None:
    folder, first = tmp_path / "data", free_run(3)
    with supervised(folder, "--nodes", "3", "--port", str(first)) as up:
        up.read_until("Ctrl-C stops all nodes.")
        port, pid, line = up.nodes()["n3"]
        os.kill(pid, signal.SIGKILL)
        up.read_until("It stays down; start it again with:")
        with started_again(line):
            wait_until("it is back", lambda: respkv("status", "-p", str(port)).returncode == 0)
            assert up.stop() == 0
            assert "All nodes ended." in up.said
            how = f"  n3  redis-cli -p {port} SHUTDOWN"
            assert up.said.endswith(f"Still running, as this `respkv up` did not start them:\n{how}\n")
            second = respkv("up", "--dir", str(folder))
            assert second.returncode == 1
            assert second.stderr.endswith(f"run already, started by themselves; stop them first:\n{how}\n")


def test_a_supervisor_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    with supervised(tmp_path / "data", "--nodes", "3", "--port", str(free_run(3))) as up:
        up.read_until("Ctrl-C stops all nodes.")
        pids = [pid for _, pid, _ in up.nodes().values()]
        assert all(is_alive(pid) for pid in pids)
        up.process.kill()
        wait_until("its nodes end", lambda: not any(is_alive(pid) for pid in pids))
