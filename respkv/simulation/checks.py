"""What must be true after a run, whatever happened in it. Each check returns the violations that it found.

Rule 1: a check claims only what the configuration promises. Two writes of a key have an order that clients may rely on where
their quorums share a replica that remembers; where they do not, clocks decide, and those are known up to their skew.
Rule 2: what may have happened (no answer, TIMEOUT) may happen at any later time. What was refused never happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.table import COMMANDS
from respkv.server.cluster import FLUSH_LEAD_MS
from respkv.simulation.clients import Reader
from respkv.simulation.history import NEVER, Read, Register, Request, Write
from respkv.versions.records import ABSENT, HEADER_BYTES, expiry_of, is_visible, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.server.node import Node
    from respkv.simulation.process import Process
    from respkv.simulation.world import World

SAME_MOMENT_S = 0.003
"""Clocks tell milliseconds: writes that are closer than this may have either order."""
UNSYNCED_S = 2.5
"""What was appended this long before a power cut may not be synced."""
VIOLATIONS_MAX = 12
EXPIRES_SOON_MS = 20_000


def check_all(world: World) -> list[str]:
    """Every check, on a cluster that was healed and is at rest."""
    found = list(world.problems)
    for check in (
        check_replicas,
        check_copies,
        check_registers,
        check_counters,
        check_appends,
        check_locks,
        check_patience,
        check_leftovers,
    ):
        found += check(world)
        if len(found) > VIOLATIONS_MAX:
            return [*found[:VIOLATIONS_MAX], f"... and {len(found) - VIOLATIONS_MAX} more"]
    return found


# --- the cluster's own state


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
    """A record as it is compared: whether the bytes of an expired value are dropped already is each node's own business."""
    return record[:34] if len(record) > 34 and record[16] == 2 and value_of(record, world.last_wall_ms()) is None else record


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


def check_surveys(world: World) -> list[str]:
    """DBSIZE and SCAN tell the same of the whole cluster, on every node: what is there."""
    if "SCAN" not in COMMANDS or "DBSIZE" not in COMMANDS:
        return []
    found = []
    wall_ms = world.last_wall_ms()
    records = {key: max(held_record(process, key) for process in world.primaries(key)) for key in all_keys(world)}
    visible = {key for key, record in records.items() if is_visible(record, wall_ms)}
    # What has expired while only the tables knew of it counts until somebody looks, as in Redis.
    stored = sum(bool(record) and has_value(record) for record in records.values())
    for process in world.processes:
        reader = Reader(world, process)
        (size,) = reader.ask([b"DBSIZE"])
        if not isinstance(size, int) or not len(visible) <= size <= stored:
            found.append(f"DBSIZE on n{process.index} is {size}, there are {len(visible)} keys")
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
        if set(scanned) != visible or len(scanned) != len(visible):
            found.append(f"SCAN on n{process.index} lacks {sorted(visible - set(scanned))}, has {sorted(set(scanned) - visible)} or twice")
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
    return max(left_ms) / 1000 + 2 * world.skew_s() + 0.5


def check_leftovers(world: World) -> list[str]:
    """Nothing is forgotten inside a node that is at rest."""
    found = []
    for process, node in world.nodes():
        found += [f"n{process.index}: {text}" for text in _leftovers(node)]
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
    counted = sum(node.store.live)
    if node.store.resident:
        held = sum(
            1 for shard in node.store.shards for record in shard.values() if record and record >= node.store.floor and has_value(record)
        )
        if held != counted:
            yield f"{counted} live keys are counted, {held} are there"


def has_value(record: bytes) -> bool:
    """Whether value bytes are stored."""
    return record[16] == 1 or (record[16] == 2 and len(record) > 34)


# --- what clients were told


