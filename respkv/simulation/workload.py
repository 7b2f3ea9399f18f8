"""The commands that clients send: few keys, so that they meet, and values that tell who wrote them."""

from __future__ import annotations

import random
from collections.abc import Callable

from respkv.commands.table import COMMANDS

PADDING_MAX = 60
BIG_PADDING = 20_000
RARE = 0.03
TRANSACTION_RATIO = 0.15
ALONE = frozenset((b"FLUSHALL", b"CONFIG"))
"""Never within a transaction."""


class Workload:
    """Draws commands."""

    def __init__(self, rng: random.Random, *, keys: int, flushes: bool = False, rules: tuple[tuple[int, int], ...] = ()) -> None:
        """`keys` of each family; whether FLUSHALL is sent now and then; pairs of R and W that CONFIG SET chooses from."""
        self._rng = rng
        self._keys = keys
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
        if flushes and "FLUSHALL" in COMMANDS:
            choices[self._flush] = RARE
        if rules and "CONFIG" in COMMANDS:
            choices[self._reconfigure] = RARE
        self._rules = rules
        self._choices = list(choices)
        self._weights = list(choices.values())

    def batch(self) -> list[list[bytes]]:
        """The commands of one packet."""
        rng = self._rng
        count = 1 if rng.random() < 0.6 else rng.randint(2, 8)
        commands = [rng.choices(self._choices, self._weights)[0]() for _ in range(count)]
        if count > 1 and "EXEC" in COMMANDS and rng.random() < TRANSACTION_RATIO and all(command[0] not in ALONE for command in commands):
            return [[b"MULTI"], *commands, [b"EXEC"]]
        return commands

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

    def _flush(self) -> list[bytes]:
        return [b"FLUSHALL"]

    def _reconfigure(self) -> list[bytes]:
        read, write = self._rng.choice(self._rules)
        return [b"CONFIG", b"SET", b"read-quorum", b"%d" % read, b"write-quorum", b"%d" % write]
