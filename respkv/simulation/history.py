"""What was asked and answered, and what may be concluded from it.

Keys come in families, named by their first letter, because each command makes another kind of promise:
`r` registers, written blindly with values that are never written twice; `c` counters; `a` strings that are appended to;
`n` keys that are only ever set where nothing was; `e` registers whose expiry is changed.
Three families keep siblings where the scenario says so: `s`, whose writers say what they have seen; `o`, each written by one
client alone; `u`, whose writers know nothing of siblings.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

import hiredis

Reply = object
NEVER = math.inf
WHOLE = b"rneou"
"""Families whose writes give whole values."""
EXPIRING = {b"PEXPIRE": 0.001, b"EXPIRE": 1.0, b"PERSIST": 0.0}
"""Commands that change when a value expires, and the unit of their argument in seconds."""


class Outcome(enum.Enum):
    """What a client knows of its request."""

    OPEN = "no answer"
    DONE = "done"
    REFUSED = "refused before any effect"
    UNKNOWN = "timed out: it may have taken effect"


@dataclass(slots=True, eq=False)
class Request:
    """One command of one client."""

    number: int
    connection: int
    order: int
    """Among the requests of its connection."""
    node: int
    arguments: list[bytes]
    invoked: float
    replied: float = NEVER
    reply: Reply = None
    outcome: Outcome = Outcome.OPEN
    expected_after: float = 0.0
    """When the request before it was answered, if that was later than `invoked`."""
    is_queued: bool = False
    """Whether it stands between MULTI and EXEC."""
    transaction: list[Request] | None = None
    """The requests that an EXEC answers."""

    def answer(self, reply: Reply, now: float) -> None:
        """The reply has come."""
        self.replied = now
        self.reply = reply
        self.outcome = Outcome.DONE
        if isinstance(reply, hiredis.ReplyError):
            self.outcome = Outcome.UNKNOWN if str(reply).startswith("TIMEOUT") else Outcome.REFUSED

    def __str__(self) -> str:
        line = b" ".join(argument[:40] for argument in self.arguments).decode("utf-8", "replace")
        end = f"{self.replied:.4f}" if self.replied < NEVER else "..."
        place = f"#{self.number} n{self.node} connection {self.connection}.{self.order}"
        return f"{place} [{self.invoked:.4f}, {end}] {line} -> {self.reply!r:.80}"


@dataclass(slots=True, eq=False)
class Write:
    """A value that a request gave, or may have given, to a key; None for a deletion."""

    value: bytes | None
    request: Request | None
    is_certain: bool = True
    ttl_s: float | None = None
    is_flush: bool = False

    @property
    def invoked(self) -> float:
        """When it was asked for."""
        return self.request.invoked if self.request is not None else -NEVER

    @property
    def done(self) -> float:
        """When it was known to be done."""
        if self.request is None:
            return -NEVER
        return self.request.replied if self.is_certain else NEVER

    def __str__(self) -> str:
        return f"{'written' if self.is_certain else 'maybe written'} {self.value!r:.40} by {self.request or 'nobody'}"


@dataclass(slots=True, eq=False)
class Read:
    """A value that a request saw in a key."""

    value: bytes | None
    request: Request


@dataclass(slots=True, eq=False)
class Deadline:
    """A time to live that a request gave, or may have given, to the value that was there; None: it took it away."""

    ttl_s: float | None
    request: Request

    @property
    def is_certain(self) -> bool:
        """Whether there was a value, and the client heard of it."""
        return self.request.outcome is Outcome.DONE


@dataclass(slots=True)
class Register:
    """All that happened to one key."""

    writes: list[Write] = field(default_factory=lambda: [Write(None, None)])
    reads: list[Read] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Counter:
    """Increments of one key."""

    attempted: int = 0
    done: int = 0
    values: list[tuple[Request, int]] = field(default_factory=list)


class History:
    """The requests of all clients, in the order in which they were made."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.requests: list[Request] = []

    def begin(self, *, connection: int, order: int, node: int, arguments: list[bytes], now: float) -> Request:
        """A client sends a request."""
        request = Request(len(self.requests), connection, order, node, arguments, now)
        self.requests.append(request)
        return request

    def flushes(self) -> list[Write]:
        """What FLUSHALL did to every key."""
        return [
            Write(None, request, request.outcome is Outcome.DONE, is_flush=True)
            for request in self.requests
            if request.arguments[0] == b"FLUSHALL" and request.outcome is not Outcome.REFUSED
        ]

    def registers(self) -> dict[bytes, Register]:
        """What happened to each key whose writes give whole values."""
        found: dict[bytes, Register] = {}
        flushes = self.flushes()
        for request in self.requests:
            writes, reads = effects_of(request)
            for key, write in writes:
                if key[:1] not in WHOLE:
                    continue
                register = found.setdefault(key, Register())
                if request.outcome is Outcome.REFUSED:
                    if write.value is not None:
                        register.refused.add(write.value)
                else:
                    register.writes.append(write)
            for key, value in reads:
                if key[:1] in WHOLE:
                    found.setdefault(key, Register()).reads.append(Read(value, request))
            deadline = deadline_of(request)
            if deadline is not None:
                found.setdefault(request.arguments[1], Register()).deadlines.append(deadline)
        for register in found.values():
            register.writes += flushes
        return found

    def counters(self) -> dict[bytes, Counter]:
        """What happened to each counter."""
        found: dict[bytes, Counter] = {}
        for request in self.requests:
            name, *rest = request.arguments
            if not rest or rest[0][:1] != b"c":
                continue
            counter = found.setdefault(rest[0], Counter())
            if name == b"GET":
                if isinstance(request.reply, bytes):
                    counter.values.append((request, int(request.reply)))
                continue
            amount = int(rest[1]) if name == b"INCRBY" else 1
            if request.outcome is not Outcome.REFUSED:
                counter.attempted += amount
            if request.outcome is Outcome.DONE:
                counter.done += amount
                assert isinstance(request.reply, int)
                counter.values.append((request, request.reply))
        return found

    def appends(self) -> dict[bytes, tuple[set[bytes], set[bytes], list[tuple[Request, bytes]]]]:
        """For each appended key the pieces that were surely added, those that may have been, and what was read."""
        found: dict[bytes, tuple[set[bytes], set[bytes], list[tuple[Request, bytes]]]] = {}
        for request in self.requests:
            name, *rest = request.arguments
            if not rest or rest[0][:1] != b"a":
                continue
            surely, maybe, reads = found.setdefault(rest[0], (set(), set(), []))
            if name == b"GET":
                if isinstance(request.reply, bytes):
                    reads.append((request, request.reply))
            elif request.outcome is Outcome.DONE:
                surely.add(rest[1])
            elif request.outcome is not Outcome.REFUSED:
                maybe.add(rest[1])
        return found


