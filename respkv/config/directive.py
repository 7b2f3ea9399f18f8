"""The form of a directive. Pure data: what it means is in the tables, what its text means is in `values`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INT_MAX = 2**31 - 1
UINT_MAX = 2**32 - 1
INT64_MAX = 2**63 - 1


class Kind(Enum):
    """What an argument of a directive has to look like."""

    BOOL = "bool"
    INTEGER = "integer"
    MEMORY = "memory"
    ENUM = "enum"
    STRING = "string"
    LIST = "list"
    QUORUM = "quorum"
    BUFFER_LIMITS = "buffer limits"


class Scope(Enum):
    """Whose a directive is."""

    CLUSTER = "cluster"
    """One value for all nodes; CONFIG SET on any of them changes it everywhere."""
    NODE = "node"
    """Each node has its own; CONFIG SET changes the one that was told."""


def anything(text: str) -> str:
    """Accept every string."""
    del text
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One entry of the table."""

    name: str
    kind: Kind
    default: str
    """As an operator would write it."""
    help: str
    """Meaning, formula, and when to raise or lower it. Paragraphs are parted by blank lines."""
    alias: str = ""
    unit: str = ""
    minimum: int = 0
    maximum: int = INT64_MAX
    choices: tuple[str, ...] = ()
    scope: Scope = Scope.NODE
    immutable: bool = False
    """Can only be given at the start."""
    protected: bool = False
    """CONFIG SET needs `enable-protected-configs`."""
    sensitive: bool = False
    """Its value must not reach a log or SLOWLOG."""
    hidden: bool = False
    """CONFIG GET never tells it."""
    item_words: int = 1
    """How many words make one item of a LIST."""
    check: Callable[[str], str] = anything
    """What is wrong with one argument of a STRING or INTEGER, or one item of a LIST, that has the right form, or nothing."""

    @property
    def attribute(self) -> str:
        """The name under which `Settings` holds it."""
        return self.name.replace("-", "_")

    @property
    def is_shared(self) -> bool:
        """Whether the cluster's versioned value holds it."""
        return self.scope is Scope.CLUSTER and not self.immutable


@dataclass(frozen=True, slots=True)
class Group:
    """Directives that belong together, under one heading of respkv.conf."""

    title: str
    directives: tuple[Directive, ...]
    introduction: str = ""
