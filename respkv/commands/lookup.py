"""What a record means to a command: its string, whether the key exists, and that a client was told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.errors import ClientError, WrongTypeError
from respkv.versions.records import STRING, is_visible, value_of

if TYPE_CHECKING:
    from respkv.commands.context import Request


def string_in(record: bytes, request: Request) -> bytes | None:
    """The string that the client sees, or None. Raises WrongTypeError."""
    value = value_of(record, request.now_ms)
    if value is not None and record[17] != STRING:
        raise WrongTypeError
    return value


def exists(record: bytes, request: Request) -> bool:
    """Whether the key exists, as the client is told: a hit or a miss of INFO."""
    found = is_visible(record, request.now_ms)
    statistics = request.context.statistics
    if found:
        statistics.keyspace_hits += 1
    else:
        statistics.keyspace_misses += 1
    return found


def string_read(record: bytes, request: Request) -> bytes | None:
    """The string that the client is told: a hit or a miss of INFO."""
    return string_in(record, request) if exists(record, request) else None


def check_length(size: int, request: Request) -> None:
    """Refuse a string that no client could have sent, before it is built."""
    if size > request.context.settings.proto_max_bulk_len:
        msg = "string exceeds maximum allowed size (proto-max-bulk-len)"
        raise ClientError(msg)
