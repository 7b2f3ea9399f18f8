"""Imports every module of handlers, so that the table is complete."""

from __future__ import annotations

from respkv.commands import (
    clients,
    cluster,
    command_info,
    configuration,
    connection,
    counters,
    info,
    keys,
    keyspace,
    latency,
    memory,
    repair,
    respkv_commands,
    server,
    sibling_commands,
    slowlog,
    strings,
    transactions,
)

MODULES = (
    clients,
    cluster,
    command_info,
    configuration,
    connection,
    counters,
    info,
    keys,
    keyspace,
    latency,
    memory,
    repair,
    respkv_commands,
    server,
    sibling_commands,
    slowlog,
    strings,
    transactions,
)
