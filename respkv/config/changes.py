"""CONFIG SET: several pairs are checked together and change together, or not at all. Redis's words for each refusal.

Rule 1: nothing here changes settings before every pair, and what they make together, has been found good.
Rule 2: what belongs to the cluster is only staged: it takes effect when the cluster's new value is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.config.checks import combination_problem
from respkv.config.directives import BY_NAME, lookup
from respkv.config.values import UnfitArgumentError, arguments_of
from respkv.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from respkv.config.directive import Directive
    from respkv.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Staged:
    """Changes that are good to make: names of directives, never aliases, and what CONFIG GET will print."""

    cluster: dict[str, str]
    """For the cluster's next value."""
    node: dict[str, str]
    """For this node alone."""


def stage(
    settings: Settings, pairs: Sequence[tuple[bytes, bytes]], *, members: int | None = None, may_set_protected: bool = False
) -> Staged:
    """Check the pairs of one CONFIG SET. Raises `ClientError`, and has changed nothing.

    Args:
        settings: What is set now.
        pairs: The names and arguments, as the client wrote them.
        members: How many members the ring has, where it is known: N is never more.
        may_set_protected: What `enable-protected-configs` says about this client.
    """
    chosen = _choose(pairs, may_set_protected=may_set_protected)
    trial = settings.copy()
    for directive, name, text in chosen:
        try:
            trial.assign(directive, arguments_of(directive, text))
        except UnfitArgumentError as error:
            raise refusal(name, str(error)) from None
    problem = combination_problem(trial, members=members)
    if problem:
        given = [directive.name for directive, _, _ in chosen]
        # A state that was impossible before must not block changes that have nothing to do with it.
        culprits = [name for name in problem.names if name in given]
        if culprits or combination_problem(settings, members=members) is None:
            raise refusal((culprits or given)[0], problem.reason)
    staged = Staged(cluster={}, node={})
    for directive, _, _ in chosen:
        (staged.cluster if directive.is_shared else staged.node)[directive.name] = trial.show(directive.name)
    return staged


def apply(settings: Settings, changed: Mapping[str, str]) -> None:
    """Carry out what was staged, or what the cluster's value says."""
    for name, text in changed.items():
        directive = BY_NAME[name]
        settings.assign(directive, arguments_of(directive, text))


def refusal(name: str, reason: str) -> ClientError:
    """Redis's form of what CONFIG SET answers when an argument cannot be."""
    return ClientError(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _choose(pairs: Sequence[tuple[bytes, bytes]], *, may_set_protected: bool) -> list[tuple[Directive, str, str]]:
    """The directives that are named, with their arguments; what may not be set is refused before any argument is read."""
    chosen: list[tuple[Directive, str, str]] = []
    for name_bytes, argument in pairs:
        name = name_bytes.decode("utf-8", "surrogateescape")
        directive = lookup(name)
        if directive is None:
            raise ClientError(f"Unknown option or number of arguments for CONFIG SET - '{name}'")
        if directive.protected and not may_set_protected:
            raise refusal(name, "can't set protected config")
        if directive.immutable:
            raise refusal(name, "can't set immutable config")
        if any(directive is other for other, _, _ in chosen):
            raise refusal(name, "duplicate parameter")
        chosen.append((directive, name.lower(), argument.decode("utf-8", "surrogateescape")))
    return chosen
