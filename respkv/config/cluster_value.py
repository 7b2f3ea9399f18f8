"""The value that all nodes share: the directives of scope cluster, the flush floor, and what is on its way out.

Rule 1: values are totally ordered, and merging two is taking the greater: every node that has seen the same values has the same one.
Rule 2: the flush floor only rises, and so do the marks of nodes that must be rebuilt, whichever value wins.
Rule 3: while nodes may still follow an older rule, the stricter of old and new is in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import xxhash

from respkv.config.changes import apply
from respkv.config.checks import combination_problem
from respkv.config.directives import BY_NAME, SHARED
from respkv.config.quorums import Quorums, resolve_quorums
from respkv.config.replication import DROPPING, PREPARING, SWITCHED, Replication, Resize, steady
from respkv.config.settings import Settings
from respkv.config.values import UnfitArgumentError
from respkv.errors import OverloadedError, PeerProtocolError
from respkv.ids import ACTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from respkv.ids import NodeId

ENCODED_BYTES_MAX = 65536
NODE_ID_DIGITS = 40
RULES_MAX = 8
"""How many changes of the quorum may be on their way at once."""

N = "replication-factor"
RULE = (
    N,
    "read-quorum",
    "write-quorum",
    "primary-read-quorum",
    "primary-write-quorum",
    "sloppy-quorum",
)
"""The directives that decide how many have to answer. N itself changes in stages: see `replication`."""

_STAMP_MAX = 2**64 - 1
_DEFAULTS = {directive.name: Settings().show(directive.name) for directive in SHARED}


class ClusterValue(msgspec.Struct, frozen=True, array_like=True):
    """One version of the shared value."""

    stamp: int
    """Hybrid logical clock of the node that made it; 0 for what the file says."""
    actor: bytes
    settings: dict[str, str]
    """By name, as CONFIG GET shows them. Names that this release does not know are kept for the nodes that do."""
    flush_floor: int = 0
    """Records with a smaller stamp do not exist."""
    transition: tuple[dict[str, str], ...] = ()
    """The rules that live nodes may still follow, oldest first; empty once all have confirmed."""
    resize: Resize | None = None
    """The change of N that is on its way."""
    rebuilds: dict[str, tuple[int, int]] = {}
    """By node: the stamp of the last mark that what it holds is to be set aside, and of the last that it has acted on."""


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(ClusterValue)


def founding_value(settings: Settings) -> ClusterValue:
    """What a node starts with that has no value on its disk: older than anything that was ever set."""
    return ClusterValue(0, bytes(ACTOR_BYTES), {directive.name: settings.show(directive.name) for directive in SHARED})


def encode(value: ClusterValue) -> bytes:
    """The value as bytes, the same for equal values."""
    return _encoder.encode(value)


def decode(data: bytes) -> ClusterValue:
    """Read a value that another node or a file holds. Raises `PeerProtocolError` for what no node would make."""
    if len(data) > ENCODED_BYTES_MAX:
        msg = f"cluster value of {len(data)} bytes"
        raise PeerProtocolError(msg)
    try:
        value = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"cluster value: {error}"
        raise PeerProtocolError(msg) from None
    reason = _problem(value)
    if reason:
        msg = f"cluster value: {reason}"
        raise PeerProtocolError(msg)
    return value


def fingerprint(value: ClusterValue) -> int:
    """64 bits for the header of every frame: nodes whose fingerprints differ exchange values and merge.

    A stamp would not do: after concurrent changes two values can share it and differ in their flush floor.
    """
    return xxhash.xxh64_intdigest(encode(value))


def merge(left: ClusterValue, right: ClusterValue) -> ClusterValue:
    """The greater of both, with the higher floor and the later marks."""
    greater = max(left, right, key=_rank)
    floor = max(left.flush_floor, right.flush_floor)
    rebuilds = dict(left.rebuilds)
    for node, stamps in right.rebuilds.items():
        held = rebuilds.get(node, (0, 0))
        rebuilds[node] = max(stamps[0], held[0]), max(stamps[1], held[1])
    if greater.flush_floor == floor and greater.rebuilds == rebuilds:
        return greater
    return msgspec.structs.replace(greater, flush_floor=floor, rebuilds=rebuilds)


def with_mark(value: ClusterValue, node: NodeId, stamp: int) -> ClusterValue:
    """The value in which a node must be rebuilt."""
    return merge(value, msgspec.structs.replace(value, rebuilds={node: (stamp, 0)}))


def without_mark(value: ClusterValue, node: NodeId, stamp: int) -> ClusterValue:
    """The value in which a node was rebuilt because of the mark of this stamp, or an earlier one."""
    return merge(value, msgspec.structs.replace(value, rebuilds={node: (0, stamp)}))


def mark_of(value: ClusterValue, node: NodeId) -> int:
    """The stamp of the mark because of which a node must be rebuilt; 0 if it need not."""
    marked, rebuilt = value.rebuilds.get(node, (0, 0))
    return marked if marked > rebuilt else 0


def marked_nodes(value: ClusterValue) -> frozenset[NodeId]:
    """The nodes that must be rebuilt: nothing that they hold is merged or answered, and nothing waits for them."""
    return frozenset(node for node in value.rebuilds if mark_of(value, node))


def successor(value: ClusterValue, changed: Mapping[str, str], *, stamp: int, actor: bytes, members: int) -> ClusterValue:
    """The value after CONFIG SET. A change of the quorum begins a transition, which `settled` ends; one of N a resize.

    Raises `OverloadedError` while earlier changes that would be in the way are not done.
    """
    assert stamp > value.stamp
    settings = {**value.settings, **changed}
    transition = value.transition
    rule_before = _rule(value.settings)
    # Another N alone asks for nothing here: its own stages see to it that both rules are met.
    if {**_rule(settings), N: rule_before[N]} != rule_before and rule_before not in transition:
        if len(transition) >= RULES_MAX:
            msg = f"{RULES_MAX} earlier changes of the quorum are not yet confirmed by all live nodes"
            raise OverloadedError(msg)
        transition = (*transition, rule_before)
    resize = _resized(value, settings, stamp=stamp, members=members)
    return msgspec.structs.replace(value, stamp=stamp, actor=actor, settings=settings, transition=transition, resize=resize)


def _resized(value: ClusterValue, settings: Mapping[str, str], *, stamp: int, members: int) -> Resize | None:
    """The change of N that is on its way once these settings are in force."""
    before, after = _members_count(value.settings, members), _members_count(settings, members)
    resize = value.resize
    if after == before:
        return resize
    if resize is None:
        return Resize(stamp, before, PREPARING)
    if resize.stage == PREPARING and after == min(resize.old_n, members):
        # Taken back: nobody reads the new N yet, and all that was written is on enough of the old.
        return Resize(stamp, before, SWITCHED)
    msg = f"an earlier change of replication-factor, from {resize.old_n} to {before}, is still being carried out; nothing was done"
    raise OverloadedError(msg)


def next_stage(value: ClusterValue, *, stamp: int, actor: bytes, members: int) -> ClusterValue:
    """The value once the present stage of its resize is done everywhere."""
    assert stamp > value.stamp
    resize = value.resize
    assert resize is not None
    following: Resize | None = None
    if resize.stage == PREPARING:
        following = msgspec.structs.replace(resize, stage=SWITCHED)
    elif resize.stage == SWITCHED and _members_count(value.settings, members) < min(resize.old_n, members):
        following = msgspec.structs.replace(resize, stage=DROPPING)
    return msgspec.structs.replace(value, stamp=stamp, actor=actor, resize=following)


def settled(value: ClusterValue, *, stamp: int, actor: bytes) -> ClusterValue:
    """The value once all live nodes have confirmed it: only the new rule is left."""
    assert stamp > value.stamp
    return msgspec.structs.replace(value, stamp=stamp, actor=actor, transition=())


def flushed(value: ClusterValue, floor: int, *, stamp: int, actor: bytes) -> ClusterValue:
    """The value after FLUSHALL: what was written before `floor` is gone."""
    assert stamp > value.stamp
    return msgspec.structs.replace(value, stamp=stamp, actor=actor, flush_floor=max(floor, value.flush_floor))


def shared_settings(value: ClusterValue) -> dict[str, str]:
    """All directives of scope cluster that this release knows: what `changes.apply` takes."""
    return {name: value.settings.get(name, default) for name, default in _DEFAULTS.items()}


def differences(settings: Settings, value: ClusterValue) -> list[tuple[str, str, str]]:
    """Where the cluster's value beats what the file says: (name, in the file, in force). For the log."""
    return [(name, settings.show(name), text) for name, text in shared_settings(value).items() if settings.show(name) != text]


