"""Imports every module of handlers, so that the table is complete."""

from __future__ import annotations

from respkv.commands import connection, strings

MODULES = (connection, strings)
