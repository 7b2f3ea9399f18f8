"""Commands about the server as a whole: its time, its role, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from respkv.commands.help_text import help_reply
from respkv.commands.table import command
from respkv.coordinator.batches import WriteBatch
from respkv.coordinator.operations import Until
from respkv.errors import ClientError, NotAnIntegerError, SyntaxProblemError
from respkv.resp.numbers import parse_integer
from respkv.resp.writer import EMPTY_ARRAY, array, bulk, bulks, integer

if TYPE_CHECKING:
    from collections.abc import Callable

    from respkv.commands.context import Request
    from respkv.coordinator.operations import Steps

MODULE_HELP = """
LIST
    Return a list of loaded modules: there are none.
LOAD <path> [<arg> ...]
    Refused: respkv loads no modules."""
NO_MODULES = "respkv loads no modules"
NO_DEBUG = "DEBUG command not allowed: respkv has none. MEMORY USAGE, OBJECT and RESPKV KEY tell what a key is and where"


@command("TIME", arity=1, flags="loading stale fast", group="server", since="2.6.0", complexity="O(1)")
def time(request: Request) -> bytes:
    """Returns the server time."""
    seconds, milliseconds = divmod(request.now_ms, 1000)
    return bulks([b"%d" % seconds, b"%d" % (milliseconds * 1000)])


@command("ROLE", arity=1, flags="noscript loading stale fast", group="server", since="2.8.12", complexity="O(1)")
def role(request: Request) -> bytes:
    """Returns the replication role: every node is a master of its own, and none has followers."""
    del request
    return array([bulk(b"master"), integer(0), EMPTY_ARRAY])


@command("LASTSAVE", arity=1, flags="loading stale fast", group="server", complexity="O(1)")
def lastsave(request: Request) -> bytes:
    """Returns the Unix timestamp of the last successful save to disk."""
    context = request.context
    return integer(context.facts.get("last_save_s", context.started_wall_ms // 1000))


@command(
    "SHUTDOWN",
    arity=-1,
    flags="admin noscript loading stale no_multi allow_busy",
    group="server",
    complexity="O(N) where N is the number of keys that are not on disk",
)
def shutdown(request: Request) -> None:
    """Synchronously saves the database(s) to disk and shuts down the server."""
    words = [word.upper() for word in request.args[1:]]
    if not {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"}.issuperset(words) or {b"NOSAVE", b"SAVE"}.issubset(words):
        raise SyntaxProblemError
    if b"ABORT" in words:
        if len(words) > 1:
            raise SyntaxProblemError
        raise ClientError("No shutdown in progress.")
    request.context.turn.events.append(("notice", "User requested shutdown..."))
    request.context.stop(0)


@command("WAIT", arity=3, flags="noscript", group="generic", since="3.0.0", complexity="O(1)")
def wait(request: Request) -> Steps:
    """Blocks until the last write of the connection is on so many further replicas, or the time is over."""
    wanted = parse_integer(request.args[1])
    try:
        timeout_ms = parse_integer(request.args[2])
    except NotAnIntegerError:
        raise ClientError("timeout is not an integer or out of range") from None
    if timeout_ms < 0:
        raise ClientError("timeout is negative")
    return _wait(request, wanted, timeout_ms)


def _wait(request: Request, wanted: int, timeout_ms: int) -> Steps:
    copies = _copies(request)
    now = request.context.turn.now
    # A write that its replicas have not acknowledged by the end of a request has become hints: nothing more will come.
    patience_s = request.context.coordinator.request_timeout_s
    yield Until(lambda: copies() >= wanted, now + (min(timeout_ms / 1000, patience_s) if timeout_ms else patience_s))
    return integer(copies())


def _copies(request: Request) -> Callable[[], int]:
    """How many replicas beside a first one have acknowledged the last write of the connection, as far as this node knows."""
    last: Any = request.client.last if request.client is not None else None
    batches = last if isinstance(last, list) else [last]
    if all(isinstance(batch, WriteBatch) for batch in batches):
        return lambda: max(min(batch.acks for batch in batches) - 1, 0)
    # All earlier commands are answered when this one begins: what they wrote is on W replicas at least.
    quorum = request.quorum or request.context.coordinator.quorum
    return lambda: quorum.w - 1


@command("MODULE", arity=-2, group="server", since="4.0.0", complexity="Depends on subcommand.")
def module(request: Request) -> bytes:
    """A container for module commands."""
    raise NotImplementedError(request)


@command("MODULE|LIST", arity=2, flags="admin noscript", group="server", since="4.0.0", complexity="O(N) where N is the number of modules")
def module_list(request: Request) -> bytes:
    """Returns all loaded modules: none."""
    del request
    return EMPTY_ARRAY


@command("MODULE|LOAD", arity=-3, flags="admin noscript no_async_loading", group="server", since="4.0.0", complexity="O(1)")
def module_load(request: Request) -> bytes:
    """Refused: there are no modules."""
    raise ClientError(NO_MODULES)


@command("MODULE|LOADEX", arity=-3, flags="admin noscript no_async_loading", group="server", since="7.0.0", complexity="O(1)")
def module_loadex(request: Request) -> bytes:
    """Refused: there are no modules."""
    raise ClientError(NO_MODULES)


@command("MODULE|UNLOAD", arity=3, flags="admin noscript no_async_loading", group="server", since="4.0.0", complexity="O(1)")
def module_unload(request: Request) -> bytes:
    """Refused: there are no modules."""
    raise ClientError(NO_MODULES)


@command("MODULE|HELP", arity=2, flags="loading stale", group="server", since="5.0.0", complexity="O(1)")
def module_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("MODULE", MODULE_HELP)


@command("DEBUG", arity=-2, flags="admin noscript loading stale", group="server", complexity="Depends on subcommand.")
def debug(request: Request) -> bytes:
    """Refused: there is none."""
    raise ClientError(NO_DEBUG)
