"""CLIENT: the connections of this node, told and governed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from respkv.commands.help_text import help_reply
from respkv.commands.table import command
from respkv.errors import ClientError, NotAnIntegerError, SyntaxProblemError
from respkv.resp.numbers import INTEGER_MIN, parse_integer
from respkv.resp.writer import OK, bulk, integer, verbatim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from respkv.commands.context import Client, Request

_FLAGS = "noscript loading stale"
_ADMIN = "admin noscript loading stale"
_ALL_CLIENTS = "O(N) where N is the number of client connections"
TYPES = (b"normal", b"master", b"replica", b"slave", b"pubsub")
"""The kinds of clients that CLIENT LIST and KILL know by name; here all are normal."""


@command("CLIENT", arity=-2, group="connection", since="2.4.0", complexity="Depends on subcommand.")
def client_(request: Request) -> bytes:
    """A container for client connection commands."""
    raise SyntaxProblemError


@command("CLIENT|ID", arity=2, flags=_FLAGS, group="connection", since="5.0.0", complexity="O(1)")
def client_id(request: Request) -> bytes:
    """Returns the unique client ID of the connection."""
    return integer(request.connection.id)


@command("CLIENT|INFO", arity=2, flags=_FLAGS, group="connection", since="6.2.0", complexity="O(1)")
def client_info(request: Request) -> bytes:
    """Returns information about the connection."""
    return verbatim(describe(request.connection, request) + "\n", request.resp)


@command("CLIENT|LIST", arity=-2, flags=_ADMIN, group="connection", since="2.4.0", complexity=_ALL_CLIENTS)
def client_list(request: Request) -> bytes:
    """Lists open connections."""
    clients: Iterable[Client] = request.context.clients.values()
    match [request.args[2].upper() if len(request.args) > 2 else b"", *request.args[3:]]:
        case [b""]:
            pass
        case [b"TYPE", kind]:
            check_type(kind)
            clients = clients if kind.lower() == b"normal" else ()
        case [b"ID", first, *rest]:
            wanted = {_id_of(word, "Invalid client ID", lowest=INTEGER_MIN) for word in (first, *rest)}
            clients = [client for client in clients if client.id in wanted]
        case _:
            raise SyntaxProblemError
    return verbatim("".join(describe(client, request) + "\n" for client in clients), request.resp)


@command("CLIENT|GETNAME", arity=2, flags=_FLAGS, group="connection", since="2.6.9", complexity="O(1)")
def client_getname(request: Request) -> bytes:
    """Returns the name of the connection."""
    return bulk(request.connection.name or None, request.resp)


@command("CLIENT|SETNAME", arity=3, flags=_FLAGS, group="connection", since="2.6.9", complexity="O(1)")
def client_setname(request: Request) -> bytes:
    """Sets the connection name."""
    check_name(request.args[2])
    request.connection.name = request.args[2]
    return OK


@command("CLIENT|SETINFO", arity=4, flags=_FLAGS, group="connection", since="7.2.0", complexity="O(1)")
def client_setinfo(request: Request) -> bytes:
    """Sets information specific to the client or connection."""
    client, (option, text) = request.connection, request.args[2:]
    shown = option.decode("utf-8", "surrogateescape")
    if option.lower() not in {b"lib-name", b"lib-ver"}:
        raise ClientError(f"Unrecognized option '{shown}'")
    if not _is_printable(text):
        raise ClientError(f"{shown} cannot contain spaces, newlines or special characters.")
    if option.lower() == b"lib-name":
        client.lib_name = text
    else:
        client.lib_version = text
    return OK


@command("CLIENT|REPLY", arity=3, flags=_FLAGS, group="connection", since="3.2.0", complexity="O(1)")
def client_reply(request: Request) -> bytes | None:
    """Instructs the server whether to reply to commands."""
    client = request.connection
    reply: bytes | None = None
    match request.args[2].upper():
        case b"ON":
            client.reply_mode = "on"
            client.silent = False
            reply = OK
        case b"OFF":
            client.reply_mode = "off"
        case b"SKIP":
            if client.reply_mode != "off":
                client.reply_mode = "skip"
        case _:
            raise SyntaxProblemError
    client.settle()
    return reply


@command("CLIENT|NO-EVICT", arity=3, flags=_ADMIN, group="connection", since="7.0.0", complexity="O(1)")
def client_no_evict(request: Request) -> bytes:
    """Sets the client eviction mode of the connection."""
    return _switch(request, "no-evict")


@command("CLIENT|NO-TOUCH", arity=3, flags=_FLAGS, group="connection", since="7.2.0", complexity="O(1)")
def client_no_touch(request: Request) -> bytes:
    """Controls whether commands sent by the client affect the LRU/LFU of accessed keys."""
    return _switch(request, "no-touch")


def _switch(request: Request, flag: str) -> bytes:
    flags = request.connection.flags
    match request.args[2].upper():
        case b"ON":
            flags.add(flag)
        case b"OFF":
            flags.discard(flag)
        case _:
            raise SyntaxProblemError
    return OK


# --- CLIENT KILL


class KillFilter(NamedTuple):
    """Which clients are to go: those that meet all that is set."""

    number: int | None = None
    address: bytes | None = None
    local_address: bytes | None = None
    kind: bytes | None = None
    spares_caller: bool = True

    def meets(self, client: Client, caller: Client) -> bool:
        """Whether a client is to go."""
        return (
            (self.number is None or client.id == self.number)
            and (self.address is None or client.address.encode() == self.address)
            and (self.local_address is None or client.local_address.encode() == self.local_address)
            and self.kind in {None, b"normal"}
            and not (self.spares_caller and client is caller)
        )


@command("CLIENT|KILL", arity=-3, flags=_ADMIN, group="connection", since="2.4.0", complexity=_ALL_CLIENTS)
def client_kill(request: Request) -> bytes:
    """Terminates open connections."""
    caller = request.connection
    is_old_form = len(request.args) == 3
    chosen = KillFilter(address=request.args[2], spares_caller=False) if is_old_form else _read_filter(request.args[2:])
    victims = [client for client in request.context.clients.values() if chosen.meets(client, caller)]
    for victim in victims:
        if victim is caller:
            # The reply still goes out.
            caller.closing = True
            caller.settle()
        else:
            request.context.close_client(victim.id)
    if not is_old_form:
        return integer(len(victims))
    if not victims:
        msg = "No such client"
        raise ClientError(msg)
    return OK


def _read_filter(words: list[bytes]) -> KillFilter:
    chosen = KillFilter()
    if len(words) % 2:
        raise SyntaxProblemError
    for option, value in zip(words[::2], words[1::2], strict=True):
        match option.upper(), value.lower():
            case b"ID", _:
                chosen = chosen._replace(number=_id_of(value, "client-id should be greater than 0", lowest=1))
            case b"ADDR", _:
                chosen = chosen._replace(address=value)
            case b"LADDR", _:
                chosen = chosen._replace(local_address=value)
            case b"TYPE", kind:
                check_type(value)
                chosen = chosen._replace(kind=kind)
            case b"USER", _:
                if value != b"default":
                    raise ClientError(f"No such user '{value.decode('utf-8', 'surrogateescape')}'")
            case b"SKIPME", (b"yes" | b"no") as answer:
                chosen = chosen._replace(spares_caller=answer == b"yes")
            case _:
                raise SyntaxProblemError
    return chosen


HELP = """
GETNAME
    Return the name of the current connection.
