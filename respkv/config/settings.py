"""The values of a node's directives.

An attribute is a directive's name with underscores; its value is in the directive's unit: `bool` for yes and no,
`int` for integers and numbers of bytes, `str` for words, strings and quorums (`'quorum'`, `'3'`: see `quorums`).
The table of directives decides what exists; a test compares it with the annotations here, which are for the type checker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.config.directives import BY_NAME, DIRECTIVES, lookup
from respkv.config.values import BufferLimits, Value, arguments_of, parse, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.config.directive import Directive

_GLOB_CHARACTERS = frozenset(b"*?[")

_DEFAULTS: dict[str, Value] = {
    directive.attribute: parse(directive, arguments_of(directive, directive.default)) for directive in DIRECTIVES
}


class Settings:
    """What is set on this node. Whoever changes it goes through `changes`, which checks first."""

    __slots__ = tuple(_DEFAULTS)

    bind: tuple[str, ...]
    port: int
    tcp_backlog: int
    tcp_keepalive: int
    timeout: int
    maxclients: int

    proto_max_bulk_len: int
    proto_max_multibulk_len: int
    client_query_buffer_limit: int
    client_output_buffer_limit: BufferLimits
    maxmemory_clients: int
    client_in_flight_max: int
    coordinator_in_flight_max: int
    turn_commands_max: int
    turn_bytes_max: int
    scan_scope: str

    protected_mode: bool
    requirepass: str
    enable_protected_configs: str
    unauthenticated_timeout: int
    unauthenticated_multibulk_max: int
    unauthenticated_bulk_max: int
    unauthenticated_query_buffer_limit: int
    unauthenticated_output_buffer_limit: int

    cluster_nodes: tuple[str, ...]
    ring_size: int
    availability_zone: str
    cluster_port: int
    cluster_announce_ip: str
    cluster_announce_port: int
    cluster_announce_bus_port: int
    cluster_secret: str
    membership_protocol: str
    gossip_interval: int
    gossip_fanout: int
    failure_detector: str
    phi_threshold: int
    cluster_node_timeout: int
    max_clock_skew: int
    peer_queue_limit: int
    cluster_enabled: str

    replication_factor: int
    read_quorum: str
    write_quorum: str
    primary_read_quorum: str
    primary_write_quorum: str
    sloppy_quorum: bool
    hinted_handoff: bool
    request_timeout: int
    speculative_retry: int
    speculative_retry_percent: int
    readonly_consistency: str
    read_repair: str

    max_hint_window: int
    max_downtime: int
    max_hints_size: int
    handoff_rate_min: int
    handoff_rate_max: int
    handoff_latency_target: int
    anti_entropy_interval: int
    tombstone_grace: int

    conflict_resolution: str
    conflict_resolution_prefix: tuple[str, ...]
    max_siblings: int
    causal_context_keys: int
    causal_context_ttl: int

    maxmemory: int
    maxmemory_policy: str
    memtable_size: int
    table_cache_size: int

    dir: str
    appendonly: str
    appendfsync: str
    save: str
    commit_log_segment_size: int
    min_free_disk: int
    accept_data_loss: bool

    loglevel: str
    logfile: str
    syslog_enabled: bool
    syslog_ident: str
    slowlog_log_slower_than: int
    slowlog_max_len: int
    latency_monitor_threshold: int
    loop_lag_threshold: int
    shutdown_timeout: int

    databases: int
    daemonize: str

    def __init__(self) -> None:
        """Begin with the defaults."""
        for attribute, value in _DEFAULTS.items():
            setattr(self, attribute, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Settings:
        """The same values, to try changes on."""
        twin = Settings()
        for attribute in self.__slots__:
            setattr(twin, attribute, getattr(self, attribute))
        return twin

    def value(self, directive: Directive) -> Value:
        """The value of a directive."""
        value: Value = getattr(self, directive.attribute)
        return value

    def assign(self, directive: Directive, arguments: list[str]) -> None:
        """Set one directive from the arguments of a line. Raises `UnfitArgumentError`."""
        setattr(self, directive.attribute, parse(directive, arguments, current=self.value(directive)))

    def show(self, name: str) -> str:
        """What CONFIG GET prints for a directive, by its name or alias."""
        return show(self.value(BY_NAME[name]))

    def changed(self) -> dict[str, str]:
        """What is not at its default, by name."""
        return {d.name: self.show(d.name) for d in DIRECTIVES if self.value(d) != _DEFAULTS[d.attribute]}

    def matching(self, patterns: list[bytes], *, matches: Callable[[bytes, bytes], bool]) -> list[tuple[bytes, bytes]]:
        """The names and values that CONFIG GET answers; `matches(pattern, name)` is a glob.

        As Redis does: a name that is asked for exactly comes back as it was written, be it an alias or in
        capitals; patterns find names and aliases.
        """
        found: dict[bytes, bytes] = {}
        for pattern in patterns:
            if _GLOB_CHARACTERS.isdisjoint(pattern):
                directive = lookup(pattern.decode("utf-8", "surrogateescape"))
                if directive is not None:
                    found.setdefault(pattern, self._told(directive))
                continue
            for name, directive in BY_NAME.items():
                if matches(pattern.lower(), name.encode()):
                    found.setdefault(name.encode(), self._told(directive))
        return list(found.items())

    def _told(self, directive: Directive) -> bytes:
        return b"" if directive.hidden else show(self.value(directive)).encode("utf-8", "surrogateescape")
