"""COMMAND: the table of commands, told to clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.help_text import help_reply
from respkv.commands.syntax import Argument, arguments_of
from respkv.commands.table import COMMANDS, Command, command, find
from respkv.commands.tips import tips
from respkv.errors import ClientError, SyntaxProblemError
from respkv.resp.glob import matches
from respkv.resp.writer import array, bulk, bulks, encode, integer, mapping, null, set_of, simple

if TYPE_CHECKING:
    from respkv.commands.context import Request

_FLAGS = "loading stale"
HELP = """
(no subcommand)
    Return details about all commands.
COUNT
    Return the total number of commands in this server.
LIST
    Return a list of all commands in this server.
INFO [<command-name> ...]
    Return details about multiple commands.
    If no command names are given, documentation details for all
    commands are returned.
DOCS [<command-name> ...]
    Return documentation details about multiple commands.
    If no command names are given, documentation details for all
    commands are returned.
GETKEYS <full-command>
    Return the keys from a full command.
GETKEYSANDFLAGS <full-command>
    Return the keys and the access flags from a full command."""
GROUP_CATEGORIES = {"string": "@string", "generic": "@keyspace", "connection": "@connection", "transactions": "@transaction"}
OTHER_CATEGORIES = {
    **dict.fromkeys(("FLUSHALL", "FLUSHDB", "DBSIZE"), "@keyspace"),
    **dict.fromkeys(("READONLY", "READWRITE", "ASKING", "WAIT"), "@connection"),
}
ADMINISTRATIVE = frozenset(("ROLE", "LASTSAVE"))
DANGEROUS = frozenset(("FLUSHALL", "FLUSHDB", "INFO", "KEYS"))
KEY_FLAGS = {
    "DEL": ("RM", "delete"),
    "UNLINK": ("RM", "delete"),
    "EXISTS": ("RO",),
    "TOUCH": ("RO",),
    "TYPE": ("RO",),
    "TTL": ("RO", "access"),
    "SET": ("RW", "access", "update", "variable_flags"),
    "MSET": ("OW", "update"),
    "MSETNX": ("OW", "insert"),
    "SETNX": ("OW", "insert"),
    "SETEX": ("OW", "update"),
    "PSETEX": ("OW", "update"),
    "GETSET": ("RW", "access", "update"),
    "GETDEL": ("RW", "access", "delete"),
    "GETEX": ("RW", "access", "update"),
    "APPEND": ("RW", "insert"),
    "INCR": ("RW", "access", "update"),
    "INCRBY": ("RW", "access", "update"),
    "INCRBYFLOAT": ("RW", "access", "update"),
    "DECR": ("RW", "access", "update"),
    "DECRBY": ("RW", "access", "update"),
    "STRLEN": ("RO",),
    "WATCH": ("RO",),
    "MEMORY|USAGE": ("RO",),
    "OBJECT|ENCODING": ("RO",),
    "OBJECT|FREQ": ("RO",),
    "OBJECT|IDLETIME": ("RO",),
    "OBJECT|REFCOUNT": ("RO",),
}
"""What a command does to its keys, where it is not told by whether it writes."""


@command("COMMAND", arity=-1, flags=_FLAGS, group="server", since="2.8.13", complexity="O(N) where N is the number of commands")
def command_(request: Request) -> bytes:
    """Returns detailed information about all commands."""
    return _all(request)


def _all(request: Request) -> bytes:
    return array([described(entry, request) for entry in COMMANDS.values()])


@command("COMMAND|COUNT", arity=2, flags=_FLAGS, group="server", since="2.8.13", complexity="O(1)")
def command_count(request: Request) -> bytes:
    """Returns a count of commands."""
    del request
    return integer(len(COMMANDS))


@command("COMMAND|LIST", arity=-2, flags=_FLAGS, group="server", since="7.0.0", complexity="O(N) where N is the number of commands")
def command_list(request: Request) -> bytes:
    """Returns a list of command names."""
    match [word.upper() for word in request.args[2:4]]:
        case []:
            return bulks([entry.shown_name.encode() for entry in COMMANDS.values()])
        case [b"FILTERBY", kind] if len(request.args) == 5:
            found = _filtered(kind, request.args[4])
            return bulks([entry.shown_name.encode() for entry in found])
        case _:
            raise SyntaxProblemError


def _filtered(kind: bytes, argument: bytes) -> list[Command]:
    entries = [each for entry in COMMANDS.values() for each in (entry, *entry.subcommands.values())]
    match kind:
        case b"MODULE":
            return []
        case b"ACLCAT":
            wanted = "@" + argument.decode("utf-8", "surrogateescape").lower()
            return [entry for entry in entries if wanted in categories(entry)]
        case b"PATTERN":
            return [entry for entry in entries if matches(argument, entry.shown_name.encode(), ignore_case=True)]
        case _:
            raise SyntaxProblemError


@command(
    "COMMAND|INFO", arity=-2, flags=_FLAGS, group="server", since="2.8.13", complexity="O(N) where N is the number of commands asked for"
)
def command_info(request: Request) -> bytes:
    """Returns information about one, multiple or all commands."""
    if len(request.args) == 2:
        return _all(request)
    found = [_lookup(word) for word in request.args[2:]]
    return array([null(request.resp) if entry is None else described(entry, request) for entry in found])


@command(
    "COMMAND|DOCS", arity=-2, flags=_FLAGS, group="server", since="7.0.0", complexity="O(N) where N is the number of commands asked for"
)
def command_docs(request: Request) -> bytes:
    """Returns documentary information about one, multiple or all commands."""
    found = [_lookup(word) for word in request.args[2:]] if len(request.args) > 2 else list(COMMANDS.values())
    pairs = [(bulk(entry.shown_name.encode()), documented(entry, request.resp)) for entry in found if entry is not None]
    return mapping(pairs, request.resp)


@command("COMMAND|GETKEYS", arity=-3, flags=_FLAGS, group="server", since="2.8.13", complexity="O(N) where N is the number of arguments")
def command_getkeys(request: Request) -> bytes:
    """Extracts the key names from an arbitrary command."""
    _, keys = _keys_of(request.args[2:])
    return bulks(keys)


@command(
    "COMMAND|GETKEYSANDFLAGS", arity=-3, flags=_FLAGS, group="server", since="7.0.0", complexity="O(N) where N is the number of arguments"
)
def command_getkeysandflags(request: Request) -> bytes:
    """Extracts the key names and access flags for an arbitrary command."""
    line = request.args[2:]
    entry, keys = _keys_of(line)
    flags = set_of([simple(flag) for flag in _key_flags_of(entry, line)], request.resp)
    return array([array([bulk(key), flags]) for key in keys])


@command("COMMAND|HELP", arity=2, flags=_FLAGS, group="server", since="5.0.0", complexity="O(1)")
def command_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("COMMAND", HELP)


def _lookup(word: bytes) -> Command | None:
    name, bar, subname = word.partition(b"|")
    entry = find(name)
    return entry.subcommands.get(subname.upper()) if bar and entry is not None else entry


def _keys_of(line: list[bytes]) -> tuple[Command, list[bytes]]:
    entry = find(line[0])
    if entry is not None and entry.subcommands and len(line) > 1:
        entry = entry.subcommands.get(line[1].upper())
    if entry is None:
        raise ClientError("Invalid command specified")
    if not entry.keys.first:
        raise ClientError("The command has no key arguments")
    if not entry.accepts(len(line)):
        raise ClientError("Invalid number of arguments specified for command")
    return entry, entry.keys.of(line)


def described(entry: Command, request: Request) -> bytes:
    """One command as COMMAND tells it: name, arity, flags, key positions, categories, tips, key specifications, subcommands."""
    keys, resp = entry.keys, request.resp
    return array(
        [
            bulk(entry.shown_name.encode()),
            integer(entry.arity),
            set_of([simple(flag) for flag in sorted(entry.flags)], resp),
            integer(keys.first),
            integer(keys.last),
            integer(keys.step),
            set_of([simple(category) for category in categories(entry)], resp),
            set_of([bulk(tip.encode()) for tip in tips(entry.name, scan_scope=request.context.settings.scan_scope)], resp),
            set_of([_key_specification(entry, resp)] if keys.first else [], resp),
            array([described(each, request) for each in entry.subcommands.values()]) if entry.subcommands else set_of([], resp),
        ]
    )


def _key_specification(entry: Command, resp: int) -> bytes:
    keys = entry.keys
    # The last key is told from the first one on, or from the end.
    last = keys.last - keys.first if keys.last > 0 else keys.last
    begin = {"type": "index", "spec": {"index": keys.first}}
    finding = {"type": "range", "spec": {"lastkey": last, "keystep": keys.step, "limit": 0}}
    return mapping(
        [
            (bulk(b"flags"), set_of([simple(flag) for flag in key_flags(entry)], resp)),
            (bulk(b"begin_search"), encode(begin, resp)),
            (bulk(b"find_keys"), encode(finding, resp)),
        ],
        resp,
    )


def key_flags(entry: Command) -> tuple[str, ...]:
    """What a command does to its keys, in the words of Redis."""
    return KEY_FLAGS.get(entry.name) or (("RW", "update") if entry.is_write else ("RO", "access"))


def _key_flags_of(entry: Command, line: list[bytes]) -> tuple[str, ...]:
    """The same of one command line: only with GET does SET look at what was there."""
    if entry.name != "SET":
        return key_flags(entry)
    return ("RW", "access", "update") if b"GET" in {word.upper() for word in line[3:]} else ("OW", "update")


def categories(entry: Command) -> list[str]:
    """The categories of access control that Redis would put a command in."""
    flags, name = entry.flags, entry.name
    found = []
    if "write" in flags:
        found.append("@write")
    elif "readonly" in flags:
        found.append("@read")
    if name.startswith("COMMAND"):
        found.append("@connection")
    elif name in OTHER_CATEGORIES:
        found.append(OTHER_CATEGORIES[name])
    elif entry.group in GROUP_CATEGORIES and not entry.subcommands:
        found.append(GROUP_CATEGORIES[entry.group])
    is_administrative = "admin" in flags or name in ADMINISTRATIVE
    if is_administrative:
        found.append("@admin")
    if is_administrative or name in DANGEROUS:
        found.append("@dangerous")
    found.append("@fast" if "fast" in flags else "@slow")
    return found


def documented(entry: Command, resp: int) -> bytes:
    """One command as COMMAND DOCS tells it."""
    facts = (("summary", entry.summary), ("since", entry.since), ("group", entry.group), ("complexity", entry.complexity))
    pairs = [(bulk(name.encode()), bulk(text.encode())) for name, text in facts]
    arguments = arguments_of(entry.name)
    if arguments:
        pairs.append((bulk(b"arguments"), _encoded_arguments(arguments, resp)))
    if entry.subcommands:
        told = [(bulk(each.shown_name.encode()), documented(each, resp)) for each in entry.subcommands.values()]
        pairs.append((bulk(b"subcommands"), mapping(told, resp)))
    return mapping(pairs, resp)


def _encoded_arguments(arguments: list[Argument], resp: int) -> bytes:
    """What `syntax` draws, on the wire. redis-cli ends with a failed assertion if flags are anything but simple strings."""
    encoded = []
    for argument in arguments:
        pairs = []
        for name, value in argument.items():
            if name == "flags":
                told = set_of([simple(flag) for flag in value], resp)
            elif name == "arguments":
                told = _encoded_arguments(value, resp)
            else:
                told = encode(value, resp)
            pairs.append((bulk(name.encode()), told))
        encoded.append(mapping(pairs, resp))
    return array(encoded)
