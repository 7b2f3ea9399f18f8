"""Read a node's directory back, and build the node from it and from its settings."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import respkv
from respkv.commands.configuration import DAMAGES_FILE
from respkv.compilation import finder
from respkv.config import changes, cluster_value
from respkv.config.cluster_value import ClusterValue, effective_quorums, effective_replication, mark_of
from respkv.config.founders import Founder, founders
from respkv.config.start import STANDARD_INPUT, Start
from respkv.errors import ConfigurationError, DamageError
from respkv.ids import NodeId, new_actor
from respkv.membership.members import MemberAddress
from respkv.placement.ring import Member, Ring, decode_ring, first_ring, preference_lists
from respkv.repair.hints import HintBook
from respkv.server.cluster import RING_FILE, VALUE_FILE
from respkv.server.config_file import ConfigFile
from respkv.server.disk import Disk
from respkv.server.downtime import SEEN_FILE
from respkv.server.node import Node
from respkv.server.rebuild import SET_ASIDE_FILE
from respkv.server.resizing import DONE_FILE
from respkv.server.restore import Restoration, Restored
from respkv.storage.directory import COMPLETE_NAME, DAMAGE_KNOWN_NAME, DataDirectory, Recovery, state_path
from respkv.storage.files import write_atomic
from respkv.storage.store import Store
from respkv.storage.tables import TablesOptions
from respkv.versions.clock import HybridClock

if TYPE_CHECKING:
    from respkv.config.settings import Settings
    from respkv.server.journal import Journal

NODE_FILE = "node-id"
DAMAGES_KEPT_MAX = 1000


def _founding_members(settings: Settings, me: Founder) -> list[Founder]:
    found = founders(settings) or [me]
    if all(founder.node_id != me.node_id for founder in found):
        msg = (
            f"cluster-nodes does not name this node, which is {me.host}:{me.port}@{me.cluster_port}: "
            "add it, or set cluster-announce-ip, cluster-announce-port and cluster-announce-bus-port to what the list says"
        )
        raise ConfigurationError(msg)
    listed = next(founder for founder in found if founder.node_id == me.node_id)
    if settings.availability_zone and settings.availability_zone != listed.zone:
        msg = f"availability-zone is {settings.availability_zone!r}, but cluster-nodes puts this node into zone {listed.zone!r}"
        raise ConfigurationError(msg)
    return found


def _node_id(directory: DataDirectory, announced_here: Founder) -> NodeId:
    """The persisted id. A node that is announced under another address than before would be another member: it is refused."""
    node_id = announced_here.node_id
    kept = directory.small_files.get(NODE_FILE)
    if kept is None:
        write_atomic(state_path(directory.path, NODE_FILE), node_id.encode())
        directory.small_files[NODE_FILE] = node_id.encode()
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
    if ring.epoch == founding.epoch:
        _check_founding(ring, founding)
    return ring


def _check_founding(kept: Ring, founding: Ring) -> None:
    """Raise ConfigurationError if a directory was founded with other nodes, or another ring size.

    Who owns which partition may differ: another release may have shared them out. What the directory says is in force.
    """
    if kept.size != founding.size:
        msg = f"ring-size is {founding.size}, but this directory was founded with {kept.size}: it is fixed for a cluster's life"
        raise ConfigurationError(msg)
    if kept.members != founding.members:
        told = [
            ", ".join(f"{member.node[:8]}{' in ' + member.zone if member.zone else ''}" for member in ring.members)
            for ring in (founding, kept)
        ]
        msg = f"cluster-nodes names {told[0]}, but this directory was founded with {told[1]}: they are fixed for a cluster's life"
        raise ConfigurationError(msg)


def _tables_options(settings: Settings) -> TablesOptions:
    """Where few open files are allowed, the tables have a quarter of them; half is left for clients."""
    open_files_max = min(TablesOptions().open_files_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    return TablesOptions(block_cache_bytes=settings.table_cache_size, open_files_max=open_files_max)


@dataclass(frozen=True, slots=True)
class _ReadBack:
    """What a directory held."""

    store: Store
    hints: HintBook
    clock: HybridClock
    recovery: Recovery
    restored: Restored


def _read_back(settings: Settings, directory: DataDirectory, *, ring: Ring, value: ClusterValue, now: float) -> _ReadBack:
    """Replay the log, then take in the tables. Raises DamageError if the tables turn out damaged: they are rebuilt the next time."""
    node_id = directory.small_files[NODE_FILE].decode()
    store, clock = Store(ring_size=ring.size), HybridClock()
    store.floor = value.flush_floor.to_bytes(8) if value.flush_floor else b""
    store.bound(settings.maxmemory)
    hints = HintBook(bytes_max=settings.max_hints_size)
    recovery = directory.recover(owner=bytes.fromhex(node_id), options=_tables_options(settings))
    restoration = Restoration(store=store, hints=hints, clock=clock, now=now)
    damage = ""
    try:
        restoration.replay(recovery.replay())
        restoration.warm(recovery.rows(), memory_bytes_max=settings.maxmemory)
    except DamageError as error:
        damage = str(error)
    if damage:
        # Out here: an error's traceback holds the iterator over the tables, and that would keep them open.
        recovery.close()
        raise DamageError(damage)
    stored_n = effective_replication(value, members=len(ring.members)).stored_n
    preference = preference_lists(ring)
    restored = restoration.owe_tail(me=node_id, primaries=lambda partition: preference[partition][:stored_n])
    return _ReadBack(store, hints, clock, recovery, restored)


def _set_aside_if_marked(directory: DataDirectory, journal: Journal, value: ClusterValue, node_id: NodeId) -> int:
    """Set aside what the directory holds if the cluster's value wants that. Returns the stamp of the last mark that was acted on."""
    mark, done = mark_of(value, node_id), int(directory.small_files.get(SET_ASIDE_FILE, b"0"))
    if mark <= done:
        return done
    is_damaged = DAMAGE_KNOWN_NAME in directory.small_files and COMPLETE_NAME not in directory.small_files
    reason = (
        "its data was damaged, and others have all of it" if is_damaged else "it was away for too long, or an operator wants it rebuilt"
    )
    directory.set_aside_data(DONE_FILE, SEEN_FILE)
    write_atomic(state_path(directory.path, SET_ASIDE_FILE), b"%d" % mark)
    text = "what this node held is in log.set-aside and tables.set-aside; it is not read any more and may be deleted"
    journal.write("warning", f"{text}: {reason}")
    return mark


