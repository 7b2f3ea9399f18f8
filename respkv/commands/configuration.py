"""CONFIG: the directives of this node and of the cluster, read and changed while they are in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.context import NodeStatistics
from respkv.commands.help_text import help_reply
from respkv.commands.table import COMMANDS, CommandStatistics, command
from respkv.config import changes
from respkv.config.rewrite import rewrite
from respkv.coordinator.coordinator import CoordinatorStatistics
from respkv.errors import ClientError, SyntaxProblemError
from respkv.resp.glob import matches
from respkv.resp.writer import OK, bulk, mapping

if TYPE_CHECKING:
    from respkv.commands.context import Context, Request
    from respkv.config.changes import Staged
    from respkv.coordinator.operations import Steps

_ADMIN = "admin noscript loading stale"
_LOOPBACK = ("127.", "[::1]:")
OVERRIDDEN = "config_overridden"
"""The fact that holds the names which CONFIG SET has changed since the start."""
HELP = """
GET <pattern>
    Return parameters matching the glob-like <pattern> and their values.
SET <directive> <value>
    Set the configuration <directive> to <value>. Several pairs change
    together or not at all; directives of the cluster change on all nodes.
RESETSTAT
    Reset statistics reported by the INFO command.
REWRITE
    Rewrite the configuration file."""

DAMAGES_FILE = "damages"
"""A small file: what starts have found damaged or missing, a line each, until CONFIG RESETSTAT."""


@command("CONFIG", arity=-2, group="server", since="2.0.0", complexity="Depends on subcommand.")
def config(request: Request) -> bytes:
    """A container for server configuration commands."""
    raise NotImplementedError(request)


@command("CONFIG|GET", arity=-3, flags=_ADMIN, group="server", since="2.0.0", complexity="O(N) where N is the number of directives")
def config_get(request: Request) -> bytes:
    """Returns the effective values of configuration parameters."""
    found = request.context.settings.matching(request.args[2:], matches=lambda pattern, name: matches(pattern, name, ignore_case=True))
    return mapping([(bulk(name), bulk(value)) for name, value in found], request.resp)


@command("CONFIG|SET", arity=-4, flags=_ADMIN, group="server", since="2.0.0", complexity="O(N) where N is the number of directives")
def config_set(request: Request) -> Steps:
    """Sets configuration parameters in-flight."""
    words = request.args[2:]
    if len(words) % 2:
        raise SyntaxProblemError
    context = request.context
    staged = changes.stage(
        context.settings,
        list(zip(words[::2], words[1::2], strict=True)),
        members=len(context.ring.members),
        may_set_protected=_may_set_protected(request),
    )
    return _carry_out(context, staged)


def _may_set_protected(request: Request) -> bool:
    allowed = request.context.settings.enable_protected_configs
    return allowed == "yes" or (allowed == "local" and request.client is not None and request.client.address.startswith(_LOOPBACK))


def _carry_out(context: Context, staged: Staged) -> Steps:
    reply = yield from context.change(staged)
    if reply == OK:
        context.facts.setdefault(OVERRIDDEN, set()).update(staged.cluster, staged.node)
    return reply


@command("CONFIG|REWRITE", arity=2, flags=_ADMIN, group="server", since="2.8.0", complexity="O(1)")
def config_rewrite(request: Request) -> bytes:
    """Persists the effective configuration to file."""
    context = request.context
    facts = context.facts
    file = facts.get("config")
    if file is None:
        raise ClientError("The server is running without a config file")
    try:
        file.replace(rewrite(file.read(), context.settings, overridden=frozenset(facts.get(OVERRIDDEN, ()))))
    except OSError as error:
        raise ClientError(f"Rewriting config file: {error.strerror}") from None
    context.turn.events.append(("notice", "CONFIG REWRITE executed with success"))
    return OK


@command("CONFIG|RESETSTAT", arity=2, flags=_ADMIN, group="server", since="2.0.0", complexity="O(1)")
def config_resetstat(request: Request) -> bytes:
    """Resets the server's statistics."""
    context = request.context
    # In place: the session and the shells hold on to these objects.
    for kept, fresh in ((context.statistics, NodeStatistics()), (context.coordinator.statistics, CoordinatorStatistics())):
        for name in type(kept).__slots__:
            setattr(kept, name, getattr(fresh, name))
    for entry in COMMANDS.values():
        for each in (entry, *entry.subcommands.values()):
            each.statistics = CommandStatistics()
    if context.facts.get("damages"):
        context.facts["damages"] = []
        context.save_file(DAMAGES_FILE, b"")
    return OK


@command("CONFIG|HELP", arity=2, flags="loading stale", group="server", since="5.0.0", complexity="O(1)")
def config_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    return help_reply("CONFIG", HELP)
