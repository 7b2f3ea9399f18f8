"""What is promised of keys that keep siblings: no value is lost that nobody replaced, and what was replaced is gone. Pure.

Who writes a key of the family `s` says what it has seen, so nothing has to be guessed: a value may be gone only if a write
that had seen it came, and must be gone if such a write was acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from respkv.simulation.copies import describe, held_record
from respkv.simulation.history import NEVER, History, Outcome, Register, Request, Write
from respkv.simulation.promises import SAME_MOMENT_S, may_be_lost
from respkv.simulation.workload import blind_context
from respkv.versions.records import siblings_in, value_of

if TYPE_CHECKING:
    from respkv.simulation.world import World


@dataclass(slots=True)
class Story:
    """What happened to one key of the family `s`."""

    seen: dict[bytes, frozenset[bytes]]
    """By context: the values that came with it."""
    writes: dict[bytes, Request] = field(default_factory=dict)
    """By the value that it wrote: no two write the same."""
    reads: list[tuple[Request, list[bytes]]] = field(default_factory=list)

    @classmethod
    def of(cls, key: bytes) -> Story:
        """The story of a key to which nothing has happened."""
        return cls({blind_context(key): frozenset()})

    def replacements(self, value: bytes) -> list[Request]:
        """The writes that had seen a value."""
        return [write for write in self.writes.values() if value in self.seen[write.arguments[3]] and write.outcome is not Outcome.REFUSED]


def stories(history: History) -> dict[bytes, Story]:
    """What happened to each key of the family `s`."""
    found: dict[bytes, Story] = {}
    for request in history.requests:
        match request.arguments:
            case [b"RESPKV", b"SIBLINGS", key]:
                story = found.setdefault(key, Story.of(key))
                if isinstance(request.reply, list):
                    context, values = request.reply
                    story.reads.append((request, values))
                    story.seen.setdefault(context, frozenset(values))
            case [b"RESPKV", b"RESOLVE", key, _, value]:
                found.setdefault(key, Story.of(key)).writes[value] = request
            case _:
                pass
    return found


def final_values(world: World, key: bytes) -> set[bytes]:
    """The values that a key holds in the end."""
    record = max(held_record(process, key) for process in world.primaries(key))
    wall_ms = world.last_wall_ms()
    return {value for sibling in siblings_in(record) if (value := value_of(sibling, wall_ms)) is not None}


def check_siblings(world: World) -> list[str]:
    """All that is promised of keys that keep siblings."""
    if not world.scenario.keeps_siblings:
        return []
    found: list[str] = []
    reads_overlap = world.scenario.reads_overlap
    for key, story in sorted(stories(world.history).items()):
        found += check_contexts(key, story)
        found += check_story(world, key, story)
        if reads_overlap:
            found += check_sibling_reads(world, key, story)
    for key, register in sorted(world.history.registers().items()):
        if key[:1] == b"u" or (key[:1] in b"re" and world.scenario.keeps_all_siblings):
            found += check_last_write(world, key, register)
        if key[:1] == b"o":
            found += check_last_write(world, key, register)
            found += check_single_writer(world, key, register)
    return found


def check_contexts(key: bytes, story: Story) -> list[str]:
    """Who has seen the same has seen the same values; and nothing is there that nobody wrote, or that was refused."""
    found = []
    for request, values in story.reads:
        assert isinstance(request.reply, list)
        before = story.seen[request.reply[0]]
        if before != frozenset(values):
            found.append(f"{key!r}: one context came with two sets of values: {sorted(before)} and {request}")
        for value in values:
            write = story.writes.get(value)
            if write is None or write.outcome is Outcome.REFUSED or write.invoked > request.replied:
                found.append(f"{key!r}: {value[:40]!r} was never written, refused, or not yet written ({write}): {request}")
    return found


def check_story(world: World, key: bytes, story: Story) -> list[str]:
    """In the end a value is there if it was acknowledged and no write had seen it, and is not there if such a write was acknowledged."""
    final = final_values(world, key)
    found = []
    for value, write in story.writes.items():
        replacements = story.replacements(value)
        if value in final:
            done = [other for other in replacements if other.outcome is Outcome.DONE and not is_excused(world, other)]
            if write.outcome is Outcome.REFUSED:
                found.append(f"{key!r}: a refused write is there in the end: {write}")
            elif done:
                found.append(f"{key!r}: a replaced value is there again: {write} was replaced by {done[0]}")
        elif write.outcome is Outcome.DONE and not replacements and not is_excused(world, write):
            record = max(held_record(process, key) for process in world.primaries(key))
            found.append(f"{key!r}: an acknowledged value is lost that nobody had seen: {write}; at the end {describe(record)}")
    return found


def check_sibling_reads(world: World, key: bytes, story: Story) -> list[str]:
    """Where quorums overlap, the same holds for each read and what was acknowledged before it began."""
    found = []
    replacements = {value: story.replacements(value) for value in story.writes}
    for request, values in story.reads:
        for value, write in story.writes.items():
            if value in values:
                done = [other for other in replacements[value] if is_done_before(other, request) and not is_excused(world, other)]
                if done:
                    found.append(f"{key!r}: a replaced value is read: {write} was replaced by {done[0]} before {request}")
                continue
            may_be_gone = any(other.invoked < request.replied for other in replacements[value])
            if is_done_before(write, request) and not may_be_gone and not is_excused(world, write):
                found.append(f"{key!r}: a read lacks an acknowledged value that nobody had seen: {write} before {request}")
    return found


def is_done_before(write: Request, later: Request) -> bool:
    """Whether a write was acknowledged before another request was made."""
    return write.outcome is Outcome.DONE and write.replied < later.invoked


def is_excused(world: World, request: Request) -> bool:
    """Whether an acknowledged write may be gone: flushed, or lost with all the nodes that had it."""
    slack_s = world.skew_s() + SAME_MOMENT_S + 1.0
    if any(flush.request is not None and flush.request.replied + slack_s >= request.invoked for flush in world.history.flushes()):
        return True
    return may_be_lost(world, Write(None, request))


def check_last_write(world: World, key: bytes, register: Register) -> list[str]:
    """An acknowledged value is there in the end if nobody wrote or wanted to write the key later, or at the same time."""
    writes = [write for write in register.writes if write.request is not None]
    found = []
    for write in writes:
        request = write.request
        assert request is not None
        ends = write.ttl_s is not None or register.deadlines
        if write.value is None or not write.is_certain or ends or is_excused(world, request):
            continue
        others = [other.request for other in writes if other is not write and other.request is not None]
        if all(is_before(other, request) for other in others) and write.value not in final_values(world, key):
            found.append(f"{key!r}: the last value is lost: {write}")
    return found


def is_before(first: Request, second: Request) -> bool:
    """Whether a request was over before another one was made, or came first on its connection. One that timed out never is over."""
    if first.outcome is not Outcome.DONE:
        return False
    return first.order < second.order if first.connection == second.connection else first.replied < second.invoked


def check_single_writer(world: World, key: bytes, register: Register) -> list[str]:
    """A single writer never makes siblings, on a cluster that is healthy."""
    if not world.scenario.is_healthy or any(write.done == NEVER for write in register.writes):
        return []
    final = final_values(world, key)
    return [f"{key!r}: a single writer made siblings: {sorted(final)}"] if len(final) > 1 else []
