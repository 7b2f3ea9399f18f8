"""What the shell does beside turns, a few times a second: facts for INFO, idle clients, strangers who do not prove themselves."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from respkv.server.channels import PeerChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.server.disk import DiskStatistics
    from respkv.server.reactor import Reactor

INTERVAL_S = 0.5
HANDSHAKE_S = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SYSTEM_BYTES = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
STATM = Path("/proc/self/statm")


async def keep_house(reactor: Reactor, facts: dict[str, Any], disk_statistics: Callable[[], DiskStatistics]) -> None:
    """Run until the node stops. `facts` is what INFO reads."""
    last_at, last_commands, last_input, last_output = time.monotonic(), 0, 0, 0
    while True:
        await trio.sleep(INTERVAL_S)
        now = time.monotonic()
        statistics = reactor.node.statistics
        facts["loop_lag_ms"] = max(int((now - last_at - INTERVAL_S) * 1000), 0)
        elapsed_s = now - last_at
        facts["instantaneous_ops_per_sec"] = int((statistics.commands_total - last_commands) / elapsed_s)
        facts["instantaneous_input_kbps"] = (statistics.net_input_bytes - last_input) / elapsed_s / 1024
        facts["instantaneous_output_kbps"] = (statistics.net_output_bytes - last_output) / elapsed_s / 1024
        last_at, last_commands = now, statistics.commands_total
        last_input, last_output = statistics.net_input_bytes, statistics.net_output_bytes
        facts.update(process_facts())
        facts["disk"] = disk_statistics()
        facts["peer_queue_bytes"] = {peer: link.queued_bytes for peer, link in reactor.links.items()}
        close_strangers(reactor, now)
        close_idle(reactor, now)
        close_hoarders(reactor)


def process_facts() -> dict[str, Any]:
    """Memory and processor time of this process, and the memory of the machine."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    facts = {"used_cpu_user": usage.ru_utime, "used_cpu_sys": usage.ru_stime, "rss_peak_bytes": usage.ru_maxrss * 1024}
    facts["total_system_memory"] = _SYSTEM_BYTES
    facts["rss_bytes"] = int(STATM.read_text().split()[1]) * _PAGE_BYTES if STATM.exists() else facts["rss_peak_bytes"]
    return facts


def close_strangers(reactor: Reactor, now: float) -> None:
    """Whoever connected to the cluster port and has not proved itself in time is turned away."""
    for channel in list(reactor.channels.values()):
        if isinstance(channel, PeerChannel) and channel.peer is None and now - channel.opened > HANDSHAKE_S:
            reactor.close_incoming(channel, "did not prove itself in time")


def close_hoarders(reactor: Reactor) -> None:
    """`maxmemory-clients`: when unread replies and unfinished requests of all clients together are too much, the biggest go."""
    limit = reactor.settings.maxmemory_clients
    if not limit:
        return
    held = {client_id: session.out_bytes + session.unfinished_bytes for client_id, session in reactor.node.clients.items()}
    total = sum(held.values())
    for client_id in sorted(held, key=lambda client_id: held[client_id], reverse=True):
        if total <= limit:
            return
        total -= held[client_id]
        client = reactor.clients.get(client_id)
        if client is not None:
            reactor.on_event("warning", f"closing client {client_id}, which holds {held[client_id]} bytes (maxmemory-clients)")
            reactor.close_client(client)


def close_idle(reactor: Reactor, now: float) -> None:
    """`timeout` for idle clients, `unauthenticated-timeout` for those who gave no password."""
    settings = reactor.settings
    if not settings.timeout and not settings.requirepass:
        return
    for client_id, session in list(reactor.node.clients.items()):
        limit = settings.timeout if session.authenticated else settings.unauthenticated_timeout
        if limit and now - session.last_active > limit and not session.pending:
            client = reactor.clients.get(client_id)
            if client is not None:
                reactor.close_client(client)
