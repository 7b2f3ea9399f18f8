"""Real nodes: processes on free ports of the loopback interface, their data in a folder of the test.

Rule 1: a test waits for a condition, with a deadline that no healthy machine meets; none is right because it slept.
Rule 2: what is started here is ended by its own process id at the end, and by the kernel if pytest itself is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from respkv.cli.processes import dying_with
from respkv.ids import NodeId, node_id_of_address
from respkv.placement.ring import Member, first_ring, preference_lists
from respkv.placement.slots import key_slot
from tests.cluster.wire import Wire, Word, wire_to

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
# Below the range from which the kernel takes the ports of outgoing connections.
PORTS = range(20000, 32000)
PATIENCE_S = 60.0
POLL_S = 0.03
LOG_LINES_SHOWN = 15
RING_SIZE = 1024
SIGNS_OF_BUGS = ("internal error", "Traceback (most recent call last)")


def wait_until(what: str, condition: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Wait for a condition, and return what it gave. A node that cannot be reached has not met it yet."""
    deadline = time.monotonic() + within_s
    while True:
        seen: object
        try:
            seen = condition()
        except (OSError, redis.ConnectionError, redis.TimeoutError) as error:
            seen, found = error, False
        else:
            found = bool(seen)
        if found:
            return seen
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s; last seen: {seen!r}"
        time.sleep(POLL_S)


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in SystemRandom().sample(PORTS, len(PORTS)):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise AssertionError("no free ports")


class NodeProcess:
    """One node: its ports, its folder, its command line, and its process while there is one."""

    def __init__(self, name: str, *, folder: Path, port: int, cluster_port: int, host: str = HOST) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.cluster_port = cluster_port
        self.folder = folder
        self.log_path = folder.with_suffix(".log")
        self.address = f"{host}:{port}@{cluster_port}"
        self.id: NodeId = node_id_of_address(host, cluster_port)
        self.arguments: list[str] = []
        self.entry: Sequence[str] = ("-m", "respkv", "server")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def start(self, *directives: str) -> None:
        """Start it with its own command line, and directives for this time."""
        assert not self.is_running
        command = [sys.executable, *self.entry, *self.arguments, *directives]
        with self.log_path.open("ab") as log, warnings.catch_warnings():
            # Python 3.12 and later warn of what runs before exec while other threads run. What runs there takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.signal(signal.SIGKILL)
        self.wait_ended()

    def wait_ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended after {within_s:g} s\n{self.log_tail()}") from None

    def log(self) -> str:
        """All that it said, in all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(f"    {self.name}: {line}" for line in self.log().splitlines()[-LOG_LINES_SHOWN:])

    def connect(self, *, timeout_s: float = 20.0) -> Wire:
        """A connection that sends what it is told."""
        return wire_to(self.port, host=self.host, timeout_s=timeout_s)

    def ask(self, *words: Word) -> Any:
        """One command on a connection of its own; the reply, errors as values."""
        with self.connect() as wire:
            return wire.ask(*words)

    def client(self, *, protocol: int = 2, **options: Any) -> Any:
        """redis-py, which reports a failure at once instead of trying again. Its types differ from version to version."""
        return redis.Redis(host=self.host, port=self.port, socket_timeout=20, retry=Retry(NoBackoff(), 0), protocol=protocol, **options)

    def info(self, *sections: str) -> dict[str, str]:
        """The fields of INFO, of all its sections unless some are named."""
        reply = self.ask("INFO", *(sections or ["everything"]))
        assert isinstance(reply, bytes), reply
        return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)

    def whereabouts(self, key: Word) -> dict[str, Any]:
        """RESPKV KEY: where a key lives and what each replica holds."""
        reply = self.ask("RESPKV", "KEY", key)
        assert isinstance(reply, bytes), reply
        found = json.loads(reply)
        assert isinstance(found, dict)
        return found

    def status(self) -> dict[str, Any]:
        """RESPKV STATUS: every node, as this one sees it."""
        reply = self.ask("RESPKV", "STATUS")
        assert isinstance(reply, bytes), reply
        found = json.loads(reply)
        assert isinstance(found, dict)
        return found

    def rss_bytes(self) -> int:
        """The memory that it occupies."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} has no memory")


