"""`respkv repair`: compare replicas now, and watch it."""

from __future__ import annotations

import time

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from respkv.cli.connection import Address, connect, explained
from respkv.cli.output import print_parts
from respkv.cli.units import show_bytes

EXIT_DONE = 0
EXIT_INCOMPLETE = 1
POLL_S = 0.2


class Total(msgspec.Struct, frozen=True):
    """What all nodes have done together."""

    pairs: int
    pairs_done: int
    partitions_compared: int
    partitions_differing: int
    partitions_done: int
    keys_compared: int
    keys_repaired: int
    bytes: int
    failures: list[str]


class Told(msgspec.Struct, frozen=True):
    """The reply of `RESPKV REPAIR`."""

    is_done: bool
    total: Total
    unreached: list[str]


def run_repair(address: Address, *, partition: int | None, node: str | None, as_json: bool) -> int:
    """Begin, watch until all nodes are done, and return the exit code."""
    words = ["PARTITION", str(partition)] if partition is not None else []
    words += ["NODE", node] if node is not None else []
    with explained(address), connect(address) as client:
        reply = client.execute_command("RESPKV", "REPAIR", *words)
        told = msgspec.json.decode(reply, type=Told)
        with _bar() as progress:
            task = progress.add_task("comparing", total=None, said="")
            away = told.unreached
            while not told.is_done:
                done, total = shown(told)
                progress.update(task, completed=done, total=total, said=sentence(told))
                time.sleep(POLL_S)
                reply = client.execute_command("RESPKV", "REPAIR", "STATUS")
                told = msgspec.json.decode(reply, type=Told)
    told = msgspec.structs.replace(told, unreached=sorted({*away, *told.unreached}))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        print_parts(*map(Text, summary(told)))
    return EXIT_INCOMPLETE if told.unreached or told.total.failures else EXIT_DONE


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def shown(told: Told) -> tuple[float, float]:
    """How much of how much: pairs of nodes, and of the one that is compared the partitions that differ."""
    total = told.total
    left = total.partitions_differing - total.partitions_done
    under_way = total.partitions_done / total.partitions_differing if left > 0 else 0.0
    return min(total.pairs_done + under_way, float(total.pairs)), float(max(total.pairs, 1))


def sentence(told: Told) -> str:
    """Where it stands."""
    total = told.total
    return f"{total.pairs_done} of {total.pairs} pairs of nodes, {total.keys_compared} keys compared, {total.keys_repaired} repaired"


def summary(told: Told) -> list[str]:
    """What was done, and what could not be."""
    total = told.total
    pairs = f"{total.pairs_done - len(total.failures)} of {total.pairs} pairs of nodes compared: {total.partitions_compared} partitions"
    lines = [
        f"{pairs}, of which {total.partitions_differing} differed",
        f"{total.keys_compared} keys compared, {total.keys_repaired} records repaired, {show_bytes(total.bytes)} exchanged",
    ]
    lines += [f"not compared: {failure}" for failure in total.failures]
    lines += [f"did not answer: {node[:8]}" for node in told.unreached]
    return lines
