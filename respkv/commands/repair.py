"""RESPKV REPAIR: compare replicas now, and see how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.commands.respkv_commands import members_by_id
from respkv.commands.table import command
from respkv.coordinator.operations import Ask
from respkv.errors import ClientError, SyntaxProblemError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import bulk
from respkv.transport import border

if TYPE_CHECKING:
    from respkv.commands.context import Context, Request
    from respkv.coordinator.operations import Steps
    from respkv.ids import NodeId

_FLAGS = "admin loading stale"


class Progress(msgspec.Struct):
    """How far a node is with what it was asked for."""

    pairs: int = 0
    pairs_done: int = 0
    partitions_compared: int = 0
    partitions_differing: int = 0
    partitions_done: int = 0
    """Of those that differ."""
    keys_compared: int = 0
    keys_repaired: int = 0
    bytes: int = 0
    failures: list[str] = []


_decode_progress = border.reader(Progress)


class RepairRequest(msgspec.Struct, array_like=True):
    """What is to be compared: everything, one partition, the pairs of one node, or both."""

    partition: int | None = None
    node: str | None = None


class Told(msgspec.Struct):
    """What the command answers, as JSON: the sum of all nodes, and whether that was all."""

    is_done: bool
    total: Progress
    unreached: list[str]
    """Nodes that did not answer; and, when it begins, replicas that are away and so are not compared."""


@command("RESPKV|REPAIR", arity=-2, flags=_FLAGS, group="cluster", complexity="O(N) where N is the number of nodes")
def respkv_repair(request: Request) -> Steps:
    """Begins to compare replicas, or tells how far that is; returns the progress as JSON."""
    context, words = request.context, request.args[2:]
    usable = {node for node in members_by_id(context) if node == context.me or context.membership.usable(node)}
    away: set[NodeId] = set()
    if [word.upper() for word in words] == [b"STATUS"]:
        answers = yield Ask(sorted(usable), "repair-progress", decode=_decode_progress)
    else:
        wanted = _wanted(context, words)
        away = _replicas(context, wanted) - usable
        answers = yield Ask(sorted(usable), "repair", msgspec.msgpack.encode(wanted), decode=_decode_progress)
    return bulk(msgspec.json.encode(_told(answers, away)))


@command("RESPKV|REBUILD", arity=3, flags=_FLAGS, group="cluster", complexity="O(N) where N is the number of partitions")
def respkv_rebuild(request: Request) -> Steps:
    """Has a node set aside all that it holds, and copy it from its co-replicas."""
    context = request.context
    assert context.mark_node is not None
    return context.mark_node(_node(context, request.args[2].decode("utf-8", "replace").lower()))


def _wanted(context: Context, words: list[bytes]) -> RepairRequest:
    if len(words) % 2:
        raise SyntaxProblemError
    wanted = RepairRequest()
    for name, word in zip(words[::2], words[1::2], strict=True):
        match name.upper():
            case b"PARTITION":
                wanted.partition = parse_integer(word)
                if not 0 <= wanted.partition < context.ring.size:
                    raise ClientError(f"there are the partitions 0 to {context.ring.size - 1}")
            case b"NODE":
                wanted.node = _node(context, word.decode("utf-8", "replace").lower())
            case _:
                raise SyntaxProblemError
    return wanted


def _node(context: Context, name: str) -> NodeId:
    """The node whose id is, or begins with, this; or that has this address."""
    found = [
        node
        for node, view in members_by_id(context).items()
        if (name and node.startswith(name)) or f"{view.address.host}:{view.address.port}" == name
    ]
    if len(found) != 1:
        raise ClientError("no node, or more than one, has this id or address; RESPKV STATUS shows them")
    return found[0]


def _replicas(context: Context, wanted: RepairRequest) -> set[NodeId]:
    """Who is to be compared."""
    table = context.coordinator.table
    assert table is not None
    partitions = range(context.ring.size) if wanted.partition is None else [wanted.partition]
    groups = {frozenset(table.primaries(partition)) for partition in partitions}
    return {node for group in groups if wanted.node is None or wanted.node in group for node in group}


def _told(answers: dict[NodeId, Progress | bytes | None], away: set[NodeId]) -> Told:
    total, unreached = Progress(), sorted(away)
    for node, progress in answers.items():
        if not isinstance(progress, Progress):
            unreached.append(node)
            continue
        for name in Progress.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(progress, name))
    return Told(total.pairs_done >= total.pairs, total, unreached)