class Cluster:
    """Nodes that were founded together."""

    def __init__(self, folder: Path, *, count: int, directives: Sequence[str] = (), hosts: Sequence[str] = ()) -> None:
        """`hosts` are the addresses of the nodes, each one's own; without them all have the same."""
        ports = free_ports(2 * count)
        self.nodes = [
            NodeProcess(
                f"n{index + 1}",
                folder=folder / f"n{index + 1}",
                port=ports[2 * index],
                cluster_port=ports[2 * index + 1],
                host=hosts[index] if hosts else HOST,
            )
            for index in range(count)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            own = ["--bind", node.host, "--port", str(node.port), "--cluster-port", str(node.cluster_port), "--dir", str(node.folder)]
            node.arguments = [*own, "--cluster-nodes", *(each.address for each in self.nodes), *directives]
        self._preference = preference_lists(first_ring([Member(node.id) for node in self.nodes], ring_size=RING_SIZE))

    def __getitem__(self, index: int) -> NodeProcess:
        return self.nodes[index]

    @property
    def running(self) -> list[NodeProcess]:
        """The nodes that have a process."""
        return [node for node in self.nodes if node.is_running]

    def start(self) -> None:
        """Start all that are not running, and wait until they serve."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every node that runs knows who is up, and counts."""
        for node in self.running:
            wait_until(f"{node.name} is ready", lambda node=node: self._is_ready(node))  # type: ignore[misc]

    def _is_ready(self, node: NodeProcess) -> bool:
        assert node.is_running, f"{node.name} has ended\n{node.log_tail()}"
        info = node.info("respkv")
        up = str(len(self.running))
        return info["respkv_nodes_up"] == up == info["respkv_nodes_counting"]

    def wait_seen_down(self, *gone: NodeProcess) -> None:
        """Wait until every node that runs has noticed who is away."""
        for node in self.running:
            if node not in gone:
                up = str(len(self.nodes) - len(gone))
                wait_until(f"{node.name} sees {up} up", lambda node=node, up=up: node.info("respkv")["respkv_nodes_up"] == up)  # type: ignore[misc]

    def wait_settled(self) -> None:
        """Wait until every replica has what was written: nothing is on its way, and no hint is held."""
        for node in self.running:
            wait_until(f"{node.name} holds no hint, and waits for no replica", lambda node=node: self._is_settled(node))  # type: ignore[misc]

    def _is_settled(self, node: NodeProcess) -> bool:
        info = node.info()
        return info["respkv_batches_in_flight"] == "0" and info["respkv_hints_held"] == "0"

    def preference_list(self, key: bytes) -> list[NodeProcess]:
        """The nodes of a key's preference list, in order."""
        by_id = {node.id: node for node in self.nodes}
        return [by_id[each] for each in self._preference[key_slot(key) * RING_SIZE // 16384]]

    def holdings(self, keys: Sequence[bytes], *, n: int = 3) -> dict[bytes, list[Any]]:
        """What each of the primaries of each key holds itself, asked node by node with a read quorum of one."""
        found: dict[bytes, list[Any]] = {key: [] for key in keys}
        for node in self.nodes:
            own = [key for key in keys if node in self.preference_list(key)[:n]]
            with node.connect() as wire:
                assert wire.ask("RESPKV", "QUORUM", "R", 1, "PR", 0) == b"OK"
                for key, reply in zip(own, wire.ask_all([("GET", key) for key in own]), strict=True):
                    found[key].append(reply)
        return found

    def kill_all(self) -> None:
        """Every process ends in the same moment, as when the power goes."""
        for node in self.running:
            os.kill(node.pid, signal.SIGKILL)
        for node in self.nodes:
            if node.process is not None:
                node.wait_ended()

    def signs_of_bugs(self) -> str:
        """What no log of a node may hold."""
        lines = [
            f"{node.name}: {line}" for node in self.nodes for line in node.log().splitlines() if any(sign in line for sign in SIGNS_OF_BUGS)
        ]
        return "\n".join(lines[:5])


@contextlib.contextmanager
def running_cluster(
    folder: Path, *, count: int, directives: Sequence[str] = (), hosts: Sequence[str] = (), start: bool = True
) -> Iterator[Cluster]:
    """A cluster that is gone afterwards, whatever happens; and that must not have met a bug."""
    cluster = Cluster(folder, count=count, directives=directives, hosts=hosts)
    try:
        if start:
            cluster.start()
        yield cluster
    finally:
        cluster.kill_all()
    assert cluster.signs_of_bugs() == ""
