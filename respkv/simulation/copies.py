"""What nodes hold of each key when a healed cluster is at rest, and what they say of all keys. Each check returns violations."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from respkv.commands.table import COMMANDS
from respkv.repair.remains import KEEP, REAP, SETTLE, plan
from respkv.simulation.clients import Reader
from respkv.storage.hash_trees import item_hash, waiting
from respkv.versions.records import ABSENT, HEADER_BYTES, expiry_of, holds_value, is_visible, without_expired_value
from respkv.versions.vectors import merge, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.server.node import Node
    from respkv.simulation.process import Process
    from respkv.simulation.world import World

EXPIRES_SOON_MS = 20_000


def held_record(process: Process, key: bytes) -> bytes:
    """What a node holds of a key, in memory or in its tables."""
    node = process.node
    assert node is not None
    partition = node.store.partition(key)
    record = node.store.shards[partition].get(key)
    if record is None:
        # What is gone from memory and not yet from the tables is gone.
        record = ABSENT if node.store.is_on_its_way(key) else process.disk.row(partition, key) or ABSENT
    return record if record >= node.store.floor else ABSENT


def newest_record(world: World, key: bytes) -> bytes:
    """What all primaries of a key know of it together."""
    return reduce(merge, (held_record(process, key) for process in world.primaries(key)), ABSENT)


def all_keys(world: World) -> list[bytes]:
    """Every key that any node has ever heard of."""
    found: set[bytes] = set()
    for process, node in world.nodes():
        for shard in node.store.shards:
            found.update(shard)
        found.update(process.disk.row_keys())
    return sorted(found)


def check_replicas(world: World) -> list[str]:
    """All primaries of a key hold the same bytes."""
    found = []
    for key in all_keys(world):
        records = {process.index: comparable(held_record(process, key), world) for process in world.primaries(key)}
        if len(set(records.values())) > 1:
            shown = ", ".join(f"n{index} {describe(record)}" for index, record in records.items())
            found.append(f"replicas of {key!r} differ: {shown}")
    return found


def comparable(record: bytes, world: World) -> bytes:
    """A record as it is compared: whether the bytes of an expired value are dropped already is each node's own business.

    With clocks an hour apart a node may have dropped what is still to expire on others: a wrong clock cannot be told from time.
    Who was not told that a deletion may go keeps it until anti-entropy brings it back to all: never, where that is off.
    """
    wall_ms = world.furthest_wall_ms()
    if world.scenario.reaps and not world.scenario.compares_trees:
        decided = plan(record, wall_ms=wall_ms) if record else KEEP
        record = {KEEP: record, REAP: ABSENT, SETTLE: settled(record)}[decided]
    return without_expired_value(record, wall_ms)


def describe(record: bytes) -> str:
    """A record in words."""
    if not record:
        return "absent"
    stamp = int.from_bytes(record[:8], "big")
    return f"{stamp >> 16}.{stamp & 0xFFFF}@{record[8:12].hex()} form {record[16]} {record[HEADER_BYTES:][:50]!r}"


def check_copies(world: World) -> list[str]:
    """Nobody keeps a copy that it only held for another node."""
    found = []
    for key in all_keys(world):
        owners = {process.index for process in world.primaries(key)}
        for process, _ in world.nodes():
            if process.index not in owners and held_record(process, key):
                found.append(
                    f"n{process.index} still holds {key!r}, which belongs to {sorted(owners)}: {describe(held_record(process, key))}"
                )
    return found


def check_trees(world: World) -> list[str]:
    """Each node's hash trees are those of what it holds, whichever way it came there."""
    found = []
    for process, node in world.nodes():
        trees, store = node.store.trees, node.store
        while not trees.take_in(store, waiting(store)):
            pass
        roots = [0] * len(store.shards)
        for key in all_keys(world):
            record = held_record(process, key)
            if record:
                roots[store.partition(key)] ^= item_hash(xxh64_intdigest(key), record)
        wrong = [partition for partition, root in enumerate(roots) if root != trees.roots[partition] and partition not in trees.spoilt]
        if wrong:
            found.append(f"n{process.index}: the hash trees of partitions {wrong} are not those of what it holds")
        if trees.corrected_total:
            found.append(f"n{process.index} found {trees.corrected_total} leaves of its hash trees wrong")
    return found


def check_surveys(world: World) -> list[str]:
    """DBSIZE and SCAN tell the same of the whole cluster, on every node: what is there."""
    if "SCAN" not in COMMANDS or "DBSIZE" not in COMMANDS:
        return []
    found = []
    records = {key: newest_record(world, key) for key in all_keys(world)}
    visible = {key for key, record in records.items() if is_visible(record, world.last_wall_ms())}
    surely = {key for key, record in records.items() if is_visible(record, world.furthest_wall_ms())}
    # What has expired while only the tables knew of it counts until somebody looks, as in Redis.
    stored = sum(holds_value(record) for record in records.values())
    for process in world.processes:
        reader = Reader(world, process)
        (size,) = reader.ask([b"DBSIZE"])
        if not isinstance(size, int) or not len(surely) <= size <= stored:
            found.append(f"DBSIZE on n{process.index} is {size}, there are {len(surely)} keys")
        scanned: list[bytes] = []
        cursor = b"0"
        while True:
            (reply,) = reader.ask([b"SCAN", cursor, b"COUNT", b"3"])
            if not isinstance(reply, list):
                found.append(f"SCAN {cursor!r} on n{process.index}: {reply!r}")
                break
            cursor = reply[0]
            scanned += reply[1]
            if cursor == b"0":
                break
        if not surely <= set(scanned) <= visible or len(scanned) != len(set(scanned)):
            found.append(f"SCAN on n{process.index} lacks {sorted(surely - set(scanned))}, has {sorted(set(scanned) - visible)} or twice")
        reader.connection.close()
    return found


def last_expiry_s(world: World) -> float:
    """How long to wait until no key is about to expire; those that expire much later do not matter."""
    now_ms = world.last_wall_ms()
    left_ms = [0]
    for key in all_keys(world):
        for process in world.primaries(key):
            when = expiry_of(held_record(process, key))
            if when is not None and when - now_ms < EXPIRES_SOON_MS:
                left_ms.append(when - now_ms)
    return max(left_ms) / 1000 + 2 * world.skew_now_s() + 0.5


def check_leftovers(world: World) -> list[str]:
    """Nothing is forgotten inside a node that is at rest."""
    found = []
    for process, node in world.nodes():
        found += [f"n{process.index}: {text}" for text in (*_leftovers(node), *_miscounts(process, node))]
    return found


def _leftovers(node: Node) -> Iterator[str]:
    if len(node.operations.queue):
        yield f"{len(node.operations.queue)} keys are still locked"
    if node.coordinator.waiting_count:
        yield f"{node.coordinator.waiting_count} requests are still counted as waiting"
    for number, session in node.clients.items():
        if session.pending or session.backlog:
            yield f"client {number} still waits for {len(session.pending)} replies, {len(session.backlog)} commands are not begun"
    if node.statistics.internal_errors_total:
        yield f"{node.statistics.internal_errors_total} internal errors"


def _miscounts(process: Process, node: Node) -> Iterator[str]:
    keys = {key for shard in node.store.shards for key in shard}
    if not node.store.resident:
        keys |= process.disk.row_keys()
    counted, held = sum(node.store.live), sum(holds_value(held_record(process, key)) for key in keys)
    if held != counted:
        yield f"{counted} live keys are counted, {held} are there"
