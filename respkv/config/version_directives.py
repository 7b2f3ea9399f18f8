"""Directives about concurrent writes: what becomes of them, and what a connection remembers of what it has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.config.directive import INT_MAX, Directive, Group, Kind, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES = ("lww", "siblings")


def prefix_policy_problem(item: str) -> str:
    """One exception: a prefix and its policy."""
    return "" if item.rpartition(" ")[2] in POLICIES else "each prefix must be followed by lww or siblings"


def prefix_policies(words: Sequence[str]) -> list[tuple[bytes, str]]:
    """The exceptions taken apart: (prefix, policy)."""
    prefixes = [word.encode("utf-8", "surrogateescape") for word in words[::2]]
    return list(zip(prefixes, words[1::2], strict=True))


VERSIONS = Group(
    "CONCURRENT WRITES",
    (
        Directive(
            name="conflict-resolution",
            kind=Kind.ENUM,
            default="lww",
            choices=POLICIES,
            scope=Scope.CLUSTER,
            help="What happens when two clients write a string at the same time. `lww`: the last write wins, by the clocks of the nodes "
            "that took them, and the other is lost. `siblings`: both are kept; GET answers the later one, RESPKV SIBLINGS all, and "
            "whoever has read the key and writes it replaces what it has read. Such a SET goes to the first live replica of its key, "
            "like every command that reads before it writes.",
        ),
        Directive(
            name="conflict-resolution-prefix",
            kind=Kind.LIST,
            default="",
            maximum=1000,
            item_words=2,
            scope=Scope.CLUSTER,
            check=prefix_policy_problem,
            help="Exceptions for keys that begin with a prefix: PREFIX POLICY, any number of times, as in `cart: siblings session: lww`. "
            "The longest prefix that fits decides.",
        ),
        Directive(
            name="max-siblings",
            kind=Kind.INTEGER,
            default="100",
            minimum=1,
            maximum=1000,
            unit="values",
            scope=Scope.CLUSTER,
            help="A write that would leave more values than this beside each other is refused, with -TOOMANYSIBLINGS: somebody writes "
            "without reading what others have written. What two halves of a cut cluster bring together may be more. Values that "
            "have expired count until they are replaced. All siblings are stored in, and travel with, one record. Lower it for "
            "big values; raise it for many writers that never read.",
        ),
        Directive(
            name="causal-context-keys",
            kind=Kind.INTEGER,
            default="1000",
            maximum=INT_MAX,
            unit="keys",
            help="Of how many keys that keep siblings a connection remembers what it has read, for its next SET of them. The oldest goes "
            "first; above 4 MB of keys and contexts as well. Raise it for clients that read very many keys before they write them.",
        ),
        Directive(
            name="causal-context-ttl",
            kind=Kind.INTEGER,
            default="60",
            maximum=INT_MAX,
            unit="seconds",
            help="For how long a connection remembers it. A SET that comes later replaces what the coordinating replica holds, as if the "
            "connection had not read the key. Raise it for clients that think longer between reading and writing.",
        ),
    ),
)
