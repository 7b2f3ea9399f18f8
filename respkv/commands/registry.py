"""Imports every module of handlers, so that the table is complete."""

from __future__ import annotations

from respkv.commands import clients, connection, counters, keys, keyspace, strings, transactions

MODULES = (clients, connection, counters, keys, keyspace, strings, transactions)