def _damages_so_far(directory: DataDirectory, found: list[str]) -> list[str]:
    """What this start and those before it have found damaged: it stays known when all is rebuilt."""
    so_far = directory.small_files.get(DAMAGES_FILE, b"").decode(errors="replace").splitlines()
    if found:
        so_far = [*so_far, *(" ".join(damage.splitlines()) for damage in found)][-DAMAGES_KEPT_MAX:]
        write_atomic(state_path(directory.path, DAMAGES_FILE), "\n".join(so_far).encode(errors="replace"))
    return so_far


def _tell(journal: Journal, back: _ReadBack, *, seconds: float) -> None:
    report, restored = back.recovery.report, back.restored
    if report.torn_tail is not None:
        journal.write("notice", f"the log's tail was torn and is cut: {report.torn_tail}")
    for note in report.notes:
        journal.write("notice", note)
    journal.write(
        "notice",
        f"restored {restored.rows_count} rows of the tables and {restored.log_records_count} records of the log in {seconds:.2f} s; "
        f"{restored.unconfirmed_count} keys are sent to the other replicas again",
    )


def build(start: Start, journal: Journal, directory: DataDirectory, me: Founder) -> tuple[Node, Disk, dict[str, Any]]:
    """Read the disk back and build the node and the shell of its disk. The dictionary is what INFO reads of the shell."""
    settings = start.settings
    now = time.monotonic()
    node_id = _node_id(directory, me)
    found = _founding_members(settings, me)
    ring = _ring(directory, settings, found)
    value = _cluster_value(start, journal, directory)
    set_aside = _set_aside_if_marked(directory, journal, value, node_id)
    back: _ReadBack | None = None
    try:
        back = _read_back(settings, directory, ring=ring, value=value, now=now)
    except DamageError as error:
        journal.write("warning", f"{error}; rebuilding the tables from what can be read of them")
    back = back or _read_back(settings, directory, ring=ring, value=value, now=now)
    _tell(journal, back, seconds=time.monotonic() - now)
    damages = back.recovery.damages
    _judge_damage(settings, journal, damages, replicas=effective_quorums(value, members=len(ring.members)).n)
    is_complete = COMPLETE_NAME in directory.small_files and not damages
    log = back.recovery.open_log(segment_bytes_max=settings.commit_log_segment_size)
    if back.restored.owed:
        log.append_all(back.restored.owed)
    facts = _facts(start, port=me.port, damages=_damages_so_far(directory, damages))
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
        store=back.store,
        hints=back.hints,
        clock=back.clock,
        rng=random.Random(rng.random()),
        now=time.monotonic(),
        wall_ms=time.time_ns() // 1_000_000,
        facts=facts,
    )
    if not is_complete and (not settings.accept_data_loss or mark_of(value, node_id)):
        is_damaged = bool(damages) or DAMAGE_KNOWN_NAME in directory.small_files
        if mark_of(value, node_id):
            reason = "what it held was set aside"
        elif is_damaged:
            reason = "an earlier start found damage, and the rebuilding that it began did not come to its end"
        else:
            reason = "this node is new, or its directory was emptied"
        node.rebuild.begin("; ".join(damages) or reason, is_damaged=is_damaged)
    node.rebuild.set_aside = set_aside
    node.resizing.restore(directory.small_files.get(DONE_FILE, b""))
    node.downtime.restore(directory.small_files.get(SEEN_FILE, b""))
    disk = Disk(log=log, tables=back.recovery.tables, directory=directory.path, post=lambda arrival: facts["post"](arrival))  # noqa: PLW0108 - the reactor comes later
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
        "code": finder.describe(),
        "damages": damages,
    }


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
