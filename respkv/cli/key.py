"""`respkv key`: where a key lives, and what each of its replicas holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from respkv.cli.connection import Address, ask, explained
from respkv.cli.output import print_parts
from respkv.cli.units import show_bytes, show_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

EXIT_IN_STEP = 0
EXIT_OUT_OF_STEP = 1
ID_DIGITS_SHOWN = 8
STYLES = {"in step": "green", "stale": "yellow", "missing": "yellow", "unreachable": "bold red"}


class Replica(msgspec.Struct, frozen=True):
    """What one node holds. What it did not say is None."""

    id: str
    host: str
    port: int
    role: str
    state: str
    version: str | None = None
    vector: list[str] = []
    siblings: int = 0
    type: str | None = None
    ttl_ms: int | None = None
    size: int | None = None


class Whereabouts(msgspec.Struct, frozen=True):
    """The reply of `RESPKV KEY`."""

    key: str
    slot: int
    partition: int
    preference_list: list[str]
    replicas: list[Replica]


def show_key(address: Address, key: str, *, as_json: bool) -> int:
    """Ask a node, print what it says, and return the exit code."""
    with explained(address):
        reply = ask(address, "RESPKV", "KEY", os.fsencode(key))
        whereabouts = msgspec.json.decode(reply, type=Whereabouts)
    if as_json:
        print(msgspec.json.format(reply, indent=2).decode())
    else:
        parts = [headline(whereabouts), table(whereabouts), *absence(whereabouts)]
        if any(len(replica.vector) > 1 for replica in whereabouts.replicas):
            parts.append(vectors(whereabouts))
        print_parts(*parts)
    return exit_code(whereabouts)


def exit_code(whereabouts: Whereabouts) -> int:
    """0 if all replicas that should hold the key agree."""
    in_step = all(replica.state == "in step" for replica in whereabouts.replicas)
    return EXIT_IN_STEP if in_step else EXIT_OUT_OF_STEP


def headline(whereabouts: Whereabouts) -> RenderableType:
    """Slot, partition and preference list, each node by its address where that is known."""
    addresses = {replica.id: str(Address(replica.host, replica.port)) for replica in whereabouts.replicas}
    names = ", ".join(addresses.get(node, node[:ID_DIGITS_SHOWN]) for node in whereabouts.preference_list)
    return Text(f"{whereabouts.key}: slot {whereabouts.slot}   partition {whereabouts.partition}   preference list: {names}")


def table(whereabouts: Whereabouts) -> Table:
    """One line for each replica."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Node", "Address", "Role", "State", "Version", "Type"):
        grid.add_column(title, no_wrap=True)
    for title in ("Size", "TTL"):
        grid.add_column(title, justify="right", no_wrap=True)
    for replica in whereabouts.replicas:
        holds_value = replica.type is not None
        grid.add_row(
            replica.id[:ID_DIGITS_SHOWN],
            str(Address(replica.host, replica.port)),
            replica.role,
            Text(replica.state, style=STYLES.get(replica.state, "")),
            replica.version or "-",
            replica.type or "-",
            show_bytes(replica.size) if holds_value else "-",
            show_ttl(replica.ttl_ms) if holds_value else "-",
        )
    return grid


def absence(whereabouts: Whereabouts) -> list[RenderableType]:
    """That there is no such key, as far as replicas answered."""
    if any(replica.type is not None for replica in whereabouts.replicas):
        return []
    if any(replica.state == "unreachable" for replica in whereabouts.replicas):
        return [Text("No replica that answers holds a value of this key.")]
    is_gone = any(replica.version is not None for replica in whereabouts.replicas)
    return [Text("There is no such key: it was deleted, or has expired." if is_gone else "There is no such key.")]


def vectors(whereabouts: Whereabouts) -> Table:
    """How many values the copy of each replica holds, and what it has seen: the last write of each actor."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("Node", no_wrap=True)
    grid.add_column("Values", justify="right", no_wrap=True)
    grid.add_column("Has seen")
    for replica in whereabouts.replicas:
        grid.add_row(replica.id[:ID_DIGITS_SHOWN], str(replica.siblings), "\n".join(replica.vector) or "-")
    return grid


def show_ttl(ttl_ms: int | None) -> str:
    """How long it lives on; PTTL's -1 means for ever."""
    if ttl_ms is None or ttl_ms < 0:
        return "none"
    return f"{ttl_ms}ms" if ttl_ms < 1000 else show_duration(ttl_ms / 1000)