ID
    Return the ID of the current connection.
INFO
    Return information about the current client connection.
KILL <ip:port>
    Kill connection made from <ip:port>.
KILL <option> <value> [<option> <value> [...]]
    Kill connections. Options are:
    * ADDR (<ip:port>|<unixsocket>:0)
      Kill connections made from the specified address
    * LADDR (<ip:port>|<unixsocket>:0)
      Kill connections made to specified local address
    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)
      Kill connections by type.
    * USER <username>
      Kill connections authenticated by <username>.
    * SKIPME (YES|NO)
      Skip killing current connection (default: yes).
LIST [options ...]
    Return information about client connections. Options:
    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)
      Return clients of specified type.
    * ID <client-id> [<client-id> [...]]
      Return clients of specified IDs only.
NO-EVICT (ON|OFF)
    Protect current client connection from eviction.
NO-TOUCH (ON|OFF)
    Will not touch LRU/LFU stats when this mode is on.
REPLY (ON|OFF|SKIP)
    Control the replies sent to the current connection.
SETINFO <option> <value>
    Set client meta attr. Options are:
    * LIB-NAME: the client lib name.
    * LIB-VER: the client lib version.
SETNAME <name>
    Assign the name <name> to the current connection.
"""


@command("CLIENT|HELP", arity=2, flags="loading stale", group="connection", since="5.0.0", complexity="O(1)")
def client_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    return help_reply("CLIENT", HELP)


# --- what a client is


def describe(client: Client, request: Request) -> str:
    """The line of CLIENT LIST, in Redis's fields."""
    turn = request.context.turn
    queued = client.transaction
    waiting = client.unfinished_bytes + sum(len(word) for words in client.backlog for word in words)
    queued_bytes = client.transaction_bytes if queued is not None else 0
    fields = {
        "id": client.id,
        "addr": client.address,
        "laddr": client.local_address,
        "fd": -1,
        "name": _text(client.name),
        "age": int(turn.now - client.created),
        "idle": int(turn.now - client.last_active),
        "flags": _flags_of(client),
        "db": 0,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1 if queued is None else len(queued),
        "qbuf": waiting,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": queued_bytes,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": client.out_bytes,
        "tot-mem": waiting + client.out_bytes + queued_bytes,
        "events": "r",
        "cmd": client.last_command,
        "user": "default",
        "redir": -1,
        "resp": client.resp,
        "lib-name": _text(client.lib_name),
        "lib-ver": _text(client.lib_version),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _flags_of(client: Client) -> str:
    letters = {
        "x": client.transaction is not None,
        "c": client.closing,
        "r": client.readonly,
        "e": "no-evict" in client.flags,
        "T": "no-touch" in client.flags,
    }
    return "".join(letter for letter, is_set in letters.items() if is_set) or "N"


def check_name(name: bytes) -> None:
    """Refuse a name that would break the lines of CLIENT LIST."""
    if not _is_printable(name):
        msg = "Client names cannot contain spaces, newlines or special characters."
        raise ClientError(msg)


def _is_printable(text: bytes) -> bool:
    return all(ord("!") <= byte <= ord("~") for byte in text)


def check_type(kind: bytes) -> None:
    """Refuse a type of client that Redis does not know."""
    if kind.lower() not in TYPES:
        raise ClientError(f"Unknown client type '{kind.decode('utf-8', 'surrogateescape')}'")


def _id_of(word: bytes, complaint: str, *, lowest: int) -> int:
    try:
        number = parse_integer(word)
    except NotAnIntegerError:
        raise ClientError(complaint) from None
    if number < lowest:
        raise ClientError(complaint)
    return number


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
