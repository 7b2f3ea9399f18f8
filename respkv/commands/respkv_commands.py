"""RESPKV: what Redis has no words for. Where a key lives, what its replicas hold, quorums, hints, the ring, the nodes."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import msgspec

from respkv.commands.help_text import help_reply
from respkv.commands.published import BYTES, KEYS, REFUSES, RESIZE, hints_outstanding, resize_told
from respkv.commands.table import KeyPositions, command
from respkv.config.checks import quorum_problem
from respkv.config.cluster_value import mark_of
from respkv.config.quorums import Quorums, resolve_quorum
from respkv.config.values import QUORUM_WORDS
from respkv.coordinator.batches import ReadBatch, WriteBatch
from respkv.coordinator.operations import Ask, is_error
from respkv.errors import ClientError, NotAnIntegerError, PeerProtocolError, SyntaxProblemError
from respkv.membership.members import MemberState
from respkv.placement.slots import key_slot
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import OK, bulk, encode
from respkv.transport import border
from respkv.versions import records
from respkv.versions.records import TOMBSTONE
from respkv.versions.vectors import describe_vector, merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.commands.context import Context, Request
    from respkv.coordinator.operations import Steps
    from respkv.ids import NodeId
    from respkv.membership.views import MemberView

_FLAGS = "loading stale"
SECOND = KeyPositions(2, 2, 1)
STATES = {MemberState.UP: "up", MemberState.SUSPECT: "suspect", MemberState.DOWN: "down", MemberState.UNKNOWN: "down"}
HELP = """
HINTS
    Return for each owner that lacks writes: its id, the rows that this node
    holds for it, the rows that all nodes do, and the age of this node's oldest.
KEY <key>
    Return as JSON where a key lives and what each of its replicas holds.
LAST
    Return what is known of the last read or write of this connection: how many
    answers it needed and got, how many of them from primaries, how many hints.
    A read that this node answered alone leaves no trace.
PREFLIST <key>
    Return the preference list of a key: id, address, role and state of each node.
QUORUM [R <r>] [W <w>] [PR <pr>] [PW <pw>] | QUORUM DEFAULT
    Choose the quorums of this connection: one, quorum, all or a number each.
    Without arguments, return those that are in force. RESET undoes it as well.
REBUILD <id>
    Have a node set aside all that it holds, start again, and copy everything from
    its co-replicas; at once, or when it returns. Refused where they might lack
    something that was acknowledged.
REPAIR [PARTITION <partition>] [NODE <id>] | REPAIR STATUS
    Begin to compare the replicas of everything, of one partition, or of one node,
    and to send what one of them lacks. Return as JSON how far that is.
RESOLVE <key> <context> <value>
    Replace what the context has seen of a key, and nothing else, by a value.
RING
    Return the epoch of the ring, its fingerprint, and the share of each member.
SIBLINGS <key>
    Return the context of a key, for RESOLVE, and all its values, the newest
    (which GET answers) first.
STATUS
    Return as JSON the cluster as this node sees it.
