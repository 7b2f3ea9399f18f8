"""The folder of a local cluster: one folder and one respkv.conf for each node, and a secret for all.

DIR/cluster.json        how many nodes, and their first port
DIR/cluster-secret      made once, readable by its owner alone
DIR/n1/respkv.conf      what `respkv server` reads; only the lines that `respkv up` is told are ever changed
DIR/n1/respkv.log       what the node said
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from respkv.cli.connection import Address
from respkv.cli.directives import LOOPBACK, with_directives
from respkv.config.cluster_directives import CLUSTER_SECRET_LENGTH_MIN
from respkv.config.founders import CLUSTER_PORT_OFFSET, PORT_MAX, Founder
from respkv.config.start import Reader, configure
from respkv.errors import RespkvError

HOST = LOOPBACK
NODE_COUNT = 5
FIRST_PORT = 7001
SECRET_BYTES = 32
ABOUT_NAME = "cluster.json"
LOCK_NAME = "lock"


class UnfitFolderError(RespkvError):
    """The cluster cannot start on this folder or these ports; the message is for the user."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node: its name, its port and its files."""

    name: str
    port: int
    folder: Path

    @property
    def cluster_port(self) -> int:
        """Where the other nodes reach it."""
        return self.port + CLUSTER_PORT_OFFSET

    @property
    def conf_path(self) -> Path:
        """What `respkv server` is given."""
        return self.folder / "respkv.conf"

    def is_running(self) -> bool:
        """Whether a process works in its folder, whoever started it: it holds the lock there."""
        try:
            descriptor = os.open(self.folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        return self.folder / "respkv.log"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A folder and the nodes in it."""

    folder: Path
    nodes: tuple[LocalNode, ...]
    directives: Mapping[str, Sequence[str]]

    @property
    def about_path(self) -> Path:
        """Where it is written down what the folder holds."""
        return self.folder / ABOUT_NAME

    @property
    def secret_path(self) -> Path:
        """Where the secret is kept."""
        return self.folder / "cluster-secret"

    def write(self) -> None:
        """Bring every file up to date. Raises `ConfigurationError`, before anything is written, for what no node would take."""
        secret = read_text(self.secret_path).strip() or secrets.token_hex(SECRET_BYTES)
        if len(secret) < CLUSTER_SECRET_LENGTH_MIN:
            raise UnfitFolderError(f"{self.secret_path} is damaged: it holds no secret; delete it, and a new one is made")
        confs = {node: self.conf_of(node, secret) for node in self.nodes}
        for node, text in confs.items():
            configure([str(node.conf_path)], read=reader_with({str(node.conf_path): text}))
        write_private(self.about_path, json.dumps({"nodes": len(self.nodes), "port": self.nodes[0].port}) + "\n")
        write_private(self.secret_path, secret + "\n")
        for node, text in confs.items():
            node.folder.mkdir(exist_ok=True)
            write_private(node.conf_path, text)

    def conf_of(self, node: LocalNode, secret: str) -> str:
        """A node's respkv.conf: what it was, with the lines that are ours to set."""
        ours = {
            "port": [str(node.port)],
            "cluster-port": [str(node.cluster_port)],
            "cluster-announce-ip": [HOST],
            "dir": [str(node.folder.resolve())],
            "cluster-nodes": [str(Founder(HOST, each.port, each.cluster_port)) for each in self.nodes],
            "cluster-secret": [secret],
        }
        before = read_text(node.conf_path) or (
            f"# Node {node.name} of a local cluster. `respkv up` keeps the lines below up to date; lines that you add stay.\n"
            "# conf/respkv.conf explains every directive.\n"
        )
        return with_directives(before, ours | dict(self.directives))

    def address_of(self, node: LocalNode) -> Address:
        """Where a client reaches a node, and the password that the node was started with."""
        settings = configure([str(node.conf_path)], read=reader_with({})).settings
        return Address(HOST, node.port, settings.requirepass or None)


def open_cluster(folder: Path, *, node_count: int | None, first_port: int | None, directives: Mapping[str, Sequence[str]]) -> LocalCluster:
    """The cluster that the folder holds, or a new one for it. Writes nothing."""
    held_count, held_port = read_about(folder / ABOUT_NAME)
    count, port = node_count or held_count or NODE_COUNT, first_port or held_port or FIRST_PORT
    if held_count and (count, port) != (held_count, held_port):
        raise UnfitFolderError(
            f"{folder} holds a cluster of {held_count} nodes from port {held_port} on; "
            "leave out --nodes and --port, or choose another --dir"
        )
    if port + count - 1 + CLUSTER_PORT_OFFSET > PORT_MAX:
        raise UnfitFolderError(f"port {port} is too high: nodes reach each other on their port + {CLUSTER_PORT_OFFSET}")
    nodes = tuple(LocalNode(f"n{index + 1}", port + index, folder / f"n{index + 1}") for index in range(count))
    return LocalCluster(folder, nodes, directives)


@contextmanager
def held_by_this_process(cluster: LocalCluster) -> Iterator[None]:
    """Make sure that nobody else runs this cluster or listens on its ports."""
    made = [path for path in (cluster.folder, *cluster.folder.parents) if not path.exists()]
    cluster.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(cluster.folder, os.O_RDONLY)
    try:
        lock_or_refuse(lock, cluster.folder)
        running = [node for node in cluster.nodes if node.is_running()]
        if running:
            raise UnfitFolderError(
                f"nodes of {cluster.folder} run already, started by themselves; stop them first:\n{how_to_stop(running)}"
            )
        for node in cluster.nodes:
            for port in (node.port, node.cluster_port):
                if is_taken(port):
                    raise UnfitFolderError(f"port {port} is in use; stop what listens there, or choose another --port and --dir")
        yield
    finally:
        os.close(lock)
        # What came to nothing leaves nothing behind.
        with suppress(OSError):
            for path in made:
                path.rmdir()


def how_to_stop(nodes: Sequence[LocalNode]) -> str:
    """A line for each node that this process cannot stop."""
    return "\n".join(f"  {node.name}  redis-cli -p {node.port} SHUTDOWN" for node in nodes)


def lock_or_refuse(descriptor: int, folder: Path) -> None:
    """Lock the folder itself: no file is left behind that could be taken for a running cluster."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UnfitFolderError(f"another `respkv up` runs on {folder}") from None


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port. Connections that linger after a restart do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def reader_with(texts: Mapping[str, str]) -> Reader:
    """Reads configuration files, some of which may not have been written yet."""

    def read(pattern: str) -> list[tuple[str, str]]:
        if pattern in texts:
            return [(pattern, texts[pattern])]
        # The glob of pathlib takes no absolute pattern.
        paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        return [(path, Path(path).read_text(encoding="utf-8", errors="surrogateescape")) for path in paths]

    return read


def read_about(path: Path) -> tuple[int, int]:
    """How many nodes a folder holds, and their first port; zeros where it holds none."""
    text = read_text(path)
    if not text:
        return 0, 0
    try:
        about = json.loads(text)
        return int(about["nodes"]), int(about["port"])
    except (ValueError, TypeError, KeyError):
        raise UnfitFolderError(f'{path} is damaged; it should read like {{"nodes": 5, "port": 7001}}') from None


def read_text(path: Path) -> str:
    """A file's text; nothing where there is no file. Bytes that are no UTF-8 stay what they are, as in what `respkv server` reads."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner alone."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    new.replace(path)
