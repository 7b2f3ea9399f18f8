"""INFO: the sections and fields that Redis's tools read, then respkv's own.

What only the shell knows comes from `context.facts`; a fact that is not there yet is shown as nothing or as none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from respkv.commands.info_respkv import OWN_SECTIONS, flattened
from respkv.commands.latency import histograms
from respkv.commands.memory import dataset_bytes
from respkv.commands.table import COMMANDS, REDIS_VERSION, command
from respkv.resp.writer import verbatim
from respkv.versions.records import expiry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from respkv.commands.context import Context, Request

Fields = dict[str, Any]
TTL_SAMPLES = 64
ALL_WORDS = frozenset((b"all", b"everything"))


@command("INFO", arity=-1, flags="loading stale", group="server", complexity="O(1)")
def info(request: Request) -> bytes:
    """Returns information and statistics about the server."""
    words = {word.lower() for word in request.args[1:]} or {b"default"}
    wanted = [
        name for name in SECTIONS if name.encode() in words or words & ALL_WORDS or (b"default" in words and name not in BEYOND_DEFAULT)
    ]
    return verbatim("\r\n".join(_text(name, SECTIONS[name](request.context)) for name in wanted), request.resp)


def _text(name: str, fields: Fields) -> str:
    lines = [f"# {name.capitalize() if name != 'cpu' else 'CPU'}", *(f"{field}:{_shown(value)}" for field, value in fields.items())]
    return "".join(f"{line}\r\n" for line in lines)


def _shown(value: object) -> str:
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return text.replace("\r", " ").replace("\n", " ")


def human(count: int) -> str:
    """A number of bytes as Redis writes it for people."""
    if count < 1024:
        return f"{count}B"
    size = count / 1024
    for unit in "KMGT":
        if size < 1024 or unit == "T":
            return f"{size:.2f}{unit}"
        size /= 1024
    raise AssertionError


def run_id(context: Context) -> str:
    """40 digits that are new with each start, as Redis has them."""
    return hashlib.sha1(context.me.encode() + context.actor, usedforsecurity=False).hexdigest()


def _server(context: Context) -> Fields:
    facts, turn = context.facts, context.turn
    uptime_s = int(turn.now - context.started)
    return {
        "redis_version": REDIS_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": 0,
        "redis_mode": "cluster",
        "os": facts.get("os", ""),
        "arch_bits": 64,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": "epoll",
        "process_id": facts.get("process_id", 0),
        "process_supervised": "no",
        "run_id": run_id(context),
        "tcp_port": facts.get("tcp_port", context.settings.port),
        "server_time_usec": turn.wall_ms * 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86400,
        "hz": 10,
        "configured_hz": 10,
        "lru_clock": turn.wall_ms // 1000 & 0xFFFFFF,
        "executable": facts.get("executable", ""),
        "config_file": facts.get("config_file") or "",
        "io_threads_active": 0,
        "respkv_version": facts.get("version", ""),
        "python_version": facts.get("python_version", ""),
    }


def _clients(context: Context) -> Fields:
    clients = context.clients.values()
    return {
        "connected_clients": len(clients),
        "cluster_connections": sum(member.link_open for member in context.membership.members(context.turn.now)) - 1,
        "maxclients": context.settings.maxclients,
        "client_recent_max_input_buffer": max((client.unfinished_bytes for client in clients), default=0),
        "client_recent_max_output_buffer": max((client.out_bytes for client in clients), default=0),
        "blocked_clients": 0,
        "tracking_clients": 0,
        "clients_in_timeout_table": 0,
    }


def _memory(context: Context) -> Fields:
    """What the process takes, and what of that the records do: that is what `maxmemory` bounds."""
    facts, limit = context.facts, context.settings.maxmemory
    used, dataset = facts.get("rss_bytes", 0), dataset_bytes(context)
    peak = max(facts.get("rss_peak_bytes", 0), used)
    beyond_dataset = max(used - dataset, 0)
    return {
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_rss": used,
        "used_memory_rss_human": human(used),
        "used_memory_peak": peak,
        "used_memory_peak_human": human(peak),
        "used_memory_peak_perc": f"{used / peak * 100 if peak else 0:.2f}%",
        "used_memory_overhead": beyond_dataset,
        "used_memory_startup": facts.get("rss_startup_bytes", 0),
        "used_memory_dataset": dataset,
        "used_memory_dataset_perc": f"{dataset / used * 100 if used else 0:.2f}%",
        "total_system_memory": facts.get("total_system_memory", 0),
        "total_system_memory_human": human(facts.get("total_system_memory", 0)),
        "used_memory_lua": 0,
        "used_memory_lua_human": "0B",
        "used_memory_scripts": 0,
        "used_memory_scripts_human": "0B",
        "number_of_cached_scripts": 0,
        "number_of_functions": 0,
        "number_of_libraries": 0,
        "maxmemory": limit,
        "maxmemory_human": human(limit),
        "maxmemory_policy": context.settings.maxmemory_policy,
        "mem_fragmentation_ratio": 1.0,
        "mem_fragmentation_bytes": 0,
        "mem_not_counted_for_evict": beyond_dataset,
        "mem_replication_backlog": 0,
        "mem_clients_slaves": 0,
        "mem_clients_normal": sum(client.out_bytes for client in context.clients.values()),
        "mem_cluster_links": sum(facts.get("peer_queue_bytes", {}).values()),
        "mem_aof_buffer": 0,
        "mem_allocator": "malloc",
        "active_defrag_running": 0,
        "lazyfree_pending_objects": 0,
        "lazyfreed_objects": 0,
    }


def _persistence(context: Context) -> Fields:
    disk = dict(flattened("disk", context.facts.get("disk", {})))
    return {
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": context.facts.get("last_save_s", context.started_wall_ms // 1000),
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": -1,
        "rdb_current_bgsave_time_sec": -1,
        "rdb_saves": 0,
        "aof_enabled": 1,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1,
        "aof_current_rewrite_time_sec": -1,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok",
        "aof_current_size": disk.get("disk_log_bytes_on_disk", 0),
    }


def _stats(context: Context) -> Fields:
    facts, statistics, coordinator = context.facts, context.statistics, context.coordinator.statistics
    plain_gets = COMMANDS["GET"].statistics.calls - statistics.get_operations_total
    return {
        "total_connections_received": statistics.connections_received_total,
        "total_commands_processed": statistics.commands_total,
        "instantaneous_ops_per_sec": facts.get("instantaneous_ops_per_sec", 0),
        "total_net_input_bytes": statistics.net_input_bytes,
        "total_net_output_bytes": statistics.net_output_bytes,
        "total_net_repl_input_bytes": statistics.peer_input_bytes,
        "total_net_repl_output_bytes": statistics.peer_output_bytes,
        "instantaneous_input_kbps": float(facts.get("instantaneous_input_kbps", 0)),
        "instantaneous_output_kbps": float(facts.get("instantaneous_output_kbps", 0)),
        "rejected_connections": statistics.connections_rejected_total,
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": statistics.expired_keys,
        "evicted_keys": 0,
        "evicted_clients": statistics.output_limit_closes_total,
        "keyspace_hits": statistics.keyspace_hits + max(plain_gets - coordinator.plain_misses_total, 0),
        "keyspace_misses": statistics.keyspace_misses + coordinator.plain_misses_total,
        "pubsub_channels": 0,
        "pubsub_patterns": 0,
        "pubsubshard_channels": 0,
        "latest_fork_usec": 0,
        "total_forks": 0,
        "migrate_cached_sockets": 0,
        "slave_expires_tracked_keys": 0,
        "active_defrag_hits": 0,
        "active_defrag_misses": 0,
        "tracking_total_keys": 0,
        "tracking_total_items": 0,
        "tracking_total_prefixes": 0,
        "unexpected_error_replies": 0,
        "total_error_replies": statistics.error_replies_total,
        "total_reads_processed": statistics.turns_total or context.turn.number,
        "total_writes_processed": statistics.turns_total or context.turn.number,
        "io_threaded_reads_processed": 0,
        "io_threaded_writes_processed": 0,
        "acl_access_denied_auth": statistics.acl_denied_total,
    }


def _replication(context: Context) -> Fields:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": run_id(context),
        "master_replid2": "0" * 40,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    }


def _cpu(context: Context) -> Fields:
    facts = context.facts
    system, user = facts.get("used_cpu_sys", 0.0), facts.get("used_cpu_user", 0.0)
    return {
        "used_cpu_sys": f"{system:.6f}",
        "used_cpu_user": f"{user:.6f}",
        "used_cpu_sys_children": "0.000000",
        "used_cpu_user_children": "0.000000",
        "used_cpu_sys_main_thread": f"{system:.6f}",
        "used_cpu_user_main_thread": f"{user:.6f}",
    }


def _modules(context: Context) -> Fields:
    del context
    return {}


def _commandstats(context: Context) -> Fields:
    del context
    fields: Fields = {}
    for entry in COMMANDS.values():
        for each in (entry, *entry.subcommands.values()):
            told = each.statistics
            if told.calls or told.rejected:
                mean = told.microseconds / told.calls if told.calls else 0.0
                fields[f"cmdstat_{each.shown_name}"] = (
                    f"calls={told.calls},usec={told.microseconds},usec_per_call={mean:.2f},"
                    f"rejected_calls={told.rejected},failed_calls={told.failed}"
                )
    return fields


def _errorstats(context: Context) -> Fields:
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(context.statistics.errors.items())}


def _latencystats(context: Context) -> Fields:
    return {
        f"latency_percentiles_usec_{each.shown_name}": ",".join(
            f"p{percent:g}={histogram.percentile(percent):.3f}" for percent in (50, 99, 99.9)
        )
        for each, histogram in histograms(context)
    }


def _cluster(context: Context) -> Fields:
    del context
    return {"cluster_enabled": 1}


def _keyspace(context: Context) -> Fields:
    """Keys of this node, as in a Redis cluster; DBSIZE counts those of the whole cluster."""
    store = context.store
    keys, expires = sum(store.live), sum(map(len, store.volatile))
    if not keys:
        return {}
    return {"db0": f"keys={keys},expires={expires},avg_ttl={_mean_ttl_ms(context)}"}


def _mean_ttl_ms(context: Context) -> int:
    store, now_ms = context.store, context.turn.wall_ms
    ttls: list[int] = []
    for keys, shard in zip(store.volatile, store.shards, strict=True):
        for key in keys:
            expires_at = expiry_of(shard.get(key, b""))
            if expires_at is not None and expires_at > now_ms:
                ttls.append(expires_at - now_ms)
            if len(ttls) >= TTL_SAMPLES:
                return sum(ttls) // len(ttls)
    return sum(ttls) // len(ttls) if ttls else 0


SECTIONS: dict[str, Callable[[Context], Fields]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "modules": _modules,
    "commandstats": _commandstats,
    "errorstats": _errorstats,
    "latencystats": _latencystats,
    "cluster": _cluster,
    "keyspace": _keyspace,
    **OWN_SECTIONS,
}
BEYOND_DEFAULT: Iterable[str] = frozenset(("commandstats", "latencystats"))
"""Sections that come only when they are asked for, or with `all`."""