def effective_replication(value: ClusterValue, *, members: int) -> Replication:
    """Who is read, written and counted in a ring of so many members."""
    new_n, resize = _members_count(value.settings, members), value.resize
    if resize is None:
        return steady(_quorums(value, new_n))
    old_n = min(resize.old_n, members)
    low, high = min(old_n, new_n), max(old_n, new_n)
    if resize.stage == DROPPING:
        return steady(_quorums(value, new_n))._replace(held_n=high)
    # A number may be meant for the other N.
    read, core = _quorums(value, old_n if resize.stage == PREPARING else new_n).cut(), _quorums(value, low).cut()
    quorum = read._replace(w=core.w, pw=core.pw)
    return Replication(quorum, low, high, _quorums(value, high).cut().w, high)


def effective_quorums(value: ClusterValue, *, members: int) -> Quorums:
    """The quorums in force in a ring of so many members."""
    return effective_replication(value, members=members).quorum


def _quorums(value: ClusterValue, n: int) -> Quorums:
    """The quorums of so many replicas: in a transition the largest of old and new, number by number."""
    quorums = _resolve(value.settings, n)
    for rule in value.transition:
        quorums = quorums.larger(_resolve(rule, n))
    return quorums


def effective_sloppy(value: ClusterValue) -> bool:
    """Whether stand-ins count: in a transition only if they do under old and new."""
    return all(_get(rule, "sloppy-quorum") == "yes" for rule in (value.settings, *value.transition))


