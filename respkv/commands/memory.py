"""MEMORY and OBJECT: what a key takes, and what the node takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands import published
from respkv.commands.help_text import help_reply
from respkv.commands.table import KeyPositions, command
from respkv.coordinator.operations import Read
from respkv.errors import ClientError, NotAnIntegerError, SyntaxProblemError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import OK, bulk, encode, integer, verbatim
from respkv.storage.store import ENTRY_OVERHEAD_BYTES
from respkv.versions.clock import milliseconds
from respkv.versions.records import HEADER_BYTES, is_visible, stamp_of, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.commands.context import Context, Request
    from respkv.coordinator.operations import Steps

SECOND = KeyPositions(2, 2, 1)
EMBSTR_BYTES_MAX = 44
NO_FREQUENCIES = (
    "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at "
    "runtime LRU and LFU data will take some time to adjust."
)
MEMORY_HELP = """
DOCTOR
    Return memory problems reports.
PURGE
    Attempt to purge dirty pages for reclamation by the allocator.
STATS
    Return information about the memory usage of the server.
USAGE <key> [SAMPLES <count>]
    Return memory in bytes used by <key> and its value on each replica."""
OBJECT_HELP = """
ENCODING <key>
    Return the kind of internal representation used in order to store the value
    associated with a <key>.
FREQ <key>
    Return the access frequency index of the <key>: not kept.
IDLETIME <key>
    Return the idle time of the <key>: the number of seconds since its last
    write, as reads are not noted.
