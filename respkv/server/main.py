"""Start a node: settings, directory, recovery, sockets; then run its shells until it wants to stop.

Exit codes: 0 stopped as it was told; 1 could not start (configuration, ports, directory in use);
2 the disk failed; 3 durable data is damaged and there is nobody to copy it from (see `accept-data-loss`); 70 a bug.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import glob
import os
import random
import resource
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import respkv
from respkv.commands import registry
from respkv.config import changes, cluster_value
from respkv.config.checks import is_loopback
from respkv.config.cluster_value import ClusterValue, effective_quorums
from respkv.config.founders import CLUSTER_PORT_OFFSET, Founder, announced, founders
from respkv.config.start import STANDARD_INPUT, Start, configure
from respkv.errors import ConfigurationError, DamageError, StorageError
from respkv.ids import NodeId, new_actor
from respkv.membership.members import MemberAddress
from respkv.placement.ring import Member, Ring, decode_ring, first_ring, preference_lists
from respkv.repair.hints import HintBook
from respkv.server import turns
from respkv.server.cluster import RING_FILE, VALUE_FILE
from respkv.server.config_file import ConfigFile
from respkv.server.disk import Disk
from respkv.server.housekeeping import keep_house
from respkv.server.journal import Journal
from respkv.server.links import keep_link
from respkv.server.node import Node
from respkv.server.reactor import Reactor
from respkv.server.restore import Restoration
from respkv.storage.directory import COMPLETE_NAME, DataDirectory, state_path
from respkv.storage.files import write_atomic
from respkv.storage.store import Store
from respkv.storage.tables import TablesOptions
from respkv.versions.clock import HybridClock

if TYPE_CHECKING:
    from respkv.config.settings import Settings

EXIT_STOPPED = 0
EXIT_REFUSED = 1
EXIT_DISK = 2
EXIT_DAMAGE = 3
EXIT_BUG = 70
NODE_FILE = "node-id"
_M_ARENA_MAX = -8

DESCRIPTORS_RESERVED = 1024
"""Left for peers, segments and tables when `maxclients` is compared with the limit of open files."""

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
    except (ConfigurationError, OSError) as error:
        # There is no log file yet: where it goes is among the settings that could not be read.
        sys.stderr.write(f"respkv: {error}\n")
        return EXIT_REFUSED
    journal = Journal(start.settings)
    try:
        return _run(start, journal)
    except (ConfigurationError, OSError) as error:
        journal.write("warning", f"cannot start: {error}")
        return EXIT_REFUSED
    except DamageError as error:
        journal.write("warning", f"damaged data, not starting: {error}")
        return EXIT_DAMAGE
    except StorageError as error:
        journal.write("warning", f"the disk failed, stopping without a retry: {error}")
        return EXIT_DISK
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


def _raise_descriptor_limit(settings: Settings, journal: Journal) -> None:
    wanted = settings.maxclients + DESCRIPTORS_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < wanted:
        settings.maxclients = max(soft - DESCRIPTORS_RESERVED, 1)
        journal.write("warning", f"only {soft} open files are allowed: maxclients is now {settings.maxclients}")


def _founding_members(settings: Settings, me: Founder) -> list[Founder]:
    found = founders(settings) or [me]
    if all(founder.node_id != me.node_id for founder in found):
        msg = (
            f"cluster-nodes does not name this node, which is {me.host}:{me.port}@{me.cluster_port}: "
            "add it, or set cluster-announce-ip, cluster-announce-port and cluster-announce-bus-port to what the list says"
        )
        raise ConfigurationError(msg)
    return found


def secret_of(settings: Settings) -> bytes:
    """The cluster's secret. Without one a node talks to its own machine alone, where anybody may pose as a node."""
    if settings.cluster_secret:
        return settings.cluster_secret.encode("utf-8", "surrogateescape")
    for address in settings.bind:
        if not is_loopback(address.removeprefix("-")):
            msg = f"bind {address} is not loopback and no cluster-secret is set: anybody could pose as a node. Set one of 16 bytes or more"
            raise ConfigurationError(msg)
    return b"respkv on loopback without a secret"


