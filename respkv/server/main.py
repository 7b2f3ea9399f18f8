"""Start a node: settings, directory, recovery, sockets; then run its shells until it wants to stop.

Exit codes: 0 stopped as it was told; 1 could not start (configuration, ports, directory in use);
2 the disk failed; 3 durable data is damaged and there is nobody to copy it from (see `accept-data-loss`); 70 a bug.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import glob
import os
import resource
import signal
import socket
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from respkv.commands import registry
from respkv.config.checks import is_loopback
from respkv.config.founders import CLUSTER_PORT_OFFSET, announced
from respkv.config.start import STANDARD_INPUT, Start, configure
from respkv.errors import ConfigurationError, DamageError, StorageError
from respkv.server import turns
from respkv.server.housekeeping import keep_house, process_facts
from respkv.server.journal import Journal
from respkv.server.links import keep_link
from respkv.server.reactor import Reactor
from respkv.server.start import build
from respkv.storage.directory import DataDirectory

if TYPE_CHECKING:
    from respkv.config.settings import Settings
    from respkv.server.disk import Disk

EXIT_STOPPED = 0
EXIT_REFUSED = 1
EXIT_DISK = 2
EXIT_DAMAGE = 3
EXIT_BUG = 70
NODE_FILE = "node-id"
_M_ARENA_MAX = -8

DISK_ERRORS = frozenset((errno.EIO, errno.ENOSPC, errno.EDQUOT))
DESCRIPTORS_RESERVED = 1024
"""Left for peers, segments and tables when `maxclients` is compared with the limit of open files; half of a lower limit."""

assert registry.MODULES


def read_files(path: str) -> list[tuple[str, str]]:
    """The text of a configuration file, or of all that a pattern names; `-` is standard input."""
    if path == STANDARD_INPUT:
        return [("standard input", sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))]
    names = sorted(glob.glob(path)) if glob.has_magic(path) else [path]  # noqa: PTH207 - the pattern may be absolute
    return [(name, Path(name).read_bytes().decode("utf-8", "surrogateescape")) for name in names]


def run_server(arguments: list[str]) -> int:
    """Run a node with these command-line arguments, as redis-server takes them. Returns its exit code."""
    try:
        start = configure(arguments, read=read_files)
        journal = Journal(start.settings)
    except (ConfigurationError, OSError) as error:
        # There is no log file yet: where it goes is among the settings that could not be read.
        sys.stderr.write(f"respkv: {error}\n")
        return EXIT_REFUSED
    try:
        while (code := _run(start, journal)) == turns.START_AGAIN:
            # What the last life has frozen goes before the next one fills the memory again.
            gc.unfreeze()
            gc.collect()
        return code
    except (ConfigurationError, OSError) as error:
        journal.write("warning", f"cannot start: {error}")
        return EXIT_REFUSED
    except DamageError as error:
        journal.write("warning", f"damaged data, not starting: {error}")
        return EXIT_DAMAGE
    except StorageError as error:
        journal.write("warning", f"the disk failed, stopping without a retry: {error}")
        return EXIT_DISK
    except Exception:
        journal.write("warning", f"a bug, stopping: {traceback.format_exc()}")
        return EXIT_BUG
    finally:
        journal.close()


def _listen(settings: Settings, port: int) -> list[socket.socket]:
    listeners = []
    for address in settings.bind:
        optional = address.startswith("-")
        host = address.removeprefix("-")
        family = socket.AF_INET6 if ":" in host or host == "::*" else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(({"*": "0.0.0.0", "::*": "::"}.get(host, host), port))
            listener.listen(settings.tcp_backlog)
        except OSError as error:
            listener.close()
            if optional:
                continue
            msg = f"cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigurationError(msg) from None
        port = listener.getsockname()[1]
        listeners.append(listener)
    return listeners


def _usable(path: Path) -> Path:
    """The directory that `dir` names. Where it cannot be made, or nothing may be written to it, that is no fault of the disk."""
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise StorageError(f"cannot make the directory {path}: {error.strerror}") from error
        raise ConfigurationError(f"dir: cannot make the directory {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"dir: {path} may not be read and written by this user")
    return path


def _raise_descriptor_limit(settings: Settings, journal: Journal) -> None:
    wanted = settings.maxclients + DESCRIPTORS_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < wanted:
        settings.maxclients = max(soft - min(DESCRIPTORS_RESERVED, soft // 2), 1)
        journal.write("warning", f"only {soft} open files are allowed: maxclients is now {settings.maxclients}")


def secret_of(settings: Settings) -> bytes:
    """The cluster's secret. Without one a node talks to its own machine alone, where anybody may pose as a node."""
    if settings.cluster_secret:
        return settings.cluster_secret.encode("utf-8", "surrogateescape")
    for address in settings.bind:
        if not is_loopback(address.removeprefix("-")):
            msg = f"bind {address} is not loopback and no cluster-secret is set: anybody could pose as a node. Set one of 16 bytes or more"
            raise ConfigurationError(msg)
    return b"respkv on loopback without a secret"