class Order:
    """Which writes of a key clients may rely on to be later than which."""

    def __init__(self, world: World) -> None:
        """The rule of the scenario."""
        scenario = world.scenario
        self.is_overlapping = scenario.writes_overlap
        self.reads_overlap = scenario.reads_overlap
        self.skew_s = world.skew_s()
        self.flush_slack_s = self.skew_s + FLUSH_LEAD_MS / 1000 + SAME_MOMENT_S
        self.slack_s = 0.0 if self.is_overlapping else self.skew_s + SAME_MOMENT_S

    def is_before(self, first: Write, second: Write) -> bool:
        """Whether `first` was over before `second` began, and clocks cannot have turned them round."""
        slack_s = self.flush_slack_s if first.is_flush or second.is_flush else self.slack_s
        if first.done + slack_s < second.invoked:
            return True
        left, right = first.request, second.request
        if left is None or right is None or not first.is_certain or slack_s:
            return False
        return left.connection == right.connection and left.order < right.order

    def is_superseded(self, write: Write, by: list[Write]) -> Write | None:
        """An acknowledged write among these that is later than `write`."""
        return next((other for other in by if other.is_certain and other is not write and self.is_before(write, other)), None)


def check_registers(world: World) -> list[str]:
    """Reads and final values of keys whose writes give whole values."""
    order = Order(world)
    found: list[str] = []
    for key, register in sorted(world.history.registers().items()):
        found += check_values(key, register)
        if key[:1] != b"r":
            continue
        if order.reads_overlap:
            for read in register.reads:
                found += check_read(key, register, read, order)
        found += check_final(world, key, register, order)
        found += check_expiry(world, key, register, order)
    return found


def check_values(key: bytes, register: Register) -> list[str]:
    """What was read was written to this key, before the read ended, and not refused."""
    found = []
    by_value = {write.value: write for write in register.writes if write.value is not None}
    for read in register.reads:
        if read.value is None:
            continue
        write = by_value.get(read.value)
        if read.value in register.refused:
            found.append(f"{key!r}: a refused write is visible: {read.value[:40]!r} read by {read.request}")
        elif write is None:
            found.append(f"{key!r}: {read.value[:40]!r} was never written there: read by {read.request}")
        elif write.invoked > read.request.replied or follows(write.request, read.request):
            found.append(f"{key!r}: a value was read before it was written: {write} read by {read.request}")
    return found


def follows(later: Request | None, earlier: Request) -> bool:
    """Whether a request came after another one of its connection."""
    return later is not None and later.connection == earlier.connection and later.order > earlier.order


def check_read(key: bytes, register: Register, read: Read, order: Order) -> list[str]:
    """A read whose quorum meets that of every write answers nothing that was superseded before it began."""
    request = read.request
    certain = [
        write
        for write in register.writes
        if write.is_certain and (write.done < request.invoked or (write.request is not None and follows(request, write.request)))
    ]
    blame: Write | None = None
    for write in register.writes:
        if write.invoked > request.replied or (write.request is not None and follows(write.request, request)):
            continue
        if not explains(write, read, order):
            continue
        superseded_by = order.is_superseded(write, certain)
        if superseded_by is None:
            return []
        blame = superseded_by
    return [f"{key!r}: a read is older than an acknowledged write: {request} but {blame}"]


def explains(write: Write, read: Read, order: Order) -> bool:
    """Whether a write may be what a read saw."""
    if write.value == read.value:
        return True
    expires = write.ttl_s is not None and read.value is None
    return expires and read.request.replied >= write.invoked + (write.ttl_s or 0.0) - order.skew_s - SAME_MOMENT_S


def check_final(world: World, key: bytes, register: Register, order: Order) -> list[str]:
    """What is left in the end was not superseded by an acknowledged write."""
    record = max(held_record(process, key) for process in world.primaries(key))
    value = value_of(record, world.last_wall_ms())
    if value is not None and value in register.refused:
        return [f"{key!r}: a refused write is the final value: {value[:40]!r}"]
    lasting = [write for write in register.writes if not may_be_lost(world, write)]
    blame: Write | None = None
    for write in register.writes:
        expired = write.ttl_s is not None and value is None
        if write.value != value and not expired:
            continue
        superseded_by = order.is_superseded(write, lasting)
        if superseded_by is None:
            return []
        blame = superseded_by
    if blame is None:
        return [f"{key!r}: the final value {value!r:.40} was never written"]
    return [f"{key!r}: an acknowledged write is lost: {blame}; the final value is {describe(record)}"]


def may_be_lost(world: World, write: Write) -> bool:
    """Whether power cuts and deleted directories may have taken a write from all who acknowledged it."""
    if write.request is None:
        return False
    count = world.scenario.least_w
    # Of several deleted directories only the last one's losses are not yet copied back.
    gone = {index for when, index in world.wipes[-1:] if when >= write.invoked}
    if world.scenario.loses_power:
        # One node alone may have handed it on to another one that lost it later.
        until = NEVER if count == 1 else write.done + UNSYNCED_S
        gone |= {index for when, index in world.power_cuts if write.invoked <= when <= until}
    return len(gone) >= count


