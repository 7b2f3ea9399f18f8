"""One table of commands: COMMAND answers from it, the session dispatches by it, the documents are drawn from it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from respkv.metrics import LatencyHistogram

if TYPE_CHECKING:
    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps

REDIS_VERSION = "7.2.4"
"""The Redis whose syntax and replies these commands have: what clients are told that look for a version."""

Handler = Callable[["Request"], "bytes | Steps | list[Any] | None"]
"""Gives the reply, a generator of steps that ends with it, or a cell that it will come into. None: there is no reply."""


class Where(enum.Enum):
    """On which node a handler runs."""

    HERE = "on the node that was asked"
    PRIMARY = "on the first live primary of its first key, one command at a time per key"
    EACH_PRIMARY = "on the first live primary of each key, which gets the keys that are its own; the integer replies are added up"


WhereOf = Callable[[list[bytes]], Where]
"""Where a command line runs, for commands of which some forms read before they write and others do not."""


@dataclass(frozen=True, slots=True)
class KeyPositions:
    """Positions of keys among the arguments, as COMMAND tells them: first, last (negative: from the end), step. 0: none."""

    first: int = 0
    last: int = 0
    step: int = 0

    def of(self, arguments: list[bytes]) -> list[bytes]:
        """The keys of a command line."""
        if not self.first:
            return []
        last = self.last if self.last >= 0 else len(arguments) + self.last
        return arguments[self.first : last + 1 : self.step]


NO_KEYS = KeyPositions()
FIRST = KeyPositions(1, 1, 1)
ALL = KeyPositions(1, -1, 1)
PAIRS = KeyPositions(1, -1, 2)


@dataclass(slots=True)
class CommandStatistics:
    """What INFO commandstats shows."""

    calls: int = 0
    microseconds: int = 0
    """Time of the turns that answered clients, shared out in equal parts among the commands of each second."""
    rejected: int = 0
    failed: int = 0
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    """How long clients waited."""


@dataclass(slots=True, eq=False)
class Command:
    """One entry of the table."""

    name: str
    """In capitals; a subcommand as "CLIENT|SETNAME"."""
    arity: int
    """Number of words, the name among them; negative: at least so many."""
    flags: frozenset[str]
    keys: KeyPositions
    group: str
    since: str
    summary: str
    handler: Handler
    where: Where | WhereOf
    complexity: str = ""
    immediate: bool = False
    """Whether MULTI does not queue it."""
    waits: bool = False
    """Whether it begins only when all earlier commands of its connection are answered: it changes how replies look, or what those leave."""
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    statistics: CommandStatistics = field(default_factory=CommandStatistics)
    shown_name: str = field(init=False)
    """As error messages and INFO write it."""

    def __post_init__(self) -> None:
        self.shown_name = self.name.lower()

    @property
    def is_write(self) -> bool:
        """Whether it may change data."""
        return "write" in self.flags

    def where_of(self, arguments: list[bytes]) -> Where:
        """On which node a command line runs."""
        where = self.where
        return where if isinstance(where, Where) else where(arguments)

    def accepts(self, count: int) -> bool:
        """Whether it can have so many words."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity


TABLE: dict[bytes, Command] = {}
"""Commands by their name in capitals and in small letters; subcommands are inside their container."""

COMMANDS: dict[str, Command] = {}
"""Commands by their name in capitals, once each."""


def command(
    name: str,
    *,
    arity: int,
    flags: str = "",
    keys: KeyPositions = NO_KEYS,
    group: str,
    since: str = "1.0.0",
    where: Where | WhereOf = Where.HERE,
    complexity: str = "",
    immediate: bool = False,
    waits: bool = False,
) -> Callable[[Any], Any]:
    """Enter a handler into the table. The first line of its docstring is the summary; "CONFIG|SET" is a subcommand.

    `flags` are words that COMMAND prints, and nothing else.
    """

    def enter(handler: Handler) -> Handler:
        entry = Command(
            name=name,
            arity=arity,
            flags=frozenset(flags.split()),
            keys=keys,
            group=group,
            since=since,
            summary=(handler.__doc__ or "").strip().split("\n")[0],
            handler=handler,
            where=where,
            complexity=complexity,
            immediate=immediate,
            waits=waits,
        )
        container, bar, subname = name.partition("|")
        if bar:
            COMMANDS[container].subcommands[subname.encode()] = entry
            return handler
        assert name not in COMMANDS
        COMMANDS[name] = entry
        TABLE[name.encode()] = TABLE[name.lower().encode()] = entry
        return handler

    return enter


def find(name: bytes) -> Command | None:
    """Look a command up, in any case."""
    return TABLE.get(name) or TABLE.get(name.upper())
