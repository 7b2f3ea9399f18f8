"""The commands that clients send: few keys, so that they meet, and values that tell who wrote them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from respkv.commands.table import COMMANDS
from respkv.versions.vectors import context_of

if TYPE_CHECKING:
    from respkv.simulation.history import Request
    from respkv.simulation.scenario import Scenario

PADDING_MAX = 60
BIG_PADDING = 20_000
RARE = 0.03
SINGLE_RATIO = 0.15
TRANSACTION_RATIO = 0.15
FIRST_PORT = 7000
"""Of the first node; the others have those behind it."""
ALONE = frozenset((b"FLUSHALL", b"CONFIG", b"RESPKV"))
"""Never within a transaction."""
CONTEXTS_LEN = 4
"""Of so many readings of a key clients use the contexts: some are old, and their writers have not seen what came since."""


def blind_context(key: bytes) -> bytes:
    """The context of who has seen nothing of a key."""
    return context_of(key, b"")


class Workload:
    """Draws commands."""

    def __init__(self, rng: random.Random, scenario: Scenario) -> None:
        """Draw what suits a scenario."""
        self._rng = rng
        self._keys = scenario.keys
        self._contexts: dict[bytes, deque[bytes]] = {}
        """What clients were last given by RESPKV SIBLINGS."""
        self._number = 0
        self._locks = 0
        choices: dict[Callable[[], list[bytes]], float] = {self._register_write: 10, self._register_read: 10}
        if "GETDEL" in COMMANDS:
            choices |= {self._register_update: 4, self._many: 3, self._conditional: 1}
        if "INCR" in COMMANDS:
            choices[self._count] = 3
        if "APPEND" in COMMANDS:
            choices[self._append] = 2
        if "PEXPIRE" in COMMANDS:
            choices[self._expire] = 2
        if scenario.keeps_siblings:
            choices |= {self._siblings: 8, self._mixed: 4}
        self._single_ratio = SINGLE_RATIO if scenario.keeps_siblings else 0.0
        if scenario.flushes and "FLUSHALL" in COMMANDS:
            choices[self._flush] = RARE
        if scenario.rules and "CONFIG" in COMMANDS:
            choices[self._reconfigure] = RARE
        if scenario.factors and "CONFIG" in COMMANDS:
            choices[self._resize] = 5 * RARE
        if scenario.operates:
            choices |= {self._repair: 10 * RARE, self._rebuild: 10 * RARE}
        self._rules = scenario.rules
        self._factors = scenario.factors
        self._nodes = [b"127.0.0.1:%d" % (FIRST_PORT + index) for index in range(scenario.nodes)]
        self._partitions = scenario.ring_size
        self._choices = list(choices)
        self._weights = list(choices.values())

    def batch(self, client: int) -> list[list[bytes]]:
        """The commands of one packet of a client."""
        rng = self._rng
        count = 1 if rng.random() < 0.6 else rng.randint(2, 8)
        commands = [rng.choices(self._choices, self._weights)[0]() for _ in range(count)]
        if rng.random() < self._single_ratio:
            commands[0] = self._single(client)
        if count > 1 and "EXEC" in COMMANDS and rng.random() < TRANSACTION_RATIO and all(command[0] not in ALONE for command in commands):
            return [[b"MULTI"], *commands, [b"EXEC"]]
        return commands

    def heard(self, request: Request) -> None:
        """A client got a reply: contexts are used by all, as if clients told each other."""
        if request.arguments[:2] == [b"RESPKV", b"SIBLINGS"] and isinstance(request.reply, list):
            self._contexts.setdefault(request.arguments[2], deque(maxlen=CONTEXTS_LEN)).append(request.reply[0])

    def _key(self, family: str) -> bytes:
        # Squared: a few keys are hot.
        return b"%b%d" % (family.encode(), int(self._keys * self._rng.random() ** 2))

    def _value(self, key: bytes) -> bytes:
        self._number += 1
        rng = self._rng
        padding = BIG_PADDING if rng.random() < 0.003 else rng.randint(0, PADDING_MAX)
        return b"%b:%d:%b" % (key, self._number, b"x" * padding)

    def _register_write(self) -> list[bytes]:
        key = self._key("r")
        return [b"SET", key, self._value(key)]

    def _register_read(self) -> list[bytes]:
        return [b"GET", self._key("r")]

    def _register_update(self) -> list[bytes]:
        rng, key = self._rng, self._key("r")
        match rng.randint(0, 7):
            case 0:
                return [b"DEL", key]
            case 1:
                return [b"GETDEL", key]
            case 2:
                return [b"GETSET", key, self._value(key)]
            case 3:
                return [b"SET", key, self._value(key), b"PX", b"%d" % rng.choice((50, 500, 2000))]
            case 4:
                return [b"PSETEX", key, b"%d" % rng.choice((100, 1000)), self._value(key)]
            case 5:
                return [b"SET", key, self._value(key), b"GET"]
            case 6:
                return [b"SET", key, self._value(key), b"XX"]
            case _:
                return [b"SETNX", key, self._value(key)]

    def _many(self) -> list[bytes]:
        rng = self._rng
        keys = list(dict.fromkeys(self._key("r") for _ in range(rng.randint(2, 5))))
        match rng.randint(0, 3):
            case 0:
                return [b"DEL", *keys]
            case 1:
                return [b"MSET", *(word for key in keys for word in (key, self._value(key)))]
            case _:
                return [b"MGET", *keys]

    def _conditional(self) -> list[bytes]:
        """Several clients try to be first at the same key."""
        rng = self._rng
        if rng.random() < 0.2:
            self._locks += 1
        key = b"n%d" % self._locks
        return [b"GET", key] if rng.random() < 0.2 else [b"SET", key, self._value(key), b"NX"]

    def _count(self) -> list[bytes]:
        rng, key = self._rng, self._key("c")
        if rng.random() < 0.2:
            return [b"GET", key]
        return [b"INCR", key] if rng.random() < 0.7 else [b"INCRBY", key, b"%d" % rng.randint(2, 5)]

    def _append(self) -> list[bytes]:
        key = self._key("a")
        if self._rng.random() < 0.3:
            return [b"GET", key]
        self._number += 1
        return [b"APPEND", key, b"%d," % self._number]

    def _expire(self) -> list[bytes]:
        rng, key = self._rng, self._key("e")
        match rng.randint(0, 7):
            case 0:
                return [b"SET", key, self._value(key)]
            case 1:
                return [b"SET", key, self._value(key), b"PX", b"%d" % rng.choice((100, 1000, 100_000))]
            case 2:
                return [b"PEXPIRE", key, b"%d" % rng.choice((100, 1000, 100_000))]
            case 3:
                return [b"EXPIRE", key, b"1"]
            case 4:
                return [b"PERSIST", key]
            case 5:
                return [b"PTTL", key]
            case _:
                return [b"GET", key]

    def _siblings(self) -> list[bytes]:
        """Clients that say what they have seen, and replace just that."""
        rng, key = self._rng, self._key("s")
        if rng.random() < 0.5:
            return [b"RESPKV", b"SIBLINGS", key]
        contexts = self._contexts.get(key)
        context = rng.choice(contexts) if contexts and rng.random() < 0.9 else blind_context(key)
        return [b"RESPKV", b"RESOLVE", key, context, self._value(key)]

    def _mixed(self) -> list[bytes]:
        """Clients that know nothing of siblings, on keys that keep them."""
        rng, key = self._rng, self._key("u")
        match rng.randint(0, 9):
            case 0 | 1 | 2:
                return [b"SET", key, self._value(key)]
            case 3:
                return [b"SET", key, self._value(key), rng.choice((b"NX", b"XX", b"GET"))]
            case 4:
                return [b"DEL", key, self._key("u")]
            case 5:
                return [b"PSETEX", key, b"%d" % rng.choice((100, 1000)), self._value(key)]
            case 6:
                return [b"PEXPIRE", key, b"%d" % rng.choice((100, 1000, 100_000))]
            case 7:
                return [b"MSET", key, self._value(key), b"u", self._value(b"u")]
            case 8:
                return [b"MGET", key, b"u"]
            case _:
                return [b"GET", key]

    def _single(self, client: int) -> list[bytes]:
        """Each client has a key that nobody else writes."""
        key = b"o%d" % client
        return [b"GET", key] if self._rng.random() < 0.3 else [b"SET", key, self._value(key)]

    def _flush(self) -> list[bytes]:
        return [b"FLUSHALL"]

    def _reconfigure(self) -> list[bytes]:
        read, write = self._rng.choice(self._rules)
        return [b"CONFIG", b"SET", b"read-quorum", b"%d" % read, b"write-quorum", b"%d" % write]

    def _resize(self) -> list[bytes]:
        return [b"CONFIG", b"SET", b"replication-factor", b"%d" % self._rng.choice(self._factors)]

    def _repair(self) -> list[bytes]:
        rng = self._rng
        partition = [b"PARTITION", b"%d" % rng.randrange(self._partitions)] if rng.random() < 0.3 else []
        node = [b"NODE", rng.choice(self._nodes)] if rng.random() < 0.3 else []
        return [b"RESPKV", b"REPAIR", *partition, *node]

    def _rebuild(self) -> list[bytes]:
        return [b"RESPKV", b"REBUILD", self._rng.choice(self._nodes)]