def _rank(value: ClusterValue) -> tuple[int, bytes, bytes]:
    # Two files that disagree make different founding values of one stamp: the bytes decide alike on all nodes.
    # The floor and the marks are left out, because merging changes them.
    return value.stamp, value.actor, _encoder.encode((value.settings, value.transition, value.resize))


def _rule(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: _get(settings, name) for name in RULE}


def _get(settings: Mapping[str, str], name: str) -> str:
    return settings.get(name, _DEFAULTS[name])


def _members_count(settings: Mapping[str, str], members: int) -> int:
    """N, in a ring of so many members."""
    return min(int(_get(settings, N)), members)


def _resolve(settings: Mapping[str, str], n: int) -> Quorums:
    return resolve_quorums(
        n,
        read=_get(settings, "read-quorum"),
        write=_get(settings, "write-quorum"),
        primary_read=_get(settings, "primary-read-quorum"),
        primary_write=_get(settings, "primary-write-quorum"),
    )


def _problem(value: ClusterValue) -> str:
    """What is wrong with a value that has the right form, or nothing."""
    if not 0 <= value.stamp <= _STAMP_MAX or not 0 <= value.flush_floor <= _STAMP_MAX:
        return "stamp out of range"
    if len(value.actor) != ACTOR_BYTES:
        return "actor of the wrong length"
    if len(value.transition) > RULES_MAX:
        return "too many rules in transition"
    if any(len(node) != NODE_ID_DIGITS or not all(0 <= stamp <= _STAMP_MAX for stamp in stamps) for node, stamps in value.rebuilds.items()):
        return "marks of what are no nodes"
    if value.resize is not None and not (value.resize.old_n >= 1 and PREPARING <= value.resize.stage <= DROPPING):
        return "a change of replication-factor that cannot be"
    for settings in (value.settings, *value.transition):
        reason = _settings_problem(settings)
        if reason:
            return reason
    return ""


def _settings_problem(settings: Mapping[str, str]) -> str:
    trial = Settings()
    for name, text in settings.items():
        directive = BY_NAME.get(name)
        if directive is None:
            continue
        if name != directive.name or not directive.is_shared:
            return f"{name} does not belong to the cluster"
        try:
            apply(trial, {name: text})
        except UnfitArgumentError as error:
            return f"{name}: {error}"
        if trial.show(name) != text:
            return f"{name}: not in the form that nodes write"
    problem = combination_problem(trial)
    return problem.reason if problem else ""


def differences_between(before: ClusterValue, after: ClusterValue) -> list[tuple[str, str, str]]:
    """What changed between two values: (name, before, after). For the log."""
    old, new = shared_settings(before), shared_settings(after)
    return [(name, old[name], text) for name, text in new.items() if old[name] != text]