def _open_directory(settings: Settings) -> DataDirectory:
    return DataDirectory(Path(settings.dir))


def _node_id(directory: DataDirectory, announced_here: Founder) -> NodeId:
    """The persisted id. A node that is announced under another address than before would be another member: it is refused."""
    node_id = announced_here.node_id
    kept = directory.small_files.get(NODE_FILE)
    if kept is None:
        write_atomic(state_path(directory.path, NODE_FILE), node_id.encode())
    elif kept.decode() != node_id:
        msg = (
            f"{directory.path} belongs to node {kept.decode()}, but {announced_here.host}:{announced_here.cluster_port} is {node_id}: "
            "start it with the address that it had, or give it another dir"
        )
        raise ConfigurationError(msg)
    return node_id


def _ring(directory: DataDirectory, settings: Settings, found: list[Founder]) -> Ring:
    kept = directory.small_files.get(RING_FILE)
    founding = first_ring([Member(founder.node_id, founder.zone) for founder in found], ring_size=settings.ring_size)
    if kept is None:
        write_atomic(state_path(directory.path, RING_FILE), founding.encode())
        return founding
    ring = decode_ring(kept)
    if ring.epoch == founding.epoch and ring != founding:
        msg = "cluster-nodes or ring-size differ from what this directory was founded with; both are fixed for a cluster's life"
        raise ConfigurationError(msg)
    return ring


def _recover(start: Start, journal: Journal, directory: DataDirectory, me: Founder) -> tuple[Node, Disk, dict[str, Any]]:
    """Read the disk back and build the node, and the shell of its disk."""
    settings = start.settings
    now, wall_ms = time.monotonic(), time.time_ns() // 1_000_000
    node_id = _node_id(directory, me)
    found = _founding_members(settings, me)
    ring = _ring(directory, settings, found)
    value = _cluster_value(start, journal, directory)
    store, clock = Store(ring_size=ring.size), HybridClock()
    store.floor = value.flush_floor.to_bytes(8) if value.flush_floor else b""
    store.bound(settings.maxmemory)
    hints = HintBook(bytes_max=settings.max_hints_size)
    recovery = directory.recover(owner=bytes.fromhex(node_id), options=TablesOptions(block_cache_bytes=settings.table_cache_size))
    restoration = Restoration(store=store, hints=hints, clock=clock, now=now)
    restoration.replay(recovery.replay())
    restoration.warm(recovery.tables.rows(), memory_bytes_max=settings.maxmemory)
    quorums = effective_quorums(value, members=len(ring.members))
    preference = preference_lists(ring)
    restored = restoration.owe_tail(me=node_id, primaries=lambda partition: preference[partition][: quorums.n])
    if recovery.report.torn_tail is not None:
        journal.write("notice", f"the log's tail was torn and is cut: {recovery.report.torn_tail}")
    for note in recovery.report.notes:
        journal.write("notice", note)
    _judge_damage(settings, journal, recovery.damages, replicas=quorums.n)
    was_complete = COMPLETE_NAME in directory.small_files and not recovery.damages
    log = recovery.open_log(segment_bytes_max=settings.commit_log_segment_size)
    if restored.owed:
        log.append_all(restored.owed)
    journal.write(
        "notice",
        f"restored {restored.rows_count} rows of the tables and {restored.log_records_count} records of the log in "
        f"{time.monotonic() - now:.2f} s; {restored.unconfirmed_count} keys are sent to the other replicas again",
    )
    facts = _facts(start, port=me.port, damages=recovery.damages)
    rng = random.SystemRandom()
    node = Node(
        me=node_id,
        actor=new_actor(rng),
        settings=settings,
        ring=ring,
        seeds=[
            MemberAddress(node=each.node_id, host=each.host, port=each.port, cluster_port=each.cluster_port, zone=each.zone)
            for each in found
        ],
        value=value,
        store=store,
        hints=hints,
        clock=clock,
        rng=random.Random(rng.random()),
        now=time.monotonic(),
        wall_ms=wall_ms,
        facts=facts,
    )
    if not was_complete and not settings.accept_data_loss:
        node.rebuild.begin("; ".join(recovery.damages) or "this node is new, or its directory was emptied")
    disk = Disk(log=log, tables=recovery.tables, directory=directory.path, post=lambda arrival: node_post(facts, arrival))
    return node, disk, facts


