"""What clients were told, against what the configuration promises them. Each check returns the violations that it found.

Rule 1: a check claims only what is promised. Two writes of a key have an order that clients may rely on where
their quorums share a replica that remembers; where they do not, clocks decide, and those are known up to their skew.
Rule 2: what may have happened (no answer, TIMEOUT) may happen at any later time. What was refused never happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.server.cluster import FLUSH_LEAD_MS
from respkv.simulation.copies import describe, newest_record
from respkv.simulation.history import NEVER, Read, Register, Request, Write
from respkv.versions.records import value_of

if TYPE_CHECKING:
    from respkv.simulation.world import World

SAME_MOMENT_S = 0.003
"""Clocks tell milliseconds: writes that are closer than this may have either order."""
UNSYNCED_S = 2.5
"""What was appended this long before a power cut may not be synced."""


class Order:
    """Which writes of a key clients may rely on to be later than which."""

    def __init__(self, world: World) -> None:
        """The rule of the scenario."""
        scenario = world.scenario
        self.is_overlapping = scenario.writes_overlap
        self.reads_overlap = scenario.reads_overlap
        self.skew_s = world.skew_s()
        self.flushes_at_once = scenario.is_healthy
        """Whether no node can have been away when FLUSHALL was answered: who is away learns of it when it is back."""
        self.flush_slack_s = self.skew_s + FLUSH_LEAD_MS / 1000 + SAME_MOMENT_S
        self.slack_s = 0.0 if self.is_overlapping else self.skew_s + SAME_MOMENT_S

    def is_before(self, first: Write, second: Write) -> bool:
        """Whether `first` was over before `second` began, and clocks cannot have turned them round.

        Where clocks are apart and the answer to `second` takes long, nobody can tell whether `first` met it on its way.
        """
        slack_s = self.flush_slack_s if first.is_flush or second.is_flush else self.slack_s
        if first.done + max(slack_s, min(second.done - second.invoked, self.skew_s)) < second.invoked:
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
        if key[:1] not in b"re":
            continue
        found += check_expiry(key, register, order)
        if world.scenario.keeps_all_siblings and may_expire(register):
            # Behind a value that has expired an earlier one shows, where its writer had not read that.
            continue
        if order.reads_overlap:
            for read in register.reads:
                found += check_read(key, register, read, order)
            found += check_deadlines(key, register, order)
        if world.scenario.reads_are_monotonic:
            found += check_monotonic(key, register, late_s=world.patience_s())
        found += check_final(world, key, register, order)
    return found


def may_expire(register: Register) -> bool:
    """Whether a value of the key was ever given a time to live."""
    return bool(register.deadlines) or any(write.ttl_s is not None for write in register.writes)


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
        if write.is_certain
        and (order.flushes_at_once or not write.is_flush)
        and (write.done < request.invoked or (write.request is not None and follows(request, write.request)))
    ]
    blame: Write | None = None
    for write in register.writes:
        if write.invoked > request.replied or (write.request is not None and follows(write.request, request)):
            continue
        if not explains(write, read, register, order):
            continue
        superseded_by = order.is_superseded(write, certain)
        if superseded_by is None:
            return []
        blame = superseded_by
    return [f"{key!r}: a read is older than an acknowledged write: {request} but {blame}"]


def check_monotonic(key: bytes, register: Register, *, late_s: float) -> list[str]:
    """Once another value was read, no later read sees again what was there before. Values are never written twice.

    A write that timed out may be given a later place for as long as nodes still work on it.
    """
    found = []
    for write in register.writes:
        seen = [read for read in register.reads if read.value == write.value]
        if write.request is None or write.value is None or not seen:
            continue
        known = write.done
        if not write.is_certain:
            known = max(write.request.replied + late_s, min(read.request.replied for read in seen))
        last = max(seen, key=lambda read: read.request.invoked)
        found += [
            f"{key!r}: a read is older than one before it: {last.request} after {read.request}"
            for read in register.reads
            if read.value not in {None, write.value} and known < read.request.invoked and read.request.replied < last.request.invoked
        ]
    return found


def explains(write: Write, read: Read, register: Register, order: Order) -> bool:
    """Whether a write may be what a read saw."""
    if write.value == read.value:
        return True
    if read.value is not None:
        return False
    latest = read.request.replied + order.skew_s + SAME_MOMENT_S
    if write.ttl_s is not None and latest >= write.invoked + write.ttl_s:
        return True
    return any(deadline.ttl_s is not None and latest >= deadline.request.invoked + deadline.ttl_s for deadline in register.deadlines)


def check_final(world: World, key: bytes, register: Register, order: Order) -> list[str]:
    """What is left in the end was not superseded by an acknowledged write."""
    record = newest_record(world, key)
    value = value_of(record, world.last_wall_ms())
    if value is not None and value in register.refused:
        return [f"{key!r}: a refused write is the final value: {value[:40]!r}"]
    lasting = [write for write in register.writes if not may_be_lost(world, write)]
    blame: Write | None = None
    for write in register.writes:
        expired = value is None and (write.ttl_s is not None or any(deadline.ttl_s is not None for deadline in register.deadlines))
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
    count = world.least_w
    # Of several deleted directories only the last one's losses are not yet copied back; but what stand-ins held never is,
    # nor what others have lost with their power.
    wipes = world.wipes[-1:] if world.scenario.is_strict and not world.scenario.loses_power else world.wipes
    gone = {index for when, index in wipes if when >= write.invoked}
    if world.scenario.loses_power:
        # One node alone may have handed it on to another one that lost it later; and where nobody syncs, nothing is ever safe.
        until = NEVER if count == 1 or world.scenario.directives.get("appendfsync") == "no" else write.done + UNSYNCED_S
        gone |= {index for when, index in world.power_cuts if write.invoked <= when <= until}
    return len(gone) >= count


def check_expiry(key: bytes, register: Register, order: Order) -> list[str]:
    """A value that was written with a time to live is not seen after it, unless somebody changed that."""
    found = []
    for write in register.writes:
        if write.ttl_s is None or write.done == NEVER or register.deadlines:
            continue
        end = write.done + write.ttl_s + order.skew_s + SAME_MOMENT_S
        found += [
            f"{key!r}: an expired value is visible: {write} read by {read.request}"
            for read in register.reads
            if read.value == write.value and read.request.invoked > end
        ]
    return found


def check_deadlines(key: bytes, register: Register, order: Order) -> list[str]:
    """A value that was there when it was given a time to live is not seen after it, unless somebody changed that again."""
    found = []
    by_value = {write.value: write for write in register.writes if write.value is not None}
    for deadline in register.deadlines:
        request = deadline.request
        if deadline.ttl_s is None or not deadline.is_certain:
            continue
        others = [other.request for other in register.deadlines if other is not deadline]
        change = min((other.invoked for other in others if other.replied + order.slack_s >= request.invoked), default=NEVER)
        end = request.replied + deadline.ttl_s + order.skew_s + SAME_MOMENT_S
        for read in register.reads:
            write = by_value.get(read.value) if read.value is not None else None
            if (
                write is not None
                and write.done + order.slack_s < request.invoked
                and end < read.request.invoked
                and read.request.replied < change
            ):
                found.append(f"{key!r}: an expired value is visible: {request} but {read.request}")
    return found


def check_counters(world: World) -> list[str]:
    """Increments are never made twice; on a healthy cluster none is lost."""
    found = []
    for key, counter in sorted(world.history.counters().items()):
        final = int(value_of(newest_record(world, key), world.last_wall_ms()) or 0)
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
        final = value_of(newest_record(world, key), world.last_wall_ms()) or b""
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