REFCOUNT <key>
    Return the number of references of the value associated with the specified
    <key>."""
ALL_IS_WELL = "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on this base.\n"


@command("MEMORY", arity=-2, group="server", since="4.0.0", complexity="Depends on subcommand.")
def memory(request: Request) -> bytes:
    """A container for memory diagnostics commands."""
    raise NotImplementedError(request)


@command(
    "MEMORY|USAGE",
    arity=-3,
    flags="readonly",
    keys=SECOND,
    group="server",
    since="4.0.0",
    complexity="O(N) where N is the number of samples",
)
def memory_usage(request: Request) -> Steps:
    """Estimates the memory usage of a key."""
    match request.args[3:]:
        case []:
            pass
        case [word, count] if word.upper() == b"SAMPLES":
            if parse_integer(count) < 0:
                raise SyntaxProblemError
        case _:
            raise SyntaxProblemError
    key = request.args[2]
    return _about(request, lambda record: integer(len(key) + len(record) + ENTRY_OVERHEAD_BYTES))


@command("MEMORY|DOCTOR", arity=2, group="server", since="4.0.0", complexity="O(1)")
def memory_doctor(request: Request) -> bytes:
    """Outputs a memory problems report."""
    context = request.context
    limit, used = context.settings.maxmemory, context.store.used_bytes
    if limit and used > limit:
        text = f"Sam, the records in memory take {used} bytes, more than maxmemory allows ({limit}). They are on their way to disk.\n"
        return verbatim(text, request.resp)
    return verbatim(ALL_IS_WELL, request.resp)


@command("MEMORY|STATS", arity=2, group="server", since="4.0.0", complexity="O(1)")
def memory_stats(request: Request) -> bytes:
    """Returns details about memory usage."""
    context = request.context
    facts = context.facts
    resident = facts.get("rss_bytes", 0)
    peak = max(facts.get("rss_peak_bytes", 0), resident)
    dataset = dataset_bytes(context)
    client_bytes = sum(client.out_bytes for client in context.clients.values())
    told = {
        "peak.allocated": peak,
        "total.allocated": resident,
        "startup.allocated": facts.get("rss_startup_bytes", 0),
        "replication.backlog": 0,
        "clients.slaves": 0,
        "clients.normal": client_bytes,
        "cluster.links": sum(facts.get("peer_queue_bytes", {}).values()),
        "aof.buffer": 0,
        "lua.caches": 0,
        "functions.caches": 0,
        "overhead.total": max(resident - dataset, 0),
        "keys.count": sum(context.store.live),
        "keys.bytes-per-key": bytes_per_key(context),
        "dataset.bytes": dataset,
        "dataset.percentage": dataset / resident * 100 if resident else 0.0,
        "peak.percentage": resident / peak * 100 if peak else 0.0,
        "fragmentation": 1.0,
        "fragmentation.bytes": 0,
        "hints.bytes": context.hints.bytes,
    }
    return encode(told, request.resp)


def bytes_per_key(context: Context) -> int:
    """What MEMORY USAGE tells of a key, on average of those that were looked at of late."""
    keys, data = (context.membership.application_value(context.me, name) for name in (published.KEYS, published.BYTES))
    return ENTRY_OVERHEAD_BYTES + HEADER_BYTES + int(data) // int(keys) if keys and data else 0


def dataset_bytes(context: Context) -> int:
    """What the records in memory take: counted where `maxmemory` bounds it, and estimated where it does not."""
    store = context.store
    return store.used_bytes if store.bounded else sum(store.live) * bytes_per_key(context)


@command("MEMORY|PURGE", arity=2, group="server", since="4.0.0", complexity="Depends on the allocator.")
def memory_purge(request: Request) -> bytes:
    """Asks the allocator to release memory: it does so by itself."""
    del request
    return OK


@command("MEMORY|HELP", arity=2, flags="loading stale", group="server", since="4.0.0", complexity="O(1)")
def memory_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("MEMORY", MEMORY_HELP)


@command("OBJECT", arity=-2, group="generic", since="2.2.3", complexity="Depends on subcommand.")
def object_(request: Request) -> bytes:
    """A container for object introspection commands."""
    raise NotImplementedError(request)


@command("OBJECT|ENCODING", arity=3, flags="readonly", keys=SECOND, group="generic", since="2.2.3", complexity="O(1)")
def object_encoding(request: Request) -> Steps:
    """Returns the internal encoding of a value, as Redis would store it."""

    def encoding(record: bytes) -> bytes:
        value = value_of(record, request.now_ms)
        assert value is not None
        return bulk(encoding_of(value))

    return _about(request, encoding)


@command("OBJECT|FREQ", arity=3, flags="readonly", keys=SECOND, group="generic", since="4.0.0", complexity="O(1)")
def object_freq(request: Request) -> Steps:
    """Returns the logarithmic access frequency counter of a key: it is not kept."""

    def refuse(record: bytes) -> bytes:
        raise ClientError(NO_FREQUENCIES)

    return _about(request, refuse)


@command("OBJECT|IDLETIME", arity=3, flags="readonly", keys=SECOND, group="generic", since="2.2.3", complexity="O(1)")
def object_idletime(request: Request) -> Steps:
    """Returns the time since the last write to a key."""
    return _about(request, lambda record: integer(max(request.now_ms - milliseconds(stamp_of(record)), 0) // 1000))


@command("OBJECT|REFCOUNT", arity=3, flags="readonly", keys=SECOND, group="generic", since="2.2.3", complexity="O(1)")
def object_refcount(request: Request) -> Steps:
    """Returns the reference count of a value of a key."""
    return _about(request, lambda _: integer(1))


@command("OBJECT|HELP", arity=2, flags="loading stale", group="generic", since="6.2.0", complexity="O(1)")
def object_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("OBJECT", OBJECT_HELP)


def _about(request: Request, tell: Callable[[bytes], bytes]) -> Steps:
    """Read the record of the key and say something about it; nil where there is none."""
    (record,) = yield Read([request.args[2]])
    return tell(record) if is_visible(record, request.now_ms) else request.nil


def encoding_of(value: bytes) -> bytes:
    """What OBJECT ENCODING calls a string."""
    try:
        parse_integer(value)
    except NotAnIntegerError:
        return b"embstr" if len(value) <= EMBSTR_BYTES_MAX else b"raw"
    return b"int"
