"""CLUSTER: the ring, told in the words of Redis Cluster."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from respkv.commands.help_text import help_reply
from respkv.commands.partition_walk import Walk
from respkv.commands.slot_map import slot_map
from respkv.commands.table import command
from respkv.errors import ClientError
from respkv.membership.members import MemberState
from respkv.placement.slots import SLOT_COUNT, key_slot
from respkv.resp.numbers import INTEGER_MAX, parse_integer
from respkv.resp.writer import EMPTY_ARRAY, OK, bulk, bulks, encode, integer, simple, verbatim

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from respkv.commands.context import Context, Request
    from respkv.coordinator.operations import Step, Steps
    from respkv.membership.views import MemberView

_CHANGE = "admin no_async_loading stale"
HELP = """
COUNT-FAILURE-REPORTS <node-id>
    Return number of failure reports for <node-id>.
COUNTKEYSINSLOT <slot>
    Return the number of keys in <slot>.
GETKEYSINSLOT <slot> <count>
    Return key names of a slot.
INFO
    Return information about the cluster.
KEYSLOT <key>
    Return the hash slot for <key>.
LINKS
    Return information about all network links between this node and its peers.
    Output format is an array where each array element is a map containing attributes of a link
MYID
    Return the node id.
NODES
    Return cluster configuration seen by node. Output format:
    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...
REPLICAS <node-id>
    Return <node-id> replicas: every node is a master.
SLOTS
    Return information about slots range mappings. Each range is made of:
    start, end, master and replicas IP addresses, ports and ids
SHARDS
    Return information about slot range mappings and the nodes associated with them.
