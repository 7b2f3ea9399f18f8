"""Commands about the connection itself: who is there, in which protocol, and with what right. CLIENT is in `clients`."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from respkv.commands.causality import CausalContexts
from respkv.commands.clients import check_name
from respkv.commands.table import REDIS_VERSION, command
from respkv.commands.transactions import forget_transaction
from respkv.errors import AuthenticationRequiredError, ClientError, NotAnIntegerError, UnsupportedProtocolError, WrongPasswordError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import OK, PONG, RESET, bulk, encode

if TYPE_CHECKING:
    from respkv.commands.context import Request

USER = b"default"
"""The only user there is."""
_OPENING = "noscript loading stale fast no_auth allow_busy"


@command("PING", arity=-1, flags="fast", group="connection", complexity="O(1)")
def ping(request: Request) -> bytes:
    """Returns the server's liveliness response."""
    match request.args:
        case [_]:
            return PONG
        case [_, message]:
            return bulk(message)
        case _:
            msg = "wrong number of arguments for 'ping' command"
            raise ClientError(msg)


@command("ECHO", arity=2, flags="loading stale fast", group="connection", complexity="O(1)")
def echo(request: Request) -> bytes:
    """Returns the given string."""
    return bulk(request.args[1])


@command("HELLO", arity=-1, flags=_OPENING, group="connection", since="6.0.0", complexity="O(1)", waits=True)
def hello(request: Request) -> bytes:
    """Handshakes with the Redis server."""
    client, words = request.connection, request.args[1:]
    protocol = _protocol(words.pop(0)) if words else 0
    name: bytes | None = None
    credentials: tuple[bytes, bytes] | None = None
    while words:
        match words[0].upper(), words[1:]:
            case b"AUTH", [user, password, *words]:
                credentials = user, password
            case b"SETNAME", [name, *words]:
                check_name(name)
            case _:
                option = words[0].decode("utf-8", "surrogateescape")
                raise ClientError(f"Syntax error in HELLO option '{option}'")
    if credentials is not None:
        _authenticate(request, *credentials)
    if not client.authenticated:
        msg = (
            "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option "
            "can be used to authenticate the client and select the RESP protocol version at the same time"
        )
        raise AuthenticationRequiredError(msg)
    if name is not None:
        client.name = name
    if protocol:
        client.resp = protocol
        client.settle()
    return encode(
        {
            "server": "redis",
            "version": REDIS_VERSION,
            "proto": client.resp,
            "id": client.id,
            "mode": "cluster",
            "role": "master",
            "modules": [],
        },
        client.resp,
    )


def _protocol(word: bytes) -> int:
    try:
        protocol = parse_integer(word)
    except NotAnIntegerError:
        msg = "Protocol version is not an integer or out of range"
        raise ClientError(msg) from None
    if protocol not in {2, 3}:
        raise UnsupportedProtocolError
    return protocol


@command("AUTH", arity=-2, flags=_OPENING, group="connection", complexity="O(N) where N is the number of passwords defined for the user")
def auth(request: Request) -> bytes:
    """Authenticates the connection."""
    match request.args:
        case [_, password]:
            if not request.context.settings.requirepass:
                msg = (
                    "AUTH <password> called without any password configured for the default user. "
                    "Are you sure your configuration is correct?"
                )
                raise ClientError(msg)
            _authenticate(request, USER, password)
        case [_, user, password]:
            _authenticate(request, user, password)
        case _:
            msg = "syntax error"
            raise ClientError(msg)
    return OK


def _authenticate(request: Request, user: bytes, password: bytes) -> None:
    """Trust the client if the password is right; any is, as in Redis, while none is set."""
    wanted = request.context.settings.requirepass.encode("utf-8", "surrogateescape")
    is_right = hmac.compare_digest(password, wanted) or not wanted
    if user != USER or not is_right:
        request.context.statistics.acl_denied_total += 1
        msg = "invalid username-password pair or user is disabled."
        raise WrongPasswordError(msg)
    request.connection.set_authenticated(authenticated=True)


@command("QUIT", arity=-1, flags=_OPENING, group="connection", complexity="O(1)", immediate=True)
def quit_(request: Request) -> bytes:
    """Closes the connection."""
    client = request.connection
    client.closing = True
    client.settle()
    return OK


@command("RESET", arity=1, flags=_OPENING, group="connection", since="6.2.0", complexity="O(1)", immediate=True, waits=True)
def reset(request: Request) -> bytes:
    """Resets the connection."""
    client = request.connection
    forget_transaction(client)
    client.watched = None
    client.contexts = CausalContexts()
    client.name = b""
    client.resp = 2
    client.flags.clear()
    client.reply_mode = "on"
    client.silent = False
    client.readonly = False
    client.quorum = None
    client.set_authenticated(authenticated=not request.context.settings.requirepass)
    return RESET


@command("SELECT", arity=2, flags="loading stale fast", group="connection", complexity="O(1)")
def select(request: Request) -> bytes:
    """Changes the selected database."""
    if parse_integer(request.args[1]):
        msg = "SELECT is not allowed in cluster mode"
        raise ClientError(msg)
    return OK


@command("READONLY", arity=1, flags="loading stale fast", group="cluster", since="3.0.0", complexity="O(1)")
def readonly(request: Request) -> bytes:
    """Enables read-only queries: where readonly-consistency is one, the first replica that answers will do."""
    client = request.connection
    client.readonly = True
    client.settle()
    return OK


@command("READWRITE", arity=1, flags="loading stale fast", group="cluster", since="3.0.0", complexity="O(1)")
def readwrite(request: Request) -> bytes:
    """Ends what READONLY began."""
    client = request.connection
    client.readonly = False
    client.settle()
    return OK


@command("ASKING", arity=1, flags="fast", group="cluster", since="3.0.0", complexity="O(1)")
def asking(request: Request) -> bytes:
    """Signals that a cluster client is following an -ASK redirect. No node here sends one."""
    return OK
