"""RESPKV SIBLINGS, RESOLVE and VERSION: keys that hold several values, because nobody who wrote one had seen the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.respkv_commands import SECOND
from respkv.commands.table import Where, command
from respkv.coordinator.operations import Read, Write
from respkv.resp.writer import OK, encode
from respkv.versions.records import VERSION_BYTES, describe_version, siblings_in, value_of
from respkv.versions.vectors import context_of, describe_vector, seen_by

if TYPE_CHECKING:
    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps


@command("RESPKV|SIBLINGS", arity=3, flags="readonly", keys=SECOND, group="cluster", complexity="O(N) where N is the number of siblings")
def respkv_siblings(request: Request) -> Steps:
    """Returns the context of a key and all its values."""
    key = request.args[2]
    (record,) = yield Read([key])
    request.note_read(key, record)
    values = [value for sibling in siblings_in(record) if (value := value_of(sibling, request.now_ms)) is not None]
    return encode([context_of(key, record), values], request.resp)


@command("RESPKV|RESOLVE", arity=5, flags="write denyoom", keys=SECOND, group="cluster", complexity="O(1)", where=Where.PRIMARY)
def respkv_resolve(request: Request) -> Steps:
    """Replaces what a context has seen of a key by a value."""
    return _resolve(request, seen_by(request.args[2], request.args[3]))


def _resolve(request: Request, seen: bytes) -> Steps:
    key = request.args[2]
    read = request.seen_of(key)
    yield Write([(key, request.string(request.args[4]))], seen={key: seen})
    request.has_written = True
    request.use_up(key, read)
    return OK


@command("RESPKV|VERSION", arity=3, flags="readonly", keys=SECOND, group="cluster", complexity="O(N) where N is the number of actors")
def respkv_version(request: Request) -> Steps:
    """Returns in words what the record of a key has seen."""
    (record,) = yield Read([request.args[2]])
    values = [describe_version(sibling[:VERSION_BYTES]) for sibling in siblings_in(record) if value_of(sibling, request.now_ms) is not None]
    return encode({"vector": describe_vector(record), "siblings": values}, request.resp)
