"""Which node is shown as the master of which slots: CLUSTER SLOTS, SHARDS and NODES are drawn from it. Pure.

Rule 1: the master shown for a partition is the first live node of its preference list, so clients that follow the map talk
straight to a replica, and go on when one dies.
Rule 2: whatever is drawn is the same on all nodes that see the same ring and the same members up; `myself` aside.
Rule 3: in CLUSTER SLOTS each node is met as a master before it is met as a replica: redis-py takes a node for what it first is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.membership.members import MemberState
from respkv.placement.slots import SLOT_COUNT
from respkv.resp.writer import array, bulk, encode, integer, mapping

if TYPE_CHECKING:
    from respkv.commands.context import Context
    from respkv.ids import NodeId
    from respkv.membership.views import MemberView

FLAGS = {
    MemberState.UP: "master",
    MemberState.SUSPECT: "master,fail?",
    MemberState.DOWN: "master,fail",
    MemberState.UNKNOWN: "master,fail?",
}


@dataclass(frozen=True, slots=True)
class Range:
    """Slots with the same master and the same replicas."""

    first: int
    last: int
    nodes: tuple[NodeId, ...]
    """The master, then the others that are live, in the order of the preference list."""


class SlotMap:
    """The map that belongs to one table of routes."""

    __slots__ = ("_me", "_slots", "_text", "epoch", "members", "ranges")

    def __init__(self, context: Context) -> None:
        """Draw it."""
        self._me = context.me
        self._slots: dict[int, bytes] = {}
        self._text = ""
        self.epoch = context.ring.epoch
        ring = {member.node for member in context.ring.members}
        found = [member for member in context.membership.members(context.turn.now) if member.address.node in ring]
        self.members: list[MemberView] = sorted(found, key=lambda member: member.address.node)
        self.ranges = _ranges(context)

    def ranges_of(self, node: NodeId) -> list[Range]:
        """The slots of which a node is shown as the master."""
        return _merged([Range(found.first, found.last, (node,)) for found in self.ranges if found.nodes[0] == node])

    def slots(self, resp: int) -> bytes:
        """CLUSTER SLOTS."""
        if resp not in self._slots:
            told = {member.address.node: _slots_node(member, resp) for member in self.members}
            firsts: dict[NodeId, Range] = {}
            for found in self.ranges:
                firsts.setdefault(found.nodes[0], found)
            parts = [_slots_range(found, [told[found.nodes[0]]]) for found in firsts.values()]
            introduced = set(map(id, firsts.values()))
            parts += [_slots_range(found, [told[node] for node in found.nodes]) for found in self.ranges if id(found) not in introduced]
            self._slots[resp] = array(parts)
        return self._slots[resp]

    def shards(self, resp: int) -> bytes:
        """CLUSTER SHARDS: each live node with its slots."""
        return encode(
            [
                {
                    "slots": [slot for found in self.ranges_of(member.address.node) for slot in (found.first, found.last)],
                    "nodes": [
                        {
                            "id": member.address.node,
                            "port": member.address.port,
                            "ip": member.address.host,
                            "endpoint": member.address.host,
                            "role": "master",
                            "replication-offset": 0,
                            "health": "fail" if member.state is MemberState.DOWN else "online",
                        }
                    ],
                }
                for member in self.members
            ],
            resp,
        )

    def nodes(self) -> str:
        """CLUSTER NODES: a line for each node."""
        if not self._text:
            self._text = "".join(self._line(member) for member in self.members)
        return self._text

    def _line(self, member: MemberView) -> str:
        address = member.address
        mine = "myself," if address.node == self._me else ""
        link = "connected" if member.link_open and member.state is not MemberState.DOWN else "disconnected"
        slots = "".join(
            f" {found.first}-{found.last}" if found.last > found.first else f" {found.first}" for found in self.ranges_of(address.node)
        )
        # No times of pings: they would differ from node to node.
        where = f"{address.host}:{address.port}@{address.cluster_port}"
        return f"{address.node} {where} {mine}{FLAGS[member.state]} - 0 0 {self.epoch} {link}{slots}\n"


def slot_map(context: Context) -> SlotMap:
    """The map of now; drawn once for each table of routes, which is drawn anew whenever a member comes or goes."""
    table = context.coordinator.table
    states = [(member.address.node, member.state, member.link_open) for member in context.membership.members(context.turn.now)]
    kept = context.cache.get("slot_map")
    if kept is None or kept[0] is not table or kept[1] != states:
        kept = context.cache["slot_map"] = (table, states, SlotMap(context))
    found: SlotMap = kept[2]
    return found


def _ranges(context: Context) -> list[Range]:
    table = context.coordinator.table
    assert table is not None
    usable = context.coordinator.compensation.usable
    width = SLOT_COUNT // len(table.first_live)
    found = []
    for partition, master in enumerate(table.first_live):
        if master is not None:
            replicas = tuple(node for node in table.primaries(partition) if node != master and node in usable)
            found.append(Range(partition * width, (partition + 1) * width - 1, (master, *replicas)))
    return _merged(found)


def _merged(ranges: list[Range]) -> list[Range]:
    """The same with neighbours of one kind joined."""
    merged: list[Range] = []
    for found in ranges:
        if merged and merged[-1].last + 1 == found.first and merged[-1].nodes == found.nodes:
            merged[-1] = Range(merged[-1].first, found.last, found.nodes)
        else:
            merged.append(found)
    return merged


def _slots_node(member: MemberView, resp: int) -> bytes:
    address = member.address
    return array([bulk(address.host.encode()), integer(address.port), bulk(address.node.encode()), mapping([], resp)])


def _slots_range(found: Range, nodes: list[bytes]) -> bytes:
    return array([integer(found.first), integer(found.last), *nodes])