def _share_one_heap() -> None:
    """Let one heap serve all threads, so that what one frees another can use. Before there are threads.

    Measured with a million keys and `maxmemory 100mb`: 235 MB resident with one heap, 324 MB with eight for each core.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _calm_collector() -> None:
    """Records are no garbage: look for cycles rarely, and never in what the start has built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _run(start: Start, journal: Journal) -> int:
    settings = start.settings
    secret = secret_of(settings)
    _share_one_heap()
    _raise_descriptor_limit(settings, journal)
    clients = _listen(settings, settings.port)
    port = clients[0].getsockname()[1]
    peers = _listen(settings, settings.cluster_port or port + CLUSTER_PORT_OFFSET)
    me = announced(settings, port=port, cluster_port=peers[0].getsockname()[1])
    directory = DataDirectory(_usable(Path(settings.dir)))
    startup_bytes = process_facts()["rss_bytes"]
    try:
        node, disk, facts = build(start, journal, directory, me)
        facts.update(process_facts(), rss_startup_bytes=startup_bytes)
        reactor = Reactor(node=node, disk=disk, settings=settings, secret=secret, on_event=journal.write)
        facts["post"] = reactor.post
        for listener in clients:
            reactor.listen(listener, for_peers=False)
        for listener in peers:
            reactor.listen(listener, for_peers=True)
        _calm_collector()
        where = f"clients on port {port}, nodes on {me.cluster_port}; data in {directory.path}"
        journal.write("notice", f"node {node.me[:8]} ({facts['code']} code) serves {where}")
        _serve(reactor, disk, facts)
        journal.write("notice", "stopped")
        return reactor.exit_code or EXIT_STOPPED
    finally:
        directory.close()


def _serve(reactor: Reactor, disk: Disk, facts: dict[str, Any]) -> None:
    """Run until the end. Of a disk that failed the first failure is told, not what follows from it when files are closed."""
    failures: list[BaseException] = []
    try:
        trio.run(_shells, reactor, disk, facts)
    except* StorageError as group:
        failures.append(_first_of(group))
    finally:
        reactor.close()
        try:
            disk.close()
        except StorageError as error:
            failures.append(error)
    if failures:
        # Nor is it damage that keeps a node from starting.
        raise StorageError(str(failures[0])) from None


def _first_of(error: BaseException) -> BaseException:
    """What a group says is that it is one; the nurseries within each other make a group each."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _shells(reactor: Reactor, disk: Disk, facts: dict[str, Any]) -> None:
    """All tasks of a node. The first that ends or fails ends them all."""
    me = reactor.node.me
    source = reactor.settings.bind[0].removeprefix("-") if is_loopback(reactor.settings.bind[0].removeprefix("-")) else ""
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        nursery.start_soon(_watch_signals, reactor)
        for peer in reactor.node.membership.members(time.monotonic()):
            if peer.address.node != me:
                nursery.start_soon(partial(keep_link, reactor, peer.address, source_host=source))
        nursery.start_soon(keep_house, reactor, facts, disk.statistics)
        await reactor.run()
        nursery.cancel_scope.cancel()


async def _watch_signals(reactor: Reactor) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for number in received:
            reactor.post((turns.SIGNALLED, signal.Signals(number).name.removeprefix("SIG")))