def _facts(start: Start, *, port: int, damages: list[str]) -> dict[str, Any]:
    """What INFO tells and only the shell knows; kept current by `housekeeping`."""
    conf_file = str(Path(start.conf_file).resolve()) if start.conf_file and start.conf_file != STANDARD_INPUT else ""
    return {
        "process_id": os.getpid(),
        "config_file": conf_file,
        "config": ConfigFile(conf_file) if conf_file else None,
        "executable": sys.executable,
        "tcp_port": port,
        "version": respkv.__version__,
        "os": " ".join(os.uname()[index] for index in (0, 2, 4)),
        "python_version": sys.version.split()[0],
        "damages": damages,
    }


def node_post(facts: dict[str, Any], arrival: turns.Arrival) -> None:
    """Hand an arrival to the reactor, which is made after the disk."""
    facts["post"](arrival)


def _cluster_value(start: Start, journal: Journal, directory: DataDirectory) -> ClusterValue:
    """The value that the disk holds beats the file; a difference is logged."""
    founding = cluster_value.founding_value(start.settings)
    kept = directory.small_files.get(VALUE_FILE)
    if kept is None:
        return founding
    value = cluster_value.merge(founding, cluster_value.decode(kept))
    for name, in_file, in_force in cluster_value.differences(start.settings, value):
        if name in start.given:
            journal.write("notice", f"{name} is {in_force}, as CONFIG SET made it, not {in_file} as the file says")
    changes.apply(start.settings, cluster_value.shared_settings(value))
    return value


def _judge_damage(settings: Settings, journal: Journal, damages: list[str], *, replicas: int) -> None:
    for damage in damages:
        journal.write("warning", f"durable data is missing or damaged: {damage}")
    if damages and replicas < 2 and not settings.accept_data_loss:
        msg = "there is no other replica to copy it from; `--accept-data-loss yes` starts with what is left"
        raise DamageError(msg)


def _calm_memory() -> None:
    """Records are no garbage: look for cycles rarely. And let one heap serve all threads, so that what one frees another can use.

    Measured with a million keys and `maxmemory 100mb`: 235 MB resident with one heap, 324 MB with the default of eight a core.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _run(start: Start, journal: Journal) -> int:
    settings = start.settings
    secret = secret_of(settings)
    _raise_descriptor_limit(settings, journal)
    clients = _listen(settings, settings.port)
    port = clients[0].getsockname()[1]
    peers = _listen(settings, settings.cluster_port or port + CLUSTER_PORT_OFFSET)
    me = announced(settings, port=port, cluster_port=peers[0].getsockname()[1])
    directory = _open_directory(settings)
    try:
        node, disk, facts = _recover(start, journal, directory, me)
        reactor = Reactor(node=node, disk=disk, settings=settings, secret=secret, on_event=journal.write)
        facts["post"] = reactor.post
        for listener in clients:
            reactor.listen(listener, for_peers=False)
        for listener in peers:
            reactor.listen(listener, for_peers=True)
        _calm_memory()
        journal.write("notice", f"node {node.me[:8]} serves clients on port {port}, nodes on {me.cluster_port}; data in {directory.path}")
        try:
            trio.run(_shells, reactor, disk, facts)
        except* StorageError as group:
            raise group.exceptions[0] if isinstance(group.exceptions[0], StorageError) else StorageError(str(group)) from None
        finally:
            reactor.close()
            disk.close()
        journal.write("notice", "stopped")
        return reactor.exit_code or EXIT_STOPPED
    finally:
        directory.close()


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
