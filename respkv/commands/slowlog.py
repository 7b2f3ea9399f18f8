"""SLOWLOG: the commands whose clients waited longest. How long the processor worked for one is not measured: see `server.pulse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.context import SlowlogEntry
from respkv.commands.help_text import help_reply
from respkv.commands.table import command
from respkv.config.directives import lookup
from respkv.errors import ClientError, NotAnIntegerError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import OK, array, bulk, bulks, integer

if TYPE_CHECKING:
    from respkv.commands.context import Client, Context, Request

ARGUMENTS_SHOWN_MAX = 32
ARGUMENT_SHOWN_BYTES_MAX = 128
ENTRIES_DEFAULT = 10
ADMINISTRATION = "admin loading stale"
HELP = """
GET [<count>]
    Return top <count> entries from the slowlog (default: 10, -1 mean all).
    Entries are made of:
    id, timestamp, time in microseconds, arguments array, client IP and port,
    client name
LEN
    Return the length of the slowlog.
RESET
    Reset the slowlog."""


def note(context: Context, arguments: list[bytes], client: Client | None, microseconds: int) -> None:
    """Keep a command that was slow; the oldest makes room."""
    entries = context.slowlog
    number = context.facts["slowlog_number"] = context.facts.get("slowlog_number", -1) + 1
    entries.appendleft(
        SlowlogEntry(
            number=number,
            unix_s=context.turn.wall_ms // 1000,
            microseconds=microseconds,
            arguments=shown(arguments),
            address=client.address if client is not None else "",
            name=client.name if client is not None else b"",
        )
    )
    while len(entries) > context.settings.slowlog_max_len:
        entries.pop()


def shown(arguments: list[bytes]) -> list[bytes]:
    """A command line as the slowlog keeps it: cut as Redis does, without secrets."""
    arguments = without_secrets(arguments)
    kept = arguments[: ARGUMENTS_SHOWN_MAX - 1] if len(arguments) > ARGUMENTS_SHOWN_MAX else arguments
    lines = [
        argument
        if len(argument) <= ARGUMENT_SHOWN_BYTES_MAX
        else argument[:ARGUMENT_SHOWN_BYTES_MAX] + b"... (%d more bytes)" % (len(argument) - ARGUMENT_SHOWN_BYTES_MAX)
        for argument in kept
    ]
    if len(kept) < len(arguments):
        lines.append(b"... (%d more arguments)" % (len(arguments) - len(kept)))
    return lines


def without_secrets(arguments: list[bytes]) -> list[bytes]:
    """The same with what CONFIG SET sets secret directives to left out."""
    if [word.upper() for word in arguments[:2]] != [b"CONFIG", b"SET"]:
        return arguments
    cleaned = list(arguments)
    for place in range(2, len(arguments) - 1, 2):
        directive = lookup(arguments[place].decode("utf-8", "surrogateescape"))
        if directive is None or directive.sensitive:
            cleaned[place + 1] = b"(redacted)"
    return cleaned


@command("SLOWLOG", arity=-2, group="server", since="2.2.12", complexity="Depends on subcommand.")
def slowlog(request: Request) -> bytes:
    """A container for slow log commands."""
    raise NotImplementedError(request)


@command("SLOWLOG|GET", arity=-2, flags=ADMINISTRATION, group="server", since="2.2.12", complexity="O(N) where N is the number of entries")
def slowlog_get(request: Request) -> bytes:
    """Returns the slow log's entries."""
    if len(request.args) > 3:
        word = request.args[1].decode("utf-8", "surrogateescape")
        raise ClientError(f"unknown subcommand or wrong number of arguments for '{word}'. Try SLOWLOG HELP.")
    count = ENTRIES_DEFAULT
    if len(request.args) == 3:
        try:
            count = parse_integer(request.args[2])
        except NotAnIntegerError:
            count = -2
        if count < -1:
            raise ClientError("count should be greater than or equal to -1")
    entries = list(request.context.slowlog)
    return array([_encoded(entry) for entry in (entries if count < 0 else entries[:count])])


def _encoded(entry: SlowlogEntry) -> bytes:
    numbers = [integer(entry.number), integer(entry.unix_s), integer(entry.microseconds)]
    return array([*numbers, bulks(entry.arguments), bulk(entry.address.encode()), bulk(entry.name)])


@command("SLOWLOG|LEN", arity=2, flags=ADMINISTRATION, group="server", since="2.2.12", complexity="O(1)")
def slowlog_len(request: Request) -> bytes:
    """Returns the number of entries in the slow log."""
    return integer(len(request.context.slowlog))


@command("SLOWLOG|RESET", arity=2, flags=ADMINISTRATION, group="server", since="2.2.12", complexity="O(N) where N is the number of entries")
def slowlog_reset(request: Request) -> bytes:
    """Clears all entries from the slow log."""
    request.context.slowlog.clear()
    return OK


@command("SLOWLOG|HELP", arity=2, flags="loading stale", group="server", since="6.2.0", complexity="O(1)")
def slowlog_help(request: Request) -> bytes:
    """Show helpful text about the different subcommands."""
    return help_reply(request.args[0].decode("ascii", "replace").upper(), HELP)
