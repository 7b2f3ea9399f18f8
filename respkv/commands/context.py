"""What a handler may use: its request, the client that sent it, and the node's machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from respkv.commands.causality import CausalContexts
from respkv.coordinator.batches import Waiter
from respkv.metrics import SlowEvents
from respkv.versions import records

if TYPE_CHECKING:
    import random

    from respkv.commands.table import Command
    from respkv.config.changes import Staged
    from respkv.config.cluster_value import ClusterValue
    from respkv.config.quorums import Quorums
    from respkv.config.settings import Settings
    from respkv.coordinator.coordinator import Coordinator
    from respkv.coordinator.operations import Operations, Steps
    from respkv.coordinator.replica import Replica
    from respkv.ids import NodeId
    from respkv.membership.gossip import Membership
    from respkv.placement.ring import Ring
    from respkv.repair.handoff import Handoff
    from respkv.repair.hints import HintBook
    from respkv.storage.store import Store
    from respkv.transport.turn import Turn
    from respkv.versions.clock import HybridClock

NIL = {2: b"$-1\r\n", 3: b"_\r\n"}


class Client(Waiter):
    """A connection, as commands see it and change it."""

    __slots__ = (
        "address",
        "authenticated",
        "backlog",
        "closing",
        "contexts",
        "created",
        "flags",
        "id",
        "last_active",
        "last_command",
        "lib_name",
        "lib_version",
        "local_address",
        "name",
        "out",
        "out_bytes",
        "quorum",
        "readonly",
        "reply_mode",
        "resp",
        "silent",
        "total_commands",
        "transaction",
        "transaction_bytes",
        "transaction_failed",
        "usual",
        "watched",
    )

    def __init__(self, client_id: int, *, address: str, local_address: str, now: float) -> None:
        """A client that has said nothing yet."""
        super().__init__(NIL[2])
        self.id = client_id
        self.address = address
        self.local_address = local_address
        self.created = now
        self.last_active = now
        self.last_command = "NULL"
        self.name = b""
        self.lib_name = b""
        self.lib_version = b""
        self.resp = 2
        self.authenticated = False
        self.flags: set[str] = set()
        """`no-evict`, `no-touch`."""
        self.reply_mode = "on"
        """`on`, `off`, or `skip` (the next reply only)."""
        self.silent = False
        """Whether the command that runs now is not answered."""
        self.readonly = False
        self.quorum: Quorums | None = None
        """What RESPKV QUORUM chose; None: the cluster's. `quorum_of` tells what is in force."""
        self.transaction: list[tuple[Command, list[bytes]]] | None = None
        """Commands that MULTI queued."""
        self.transaction_bytes = 0
        self.transaction_failed = False
        """A command was refused while it was to be queued: EXEC will refuse them all."""
        self.usual = False
        """Whether plain GET and SET may take the short way: see `settle`."""
        self.contexts = CausalContexts()
        """What the connection has read of keys that keep siblings."""
        self.watched: dict[bytes, tuple[bytes, bool]] | None = None
        """By WATCH, for each key: which version was found, and whether there was a value."""
        self.total_commands = 0
        self.closing = False
        self.backlog: deque[list[bytes]] = deque()
        self.out: list[bytes] = []
        self.out_bytes = 0
        """Reply bytes that the shell could not send yet."""

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a command that has not come as a whole."""
        return 0

    def settle(self) -> None:
        """Call after a change of what decides whether requests are out of the usual."""
        self.nil = NIL[self.resp]
        usual = self.authenticated and self.transaction is None and self.quorum is None and not self.readonly
        self.usual = usual and self.reply_mode == "on" and not self.closing

    def quorum_of(self, context: Context, *, is_write: bool) -> Quorums | None:
        """The quorum of this client's next request; None: the cluster's. READONLY is nothing to commands that read and then write."""
        if self.readonly and not is_write and context.settings.readonly_consistency == "one":
            return (self.quorum or context.coordinator.quorum)._replace(r=1, pr=0)
        return self.quorum

    def set_authenticated(self, *, authenticated: bool) -> None:
        """Trust the client, or no longer."""
        raise NotImplementedError


@dataclass(slots=True)
class NodeStatistics:
    """Counters of a node since its start or CONFIG RESETSTAT."""

    connections_received_total: int = 0
    connections_rejected_total: int = 0
    commands_total: int = 0
    net_input_bytes: int = 0
    net_output_bytes: int = 0
    keyspace_hits: int = 0
    """Plain GETs not among them, as among the misses: the coordinator counts what they do not find."""
    keyspace_misses: int = 0
    get_operations_total: int = 0
    """GETs that did not take the short way of plain ones."""
    expired_keys: int = 0
    error_replies_total: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    protocol_errors_total: int = 0
    turns_total: int = 0
    frames_received_total: int = 0
    frames_sent_total: int = 0
    peer_input_bytes: int = 0
    peer_output_bytes: int = 0
    strangers_total: int = 0
    log_bytes_total: int = 0
    internal_errors_total: int = 0
    evicted_records_total: int = 0
    output_limit_closes_total: int = 0
    late_calls_total: int = 0
    """What was passed on to this node and came when nobody waited for it any more."""
    acl_denied_total: int = 0


@dataclass(slots=True, kw_only=True)
class SlowlogEntry:
    """One line of SLOWLOG GET."""

    number: int
    unix_s: int
    microseconds: int
    arguments: list[bytes]
    address: str
    name: bytes


@dataclass(slots=True, kw_only=True)
class Context:
    """The machines of a node, for handlers."""

    me: NodeId
    settings: Settings
    coordinator: Coordinator
    operations: Operations
    store: Store
    clock: HybridClock
    hints: HintBook
    membership: Membership
    turn: Turn
    ring: Ring
    actor: bytes
    rng: random.Random
    started_wall_ms: int
    started: float
    clients: dict[int, Any]
    """Connected clients by id; all are `Client`."""
    statistics: NodeStatistics
    slowlog: deque[SlowlogEntry]
    facts: dict[str, Any]
    """What only the shell knows: process_id, config_file, executable, tcp_port, memory use, log positions; kept current by it."""
    cluster_value: Callable[[], ClusterValue]
    change: Callable[[Staged], Steps]
    """Carry out a checked CONFIG SET: the node's part at once, the cluster's with all live nodes. Ends with +OK."""
    flush_all: Callable[[], Steps]
    """FLUSHALL. Ends with +OK."""
    close_client: Callable[[int], None]
    run_transaction: Callable[[Client, list[tuple[Command, list[bytes]]]], list[Any]]
    """Run queued commands; returns the cell that gets the array of their replies."""
    stop: Callable[[int], None]
    """Shut down with an exit code."""
    save_file: Callable[[str, bytes], None]
    """Ask the shell to write a small file (CONFIG REWRITE)."""
    replica: Replica
    handoff: Handoff
    slow_events: SlowEvents = field(default_factory=SlowEvents)
    """What LATENCY tells."""
    mark_node: Callable[[NodeId], Steps] | None = None
    """Sees to it that a node sets aside what it holds; set by the machine that knows whether that may be."""
    repair_figures: Callable[[], Mapping[str, Any]] = dict
    """What INFO tells of anti-entropy."""
    cache: dict[str, Any] = field(default_factory=dict)
    """What commands keep between calls because it is dear to draw: each under a name of its own, with what it was drawn from."""


class Request:
    """One command on its way."""

    __slots__ = ("args", "client", "context", "has_written", "held", "quorum", "resp", "seen")

    def __init__(self, context: Context, args: list[bytes], *, client: Client | None, resp: int, quorum: Quorums | None) -> None:
        """`client` is None where another node passed the command on."""
        self.context = context
        self.args = args
        self.client = client
        self.resp = resp
        self.quorum = quorum
        self.seen: bytes | None = None
        """What the client has read of the key, where another node passed the command on."""
        self.held: frozenset[bytes] = frozenset()
        """The keys on which this command runs alone, because this node is their primary."""
        self.has_written = False
        """Whether it has replaced what a key held that keeps siblings."""

    def holds(self, key: bytes) -> bool:
        """Whether the command may write a key that keeps siblings itself, and need not ask its primary to."""
        return key in self.held and self.context.coordinator.primary_of(key) == self.context.me

    def seen_of(self, key: bytes) -> bytes | None:
        """What the client has read of a key; None: nothing, or too long ago."""
        if self.client is None:
            return self.seen
        return self.client.contexts.of(key, now=self.context.turn.now, age_max_s=self.context.settings.causal_context_ttl)

    def use_up(self, key: bytes, seen: bytes | None) -> None:
        """What `seen_of` told is replaced by what the client has written."""
        if self.client is not None:
            self.client.contexts.use_up(key, seen)

    def note_read(self, key: bytes, record: bytes) -> None:
        """The client sees what a record holds: remember that, of keys that keep siblings."""
        if self.client is not None and self.context.coordinator.succession.policy.keeps_siblings(key):
            keys_max = self.context.settings.causal_context_keys
            self.client.contexts.note(key, record, now=self.context.turn.now, keys_max=keys_max)

    @property
    def connection(self) -> Client:
        """The client, for commands about the connection itself: those are never passed on."""
        assert self.client is not None
        return self.client

    @property
    def now_ms(self) -> int:
        """Unix milliseconds of this turn."""
        return self.context.turn.wall_ms

    @property
    def nil(self) -> bytes:
        """The reply for "nothing" in the client's protocol."""
        return NIL[self.resp]

    def string(self, value: bytes, expire_at_ms: int | None = None) -> bytes:
        """The record of a new version of a string."""
        context = self.context
        return records.string(value, stamp=context.clock.next(), actor=context.actor, expire_at_ms=expire_at_ms)

    def tombstone(self) -> bytes:
        """The record of a deletion."""
        return records.tombstone(stamp=self.context.clock.next(), actor=self.context.actor)

    def with_expiry(self, record: bytes, expire_at_ms: int) -> bytes:
        """The same version with another expiry."""
        record = records.without_expired_value(record, self.now_ms)
        return records.with_expiry(record, stamp=self.context.clock.next(), expire_at_ms=expire_at_ms)
