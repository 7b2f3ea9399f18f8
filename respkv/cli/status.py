"""`respkv status`: the cluster as one node sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from respkv.cli.connection import Address, ask, explained
from respkv.cli.output import print_parts
from respkv.cli.units import UNKNOWN, show_bytes, show_count, show_duration, show_nodes, show_share

if TYPE_CHECKING:
    from rich.console import RenderableType

EXIT_ALL_UP = 0
EXIT_SOME_DOWN = 1
STYLES = {"up": "green", "suspect": "yellow", "down": "bold red"}


class Resize(msgspec.Struct, frozen=True, rename={"old_n": "from", "new_n": "to"}):
    """A change of replication-factor on its way."""

    old_n: int
    new_n: int
    stage: str
    done: str


class Cluster(msgspec.Struct, frozen=True):
    """What holds for all nodes."""

    n: int
    r: int
    w: int
    sloppy: str
    epoch: int
    agreed: str
    short_ratio: float = 0.0
    """The part of the ring of which a primary is away."""
    resize: Resize | None = None


class Node(msgspec.Struct, frozen=True):
    """One line of the table. What only the node itself knows is None while it is away."""

    id: str
    name: str
    host: str
    port: int
    cluster_port: int
    state: str
    owns_ratio: float | None = None
    keys: int | None = None
    bytes: int | None = None
    hints_held_for: int | None = None
    phi: float | None = None
    uptime_s: float | None = None
    zone: str | None = None
    rebuilding: bool | int | None = None
    must_rebuild: bool = False
    """Whether it sets aside what it holds when it returns."""
    refuses_writes: str = ""
    """Why it stores no writes, in words."""
    resize: str = ""
    """How far it is with a change of replication-factor: a percentage, or "done"."""


class Status(msgspec.Struct, frozen=True):
    """The reply of `RESPKV STATUS`."""

    cluster: Cluster
    nodes: list[Node]


def show_status(address: Address, *, as_json: bool) -> int:
    """Ask a node, print what it says, and return the exit code."""
    with explained(address):
        reply = ask(address, "RESPKV", "STATUS")
        status = msgspec.json.decode(reply, type=Status)
    if as_json:
        print(msgspec.json.format(reply, indent=2).decode())
    else:
        print_parts(headline(status), table(status), *warnings(status))
    return exit_code(status)


def exit_code(status: Status) -> int:
    """0 if every node is up."""
    return EXIT_ALL_UP if all(node.state == "up" for node in status.nodes) else EXIT_SOME_DOWN


def headline(status: Status) -> RenderableType:
    """The cluster in one line."""
    cluster = status.cluster
    counts = [(sum(node.state == state for node in status.nodes), state) for state in STYLES]
    nodes = ", ".join(f"{count} {state}" for count, state in counts if count)
    return Text(
        f"Cluster respkv (N={cluster.n} R={cluster.r} W={cluster.w} sloppy={cluster.sloppy})   {nodes}   "
        f"ring of epoch {cluster.epoch} agreed by {cluster.agreed}"
    )


def table(status: Status) -> Table:
    """One line for each node. Zones are shown where there are any."""
    has_zones = any(node.zone for node in status.nodes)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("State", "Node", "Address", *(["Zone"] if has_zones else [])):
        grid.add_column(title, no_wrap=True)
    for title in ("Owns", "Load", "Keys", "Hints", "phi", "Uptime"):
        grid.add_column(title, justify="right", no_wrap=True)
    for node in status.nodes:
        state = "rebuilding" if node.rebuilding and node.state == "up" else node.state
        grid.add_row(
            Text(state, style=STYLES.get(node.state, "")),
            node.name,
            str(Address(node.host, node.port)),
            *([node.zone or "-"] if has_zones else []),
            show_share(node.owns_ratio),
            show_bytes(node.bytes),
            show_count(node.keys),
            show_count(node.hints_held_for),
            UNKNOWN if node.phi is None else f"{node.phi:.1f}",
            show_duration(node.uptime_s) if node.state != "down" else "-",
        )
    return grid


def warnings(status: Status) -> list[RenderableType]:
    """What an operator should not overlook."""
    down = [node for node in status.nodes if node.state == "down"]
    lines: list[RenderableType] = []
    if down:
        share = show_share(status.cluster.short_ratio)
        hints = show_count(sum(node.hints_held_for or 0 for node in down))
        if status.cluster.sloppy != "yes":
            instead = "reach fewer replicas"
        elif len(status.nodes) > status.cluster.n:
            instead = "are handed to fallback nodes"
        else:
            instead = "reach fewer replicas, which keep hints"
        lines.append(Text(f"[WARN] {show_nodes(len(down))} down: writes for {share} of the ring {instead} ({hints} hints)", style="yellow"))
    rebuilding = [node.name for node in status.nodes if node.rebuilding]
    if rebuilding:
        names = ", ".join(rebuilding)
        lines.append(Text(f"[WARN] {names} lost data and copies it from co-replicas; it does not vote until then", style="yellow"))
    marked = [node.name for node in status.nodes if node.must_rebuild and not node.rebuilding]
    if marked:
        lines.append(Text(f"[WARN] {', '.join(marked)} must be rebuilt: what it holds is set aside, and copied anew", style="yellow"))
    stand_ins = any(node.state == "up" and not node.refuses_writes for node in status.nodes)
    instead = "others stand in while they have room" if stand_ins else "there is nobody to stand in: clients are refused"
    for reason in sorted({node.refuses_writes for node in status.nodes if node.refuses_writes}):
        names = ", ".join(node.name for node in status.nodes if node.refuses_writes == reason)
        lines.append(Text(f"[WARN] no writes are stored by {names}: {reason}; {instead}", style="yellow"))
    if status.cluster.resize is not None:
        lines.append(Text(resize_line(status, status.cluster.resize), style="yellow"))
    return lines


def resize_line(status: Status, resize: Resize) -> str:
    """How far a change of replication-factor is, and who holds it up."""
    doing = {
        "preparing": "copies go to where the new N wants them; reads ask the old one",
        "switched": "reads ask the new one",
        "dropping": "copies that are no longer wanted are dropped",
    }
    waited_for = [f"{node.name} {how_far(node)}" for node in status.nodes if node.resize != "done"]
    line = f"[INFO] N changes from {resize.old_n} to {resize.new_n}, done by {resize.done} nodes: {doing.get(resize.stage, resize.stage)}"
    return f"{line} (waiting for {', '.join(waited_for)})" if waited_for else line


def how_far(node: Node) -> str:
    """How far a node is with a change of replication-factor, or why it is not."""
    return f"{node.resize or 0}%" if node.state == "up" else node.state
