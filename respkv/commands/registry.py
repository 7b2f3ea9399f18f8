"""Imports every module of handlers, so that the table is complete."""

from __future__ import annotations

from respkv.commands import connection, keyspace, strings

MODULES = (connection, keyspace, strings)