def check_expiry(world: World, key: bytes, register: Register, order: Order) -> list[str]:
    """A value that was given a time to live is not seen after it."""
    found = []
    for write in register.writes:
        if write.ttl_s is None or write.done == NEVER:
            continue
        end = write.done + write.ttl_s + order.skew_s + SAME_MOMENT_S
        found += [
            f"{key!r}: an expired value is visible: {write} read by {read.request}"
            for read in register.reads
            if read.value == write.value and read.request.invoked > end
        ]
    return found


def check_counters(world: World) -> list[str]:
    """Increments are never made twice; on a healthy cluster none is lost."""
    found = []
    for key, counter in sorted(world.history.counters().items()):
        final = int(value_of(max(held_record(process, key) for process in world.primaries(key)), world.last_wall_ms()) or 0)
        if final > counter.attempted:
            found.append(f"{key!r} is {final}, but only {counter.attempted} was ever added")
        if world.scenario.counts_exactly and final < counter.done:
            found.append(f"{key!r} is {final}, but {counter.done} was added and acknowledged")
        found += [f"{key!r}: {request} is more than {counter.attempted}" for request, value in counter.values if value > counter.attempted]
        if world.scenario.counts_exactly:
            results = [value for request, value in counter.values if request.arguments[0] != b"GET"]
            if len(set(results)) < len(results):
                found.append(f"{key!r}: two increments gave the same result")
    return found


def check_appends(world: World) -> list[str]:
    """Pieces are never there twice nor out of nothing; on a healthy cluster all are there, and reads are prefixes of the end."""
    found = []
    for key, (surely, maybe, reads) in sorted(world.history.appends().items()):
        final = value_of(max(held_record(process, key) for process in world.primaries(key)), world.last_wall_ms()) or b""
        for request, value in [*((request, value) for request, value in reads), (None, final)]:
            pieces = value.split(b",")[:-1]
            if len(set(pieces)) < len(pieces):
                found.append(f"{key!r}: a piece was appended twice: {value[-80:]!r} {request or 'at the end'}")
            if not {piece + b"," for piece in pieces} <= surely | maybe:
                found.append(f"{key!r} has a piece that was never appended, or refused: {value[-80:]!r} {request or 'at the end'}")
            if world.scenario.counts_exactly and not final.startswith(value):
                found.append(f"{key!r}: {request} is no prefix of the end {final[-80:]!r}")
        missing = surely - {piece + b"," for piece in final.split(b",")}
        if world.scenario.counts_exactly and missing:
            found.append(f"{key!r} lacks pieces that were acknowledged: {sorted(missing)[:5]}")
    return found


def check_locks(world: World) -> list[str]:
    """On a healthy cluster SET NX has one winner."""
    if not world.scenario.counts_exactly:
        return []
    found = []
    for key, register in sorted(world.history.registers().items()):
        winners = [write for write in register.writes if write.is_certain and write.request is not None] if key[:1] == b"n" else []
        if len(winners) > 1:
            found.append(f"{key!r} was won by {' and '.join(map(str, winners))}")
    return found


def check_patience(world: World) -> list[str]:
    """Every request is answered in time, counted from when its turn had come, while the node that was asked runs."""
    found = []
    bound_s = world.patience_s()
    for request in world.history.requests:
        if request.is_queued:
            continue
        # Commands of one transaction that touch one key wait for each other.
        allowed_s = bound_s * (1 + len(request.transaction or ()))
        begun = max(request.invoked, request.expected_after)
        waited = request.replied - begun if request.replied < NEVER else 0.0
        stopped = world.processes[request.node].stopped_between(begun, request.replied)
        if waited - stopped > allowed_s:
            found.append(f"answered after {waited:.2f} s (bound {allowed_s:.2f} s): {request}")
    found += [f"never answered: {request}" for request in world.unanswered()]
    return found


CHECKS = (
    check_replicas,
    check_copies,
    check_registers,
    check_counters,
    check_appends,
    check_locks,
    check_patience,
    check_leftovers,
)