(ADDSLOTS, DELSLOTS, SETSLOT, REPLICATE, FAILOVER and the like are refused:
    see RESPKV RING, and RESPKV PREFLIST for the replicas of a key.)"""


@command("CLUSTER", arity=-2, group="cluster", since="3.0.0", complexity="Depends on subcommand.")
def cluster(request: Request) -> bytes:
    """A container for Redis Cluster commands."""
    raise NotImplementedError(request)


@command("CLUSTER|INFO", arity=2, flags="stale", group="cluster", since="3.0.0", complexity="O(1)")
def cluster_info(request: Request) -> bytes:
    """Returns information about the state of a node."""
    context = request.context
    table, quorum = context.coordinator.table, context.coordinator.quorum
    assert table is not None
    width = SLOT_COUNT // len(table.routes)
    served = sum(
        route.write_up >= quorum.w
        and route.write_primaries_up >= quorum.pw
        and len(route.read_peers) + route.local_read >= quorum.r
        and route.read_primaries_up >= quorum.pr
        for route in table.routes
    )
    dead = table.first_live.count(None)
    counted = context.membership.statistics()
    traffic = (counted.gossip, counted.broadcast)
    told = {
        "cluster_state": "fail" if dead else "ok",
        "cluster_slots_assigned": SLOT_COUNT,
        "cluster_slots_ok": served * width,
        "cluster_slots_pfail": (len(table.routes) - served - dead) * width,
        "cluster_slots_fail": dead * width,
        "cluster_known_nodes": len(context.ring.members),
        "cluster_size": len(set(context.ring.owners)),
        "cluster_current_epoch": context.ring.epoch,
        "cluster_my_epoch": context.ring.epoch,
        "cluster_stats_messages_sent": sum(each.messages_sent_total for each in traffic),
        "cluster_stats_messages_received": sum(each.messages_received_total for each in traffic),
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return verbatim("".join(f"{name}:{value}\r\n" for name, value in told.items()), request.resp)


@command("CLUSTER|MYID", arity=2, flags="stale", group="cluster", since="3.0.0", complexity="O(1)")
def cluster_myid(request: Request) -> bytes:
    """Returns the ID of a node."""
    return bulk(request.context.me.encode())


@command("CLUSTER|MYSHARDID", arity=2, flags="stale", group="cluster", since="7.2.0", complexity="O(1)")
def cluster_myshardid(request: Request) -> bytes:
    """Returns the shard ID of a node: its own."""
    return bulk(request.context.me.encode())


@command("CLUSTER|NODES", arity=2, flags="stale", group="cluster", since="3.0.0", complexity="O(N) where N is the number of partitions")
def cluster_nodes(request: Request) -> bytes:
    """Returns the cluster configuration for a node."""
    return verbatim(slot_map(request.context).nodes(), request.resp)


@command("CLUSTER|SLOTS", arity=2, flags="stale", group="cluster", since="3.0.0", complexity="O(N) where N is the number of partitions")
def cluster_slots(request: Request) -> bytes:
    """Returns the mapping of cluster slots to nodes."""
    return slot_map(request.context).slots(request.resp)


@command("CLUSTER|SHARDS", arity=2, flags="stale", group="cluster", since="7.0.0", complexity="O(N) where N is the number of partitions")
def cluster_shards(request: Request) -> bytes:
    """Returns the mapping of cluster slots to shards."""
    return slot_map(request.context).shards(request.resp)


@command("CLUSTER|KEYSLOT", arity=3, flags="stale", group="cluster", since="3.0.0", complexity="O(N) where N is the length of the key")
def cluster_keyslot(request: Request) -> bytes:
    """Returns the hash slot for a key."""
    return integer(key_slot(request.args[2]))


@command(
    "CLUSTER|COUNTKEYSINSLOT",
    arity=3,
    flags="stale",
    group="cluster",
    since="3.0.0",
    complexity="O(N) where N is the keys of the partition",
)
def cluster_countkeysinslot(request: Request) -> Steps:
    """Returns the number of keys in a hash slot."""
    slot = parse_integer(request.args[2])
    if not 0 <= slot < SLOT_COUNT:
        raise ClientError("Invalid slot")
    return _count(request.context, slot)


def _count(context: Context, slot: int) -> Steps:
    found = yield from _keys_in(context, slot, INTEGER_MAX)
    return integer(len(found))


@command(
    "CLUSTER|GETKEYSINSLOT", arity=4, flags="stale", group="cluster", since="3.0.0", complexity="O(N) where N is the keys of the partition"
)
def cluster_getkeysinslot(request: Request) -> Steps:
    """Returns the key names in a hash slot."""
    slot, count = parse_integer(request.args[2]), parse_integer(request.args[3])
    if not 0 <= slot < SLOT_COUNT or count < 0:
        raise ClientError("Invalid slot or number of keys")
    return _get(request.context, slot, count)


def _get(context: Context, slot: int, count: int) -> Steps:
    found = yield from _keys_in(context, slot, count)
    return bulks(found)


def _keys_in(context: Context, slot: int, count: int) -> Generator[Step, Any, list[bytes]]:
    walk = Walk(context, slot=slot)
    partition = slot >> context.store.shift
    position: int | None = 0
    found: list[bytes] = []
    while position is not None and len(found) < count:
        for piece in (yield from walk.round({partition: position}, limit=INTEGER_MAX)):
            found += piece.keys
            position = piece.next_hash
    return list(islice(found, count))


@command("CLUSTER|LINKS", arity=2, flags="stale", group="cluster", since="7.0.0", complexity="O(N) where N is the number of nodes")
def cluster_links(request: Request) -> bytes:
    """Returns a list of all TCP links to and from peer nodes."""
    context = request.context
    queued = context.facts.get("peer_queue_bytes", {})
    told = [
        {
            "direction": "to",
            "node": member.address.node,
            "create-time": member.generation,
            "events": "rw" if queued.get(member.address.node) else "r",
            "send-buffer-allocated": queued.get(member.address.node, 0),
            "send-buffer-used": queued.get(member.address.node, 0),
        }
        for member in context.membership.members(context.turn.now)
        if member.link_open and member.address.node != context.me
    ]
    return encode(told, request.resp)


@command("CLUSTER|COUNT-FAILURE-REPORTS", arity=3, flags="admin stale", group="cluster", since="3.0.0", complexity="O(N)")
def cluster_count_failure_reports(request: Request) -> bytes:
    """Returns the number of active failure reports for a node: whether this node takes it for down."""
    return integer(int(_member(request).state is MemberState.DOWN))


@command("CLUSTER|REPLICAS", arity=3, flags="admin stale", group="cluster", since="5.0.0", complexity="O(1)")
def cluster_replicas(request: Request) -> bytes:
    """Lists the replica nodes of a master node: there are none."""
    _member(request)
    return EMPTY_ARRAY


@command("CLUSTER|SLAVES", arity=3, flags="admin stale", group="cluster", since="3.0.0", complexity="O(1)")
def cluster_slaves(request: Request) -> bytes:
    """Lists the replica nodes of a master node: there are none."""
    _member(request)
    return EMPTY_ARRAY


def _member(request: Request) -> MemberView:
    name = request.args[2].decode("utf-8", "surrogateescape")
    for member in slot_map(request.context).members:
        if member.address.node == name:
            return member
    raise ClientError(f"Unknown node {name}")


@command("CLUSTER|SAVECONFIG", arity=2, flags=_CHANGE, group="cluster", since="3.0.0", complexity="O(1)")
def cluster_saveconfig(request: Request) -> bytes:
    """Forces a node to save the cluster configuration to disk: it is saved whenever it changes."""
    del request
    return OK


@command("CLUSTER|BUMPEPOCH", arity=2, flags=_CHANGE, group="cluster", since="3.0.0", complexity="O(1)")
def cluster_bumpepoch(request: Request) -> bytes:
    """Advances the cluster config epoch: it changes with the ring alone."""
    return simple(f"STILL {request.context.ring.epoch}")


@command("CLUSTER|HELP", arity=2, flags="loading stale", group="cluster", since="5.0.0", complexity="O(1)")
def cluster_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("CLUSTER", HELP)


_PLACED = "which nodes keep a slot follows from the members of the ring, see RESPKV RING"
_EQUALS = "respkv has no masters and replicas: each key has its own preference list, see RESPKV PREFLIST"
REFUSED = {
    "ADDSLOTS": (-3, "3.0.0", _PLACED),
    "ADDSLOTSRANGE": (-4, "7.0.0", _PLACED),
    "DELSLOTS": (-3, "3.0.0", _PLACED),
    "DELSLOTSRANGE": (-4, "7.0.0", _PLACED),
    "FLUSHSLOTS": (2, "3.0.0", _PLACED),
    "SETSLOT": (-4, "3.0.0", _PLACED),
    "FAILOVER": (-2, "3.0.0", _EQUALS),
    "REPLICATE": (3, "3.0.0", _EQUALS),
    "MEET": (-4, "3.0.0", "the members of a ring are those that cluster-nodes named when it was founded"),
    "FORGET": (3, "3.0.0", "the members of a ring are those that cluster-nodes named when it was founded"),
    "RESET": (-2, "3.0.0", "to make a node start over, stop it and empty its dir: it then copies what it lacks"),
    "SET-CONFIG-EPOCH": (3, "3.0.0", "the epoch changes with the ring alone"),
}
"""What Redis Cluster's tools ask for by hand, and why it is not done: (arity, since, reason)."""


_MANY = frozenset(("ADDSLOTS", "ADDSLOTSRANGE", "DELSLOTS", "DELSLOTSRANGE", "RESET"))


def _refuse(name: str) -> None:
    arity, since, reason = REFUSED[name]

    flags = "admin noscript stale" if name == "RESET" else _CHANGE
    # What Redis says of it; a refusal costs nothing.
    complexity = "O(N) where N is the number of slots, or of nodes" if name in _MANY else "O(1)"

    @command(f"CLUSTER|{name}", arity=arity, flags=flags, group="cluster", since=since, complexity=complexity)
    def refuse(request: Request) -> bytes:
        """Refused: the ring is not changed by hand."""
        del request
        raise ClientError(f"CLUSTER {name} is not supported: {reason}")


for _name in REFUSED:
    _refuse(_name)
