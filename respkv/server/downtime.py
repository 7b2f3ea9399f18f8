"""Who has been away for so long that it is rebuilt when it returns, instead of merged. Pure.

Rule 1: a node counts how long others have been away, for itself and for all that it hears, while it was itself with more than half
of the members. So a cluster that slept as a whole, a minority that was cut off, or one path that is broken marks nobody. The
counts outlive a restart, in a small file.
Rule 2: nobody is marked whose co-replicas, as far as they lack no data and are not marked themselves, might lack what it has
acknowledged. An operator's wish is judged by the node that marks by itself, the first of a majority: two who judged for themselves
could each have the other one rebuilt that has acknowledged the same.
Rule 3: the same file tells a node that starts when it was last with the majority: if that is long ago it asks first (`rebuild`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from respkv.commands.published import AWAY, encode_away, reached_by
from respkv.config.cluster_value import marked_nodes
from respkv.coordinator.operations import Ask
from respkv.errors import ClientError, PeerProtocolError
from respkv.transport import border

if TYPE_CHECKING:
    from respkv.coordinator.operations import Call, Steps
    from respkv.ids import NodeId
    from respkv.server.node import Node

SEEN_FILE = "seen"
LOOK_S = 1.0
STEP_MAX_S = 5.0
"""A node that was stopped has not watched the others meanwhile."""
SAVE_S = 60.0


class Seen(msgspec.Struct, array_like=True):
    """What the small file holds."""

    wall_ms: int
    """When this node was last with the majority."""
    away_s: dict[str, float]
    """For how long others have been away."""


_encode = msgspec.msgpack.Encoder().encode
_decode = border.reader(Seen)


def _decode_ok(answer: bytes) -> bytes:
    if answer != b"+OK\r\n":
        msg = "an answer to a mark that is none"
        raise PeerProtocolError(msg)
    return answer


class Downtime:
    """Counts how long members are away, and marks them."""

    __slots__ = ("_away_s", "_look_at", "_marking", "_node", "_save_at", "_since", "_was_with_majority")

    def __init__(self, node: Node) -> None:
        """Nobody is known to be away."""
        self._node = node
        now = node.context.turn.now
        self._away_s: dict[NodeId, float] = {}
        self._since = now
        self._look_at = now + LOOK_S
        self._save_at = now + LOOK_S
        self._was_with_majority = False
        self._marking = False
        node.context.mark_node = self.mark

    def restore(self, content: bytes) -> None:
        """What the file holds that the process before this one has written, or nothing."""
        node = self._node
        if not content:
            return
        try:
            seen = _decode(content)
        except PeerProtocolError:
            return
        self._away_s = dict(seen.away_s)
        absent_s = (node.context.turn.wall_ms - seen.wall_ms) / 1000
        limit = node.settings.max_downtime
        if limit and absent_s > limit and node.cluster.members_count > 1 and not node.rebuild.needed:
            node.rebuild.hold(f"it was last with the majority {int(absent_s)} seconds ago (max-downtime {limit})")

    def next_due(self) -> float:
        """When `tick` is to be called again."""
        return self._look_at

    def tick(self) -> None:
        """Once a turn."""
        node = self._node
        now = node.context.turn.now
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        step_s, self._since = min(now - self._since, STEP_MAX_S), now
        usable = node.topology.usable()
        members = {member.node for member in node.cluster.ring.members}
        away = members - usable
        node.membership.publish(AWAY, encode_away(away))
        if not self._is_with_majority(usable) or node.rebuild.is_held:
            self._was_with_majority = False
            return
        away -= reached_by((usable & members) - {node.me}, away, membership=node.membership)
        self._away_s = {member: self._away_s.get(member, 0.0) + step_s for member in away}
        if now >= self._save_at or not self._was_with_majority:
            self._save_at = now + SAVE_S
            node.context.save_file(SEEN_FILE, _encode(Seen(node.context.turn.wall_ms, self._away_s)))
        self._was_with_majority = True
        if min(usable) == node.me and not self._marking:
            self._mark_next()

    def _is_with_majority(self, usable: frozenset[NodeId]) -> bool:
        members = {member.node for member in self._node.cluster.ring.members}
        return 2 * len(usable & members) > len(members)

    def _mark_next(self) -> None:
        node = self._node
        limit = node.settings.max_downtime
        marked = marked_nodes(node.cluster.value)
        for member, seconds in sorted(self._away_s.items()):
            if limit and seconds > limit and member not in marked and not self.why_not(member):
                self._marking = True
                text = f"node {member[:8]} has been away for longer than max-downtime: it is rebuilt when it returns"
                node.context.turn.events.append(("warning", text))
                node.operations.start(node.cluster.mark(member), on_done=self._marked)
                return

    def _marked(self, _: bytes) -> None:
        self._marking = False

    def mark(self, member: NodeId) -> Steps:
        """An operator wants a node to be rebuilt. Raises ClientError where there is no majority to judge it."""
        node = self._node
        usable = node.topology.usable()
        if not self._is_with_majority(usable):
            msg = "this node does not see more than half of the members, and the others may have another node rebuilt meanwhile"
            raise ClientError(f"{msg}; nothing was done")
        decider = min(usable)
        answers = yield Ask([decider], "mark", member.encode(), timeout_s=2 * node.coordinator.request_timeout_s, decode=_decode_ok)
        return answers[decider] or b"-TIMEOUT node %b has not answered; it may still have it rebuilt\r\n" % decider[:8].encode()

    def serve_mark(self, call: Call) -> None:
        """The call "mark". Raises ClientError where that could lose what was acknowledged."""
        node, member = self._node, call.argument.decode("ascii", "replace")
        if member not in {each.node for each in node.cluster.ring.members}:
            msg = "a mark of who is no member"
            raise PeerProtocolError(msg)
        usable = node.topology.usable()
        if member in marked_nodes(node.cluster.value):
            # A second mark would set aside what was copied because of the first, in the place of what was held before.
            reason = "it is marked already"
        elif min(usable) != node.me or not self._is_with_majority(usable):
            reason = "nodes do not agree on who is up"
        else:
            reason = self.why_not(member)
        if reason:
            msg = f"{reason}; nothing was done"
            raise ClientError(msg)
        node.operations.start(node.cluster.mark(member), on_done=call.answer)

    def why_not(self, member: NodeId, *, among: frozenset[NodeId] | None = None) -> str:
        """Why a node must not be marked, or nothing: its acknowledged writes have to be on others, or on others `among` some."""
        node = self._node
        table, quorum = node.coordinator.table, node.coordinator.quorum
        assert table is not None
        gone = marked_nodes(node.cluster.value) | {member} | self._incomplete()
        if among is not None:
            gone |= {each.node for each in node.cluster.ring.members} - among
        needed = quorum.n - quorum.w + 1
        for partition in range(len(table.holds)):
            primaries = table.primaries(partition)
            if member in primaries and len(set(primaries) - gone) < needed:
                left = len(set(primaries) - gone)
                return f"of some keys {left} other replicas are left, and {needed} are needed to have all that was acknowledged"
        return ""

    def _incomplete(self) -> set[NodeId]:
        """Those who lack data themselves: what they have acknowledged may be on the one that is to set its copies aside."""
        node = self._node
        lacking = {member.node for member in node.cluster.ring.members if member.node != node.me and node.topology.lacks_data(member.node)}
        return lacking | ({node.me} if node.rebuild.lacks_data else set())