VERSION <key>
    Return in words what the record of a key has seen: for each actor the time
    of its last write; and the versions of the values that it holds."""
_KeyState = tuple[bytes, list[str]]
"""What a node holds of a key, and the owners for which it holds a hint row."""
_decode_key_state: Callable[[bytes], _KeyState] = border.reader(cast("Any", _KeyState))


@command("RESPKV", arity=-2, group="cluster", complexity="Depends on subcommand.")
def respkv(request: Request) -> bytes:
    """A container for commands about quorums, hints and replicas."""
    raise NotImplementedError(request)


@command("RESPKV|HELP", arity=2, flags=_FLAGS, group="cluster", complexity="O(1)")
def respkv_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("RESPKV", HELP)


# --- keys and their replicas


@command("RESPKV|PREFLIST", arity=3, flags=_FLAGS, keys=SECOND, group="cluster", complexity="O(N) where N is the number of nodes")
def respkv_preflist(request: Request) -> bytes:
    """Returns the preference list of a key."""
    context = request.context
    members = members_by_id(context)
    table = context.coordinator.table
    assert table is not None
    partition = key_slot(request.args[2]) >> context.store.shift
    told = []
    for place, node in enumerate(table.preference(partition)):
        address = members[node].address
        role = "primary" if place < table.n else "fallback"
        told.append([node, f"{address.host}:{address.port}", role, STATES[members[node].state]])
    return encode(told, request.resp)


class _Replica(msgspec.Struct):
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
    hints_for: list[str] = []


class _Whereabouts(msgspec.Struct):
    key: str
    slot: int
    partition: int
    preference_list: list[str]
    replicas: list[_Replica]


@command("RESPKV|KEY", arity=3, flags="readonly", keys=SECOND, group="cluster", complexity="O(N) where N is the number of nodes")
def respkv_key(request: Request) -> Steps:
    """Returns as JSON where a key lives and what each of its replicas holds."""
    context, key = request.context, request.args[2]
    table, members = context.coordinator.table, members_by_id(context)
    assert table is not None
    slot = key_slot(key)
    preference = table.preference(slot >> context.store.shift)
    reachable = [node for node in preference if node == context.me or context.membership.usable(node)]
    answers: dict[NodeId, Any] = yield Ask(reachable, "key", key, decode=_read_key_state)
    held: dict[NodeId, _KeyState] = {}
    for node, answer in answers.items():
        if answer is not None and not is_error(answer):
            record, owners = answer
            held[node] = (records.without_expired_value(record, request.now_ms), owners)
    newest = reduce(merge, (record for record, _ in held.values()), b"")
    replicas = []
    for place, node in enumerate(preference):
        is_primary = place < table.n
        if is_primary or (node in held and held[node][0]):
            replica = _replica(held.get(node), newest, now_ms=request.now_ms)
            replica.id, replica.role = node, "primary" if is_primary else "fallback"
            replica.host, replica.port = members[node].address.host, members[node].address.port
            replicas.append(replica)
    found = _Whereabouts(key.decode("utf-8", "backslashreplace"), slot, slot >> context.store.shift, preference, replicas)
    return bulk(msgspec.json.encode(found))


def _read_key_state(answer: bytes) -> _KeyState:
    record, owners = _decode_key_state(answer)
    if record and not records.is_well_formed(record):
        msg = "holds what is no record"
        raise PeerProtocolError(msg)
    return record, owners


def _replica(held: _KeyState | None, newest: bytes, *, now_ms: int) -> _Replica:
    if held is None:
        return _Replica("", "", 0, "", "unreachable")
    record, owners = held
    state = "in step" if record == newest else "stale" if record else "missing"
    replica = _Replica("", "", 0, "", state, hints_for=owners)
    if record:
        replica.version = records.describe(record)
        replica.vector, replica.siblings = describe_vector(record), records.siblings_count(record)
        value = records.value_of(record, now_ms)
        if value is not None and record[16] != TOMBSTONE:
            expires_at = records.expiry_of(record, now_ms)
            replica.type, replica.size = records.type_name(record), len(value)
            replica.ttl_ms = -1 if expires_at is None else max(expires_at - now_ms, 0)
    return replica


# --- quorums


@command("RESPKV|QUORUM", arity=-2, flags=_FLAGS, group="cluster", complexity="O(1)")
def respkv_quorum(request: Request) -> bytes:
    """Returns or chooses the quorums of this connection."""
    client, context, words = request.client, request.context, request.args[2:]
    assert client is not None
    if not words:
        quorum = client.quorum_of(context, is_write=False) or context.coordinator.quorum
        told = {**quorum._asdict(), "sloppy": _yes(context.coordinator.compensation.sloppy)}
        return encode({**told, "chosen": _yes(client.quorum is not None)}, request.resp)
    if [word.upper() for word in words] == [b"DEFAULT"]:
        client.quorum = None
    else:
        client.quorum = _chosen(client.quorum or context.coordinator.quorum, words)
    client.settle()
    return OK


def _chosen(quorum: Quorums, words: list[bytes]) -> Quorums:
    if len(words) % 2:
        raise SyntaxProblemError
    changed: dict[str, int] = {}
    for name_word, word in zip(words[::2], words[1::2], strict=True):
        name, text = name_word.decode("utf-8", "replace").lower(), word.decode("utf-8", "replace").lower()
        if name not in {"r", "w", "pr", "pw"} or name in changed:
            raise SyntaxProblemError
        try:
            changed[name] = resolve_quorum(text, quorum.n) if text in QUORUM_WORDS else parse_integer(word)
        except NotAnIntegerError:
            raise ClientError(f"{name.upper()} must be a number, one, quorum or all") from None
        if changed[name] < (name in {"r", "w"}):
            raise ClientError(f"{name.upper()} must be at least {int(name in {'r', 'w'})}")
    quorum = quorum._replace(**changed)
    problem = quorum_problem(quorum)
    if problem:
        raise ClientError(problem.reason)
    return quorum


@command("RESPKV|LAST", arity=2, flags=_FLAGS, group="cluster", complexity="O(1)")
def respkv_last(request: Request) -> bytes:
    """Returns what is known of the last read or write of this connection."""
    assert request.client is not None
    last = request.client.last
    if last is None:
        return encode(None, request.resp)
    if isinstance(last, str):
        return encode({"kind": "passed on", "node": last}, request.resp)
    batches = last if isinstance(last, list) else [last]
    told = [_told_read(batch) if isinstance(batch, ReadBatch) else _told_write(batch) for batch in batches]
    # Of a command with keys in many places, the one that got furthest behind what it needs.
    return encode(min(told, key=lambda each: each["answered"] - each["needed"]), request.resp)


def _told_read(batch: ReadBatch) -> dict[str, Any]:
    return {
        "kind": "read",
        "needed": batch.quorum.r,
        "answered": batch.quorum.r - batch.need,
        "primaries_needed": batch.quorum.pr,
        "primaries": batch.primary_answers,
        "asked": len(batch.asked) + batch.local,
        "hinted": 0,
        "waiting": len(batch.waiting),
        "keys": len(batch.keys),
        "stamp": max((records.newest_stamp_of(record) for record in batch.best), default=0),
    }


def _told_write(batch: WriteBatch) -> dict[str, Any]:
    return {
        "kind": "write",
        "needed": batch.quorum.w,
        "answered": batch.acks,
        "primaries_needed": batch.quorum.pw,
        "primaries": batch.primary_acks,
        "asked": len(batch.route.write_peers) + len(batch.route.stand_ins) + batch.route.local_write,
        "hinted": batch.hinted,
        "waiting": len(batch.waiting),
        "keys": batch.count,
        "stamp": batch.stamp,
    }


# --- hints, ring, nodes


@command("RESPKV|HINTS", arity=2, flags=_FLAGS, group="cluster", complexity="O(N) where N is the number of nodes")
def respkv_hints(request: Request) -> bytes:
    """Returns the hints that this node holds, by owner."""
    context = request.context
    hints, now = context.hints, context.turn.now
    outstanding = _outstanding(context)
    told = [
        {
            "owner": owner,
            "held": len(hints.rows.get(owner, ())),
            "held_by_all": count,
            "oldest_s": int(hints.oldest_s(owner, now)),
            "closed": _yes(owner in hints.closed),
        }
        for owner, count in sorted(outstanding.items())
    ]
    return encode(told, request.resp)


def _outstanding(context: Context) -> dict[NodeId, int]:
    members = [member.node for member in context.ring.members]
    return hints_outstanding(members, me=context.me, membership=context.membership, hints=context.hints)


@command("RESPKV|RING", arity=2, flags=_FLAGS, group="cluster", complexity="O(N) where N is the number of partitions")
def respkv_ring(request: Request) -> bytes:
    """Returns the ring and the share of each member."""
    ring, members = request.context.ring, members_by_id(request.context)
    owned = ring.owned_counts()
    told = {
        "epoch": ring.epoch,
        "hash": ring.digest(),
        "size": ring.size,
        "members": [
            {
                "id": member.node,
                "address": f"{members[member.node].address.host}:{members[member.node].address.port}",
                "zone": member.zone,
                "partitions": owned[member.node],
                "state": STATES[members[member.node].state],
            }
            for member in ring.members
        ],
    }
    return encode(told, request.resp)


@command("RESPKV|STATUS", arity=2, flags=_FLAGS, group="cluster", complexity="O(N) where N is the number of nodes")
def respkv_status(request: Request) -> bytes:
    """Returns as JSON the cluster as this node sees it."""
    context = request.context
    ring, members = context.ring, members_by_id(context)
    quorum, sloppy = context.coordinator.quorum, context.coordinator.compensation.sloppy
    own_hash = ring.digest()
    agreed = sum(member.application.get("ring_hash") == own_hash and member.state is MemberState.UP for member in members.values())
    cluster = {
        **quorum._asdict(),
        "sloppy": _yes(sloppy),
        "handoff": _yes(context.settings.hinted_handoff),
        "epoch": ring.epoch,
        "agreed": f"{agreed}/{len(ring.members)}",
        "short_ratio": _short_ratio(context, members),
        "resize": resize_told(context),
    }
    owned, outstanding = ring.owned_counts(), _outstanding(context)
    zones = {member.node: member.zone for member in ring.members}
    nodes = []
    for node, member in members.items():
        is_away = member.state in {MemberState.DOWN, MemberState.UNKNOWN}
        told = {} if is_away else member.application
        nodes.append(
            {
                "id": node,
                "name": node[:8],
                "host": member.address.host,
                "port": member.address.port,
                "cluster_port": member.address.cluster_port,
                "state": STATES[member.state],
                "owns_ratio": owned[node] / ring.size,
                "keys": told.get(KEYS),
                "bytes": told.get(BYTES),
                "hints_held_for": outstanding.get(node, 0),
                "phi": round(member.phi, 2),
                "uptime_s": None if is_away else max(context.turn.wall_ms - member.generation, 0) // 1000,
                "zone": zones[node],
                "rebuilding": bool(told.get("rebuilding")),
                "refuses_writes": str(told.get(REFUSES) or ""),
                "must_rebuild": bool(mark_of(context.cluster_value(), node)),
                "resize": str(told.get(RESIZE) or "").rpartition(".")[2],
            }
        )
    return bulk(msgspec.json.encode({"cluster": cluster, "nodes": nodes}))


def _short_ratio(context: Context, members: dict[NodeId, MemberView]) -> float:
    """The part of the ring of which a primary is away."""
    table = context.coordinator.table
    assert table is not None
    away = {node for node, member in members.items() if STATES[member.state] == "down"}
    return sum(not away.isdisjoint(table.primaries(partition)) for partition in range(table.ring.size)) / table.ring.size


def members_by_id(context: Context) -> dict[NodeId, MemberView]:
    """The members of the ring in the order of their addresses."""
    ring = {member.node for member in context.ring.members}
    found = [member for member in context.membership.members(context.turn.now) if member.address.node in ring]
    return {member.address.node: member for member in sorted(found, key=lambda member: (member.address.host, member.address.port))}


def _yes(truth: object) -> str:
    return "yes" if truth else "no"