Writes = list[tuple[bytes, Write]]
Reads = list[tuple[bytes, bytes | None]]


def effects_of(request: Request) -> tuple[Writes, Reads]:  # noqa: PLR0911 - one for each command
    """What a request wrote, or may have written, and what it read."""
    name, *rest = request.arguments
    reply, outcome = request.reply, request.outcome
    done = outcome is Outcome.DONE
    match name:
        case b"GET":
            return [], [(rest[0], _value(reply))] if done else []
        case b"MGET":
            return [], list(zip(rest, map(_value, reply), strict=True)) if done and isinstance(reply, list) else []
        case b"SET":
            return _effects_of_set(request)
        case b"MSET":
            return [(key, Write(value, request, done)) for key, value in zip(rest[::2], rest[1::2], strict=True)], []
        case b"SETNX":
            return [(rest[0], Write(rest[1], request, done))] if not done or reply == 1 else [], []
        case b"GETSET":
            return [(rest[0], Write(rest[1], request, done))], [(rest[0], _value(reply))] if done else []
        case b"PSETEX":
            return [(rest[0], Write(rest[2], request, done, int(rest[1]) / 1000))], []
        case b"GETDEL":
            if done and reply is None:
                return [], [(rest[0], None)]
            return [(rest[0], Write(None, request, done))], [(rest[0], _value(reply))] if done else []
        case b"DEL":
            if done and reply == 0:
                return [], []
            return [(key, Write(None, request, done and reply == len(rest))) for key in rest], []
        case _:
            return [], []


def _effects_of_set(request: Request) -> tuple[Writes, Reads]:
    _, key, value, *options = request.arguments
    done = request.outcome is Outcome.DONE
    if done and request.reply is None and (b"NX" in options or b"XX" in options):
        return [], []
    ttl_s = int(options[options.index(b"PX") + 1]) / 1000 if b"PX" in options else None
    reads: Reads = [(key, _value(request.reply))] if done and b"GET" in options else []
    return [(key, Write(value, request, done, ttl_s))], reads


def deadline_of(request: Request) -> Deadline | None:
    """The change of an expiry that a request made, or may have made."""
    name, *rest = request.arguments
    if name not in EXPIRING or request.outcome is Outcome.REFUSED or (request.outcome is Outcome.DONE and request.reply == 0):
        return None
    return Deadline(int(rest[1]) * EXPIRING[name] if len(rest) > 1 else None, request)


def _value(reply: object) -> bytes | None:
    assert reply is None or isinstance(reply, bytes)
    return reply
