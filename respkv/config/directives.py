"""The table of directives: the one place that CONFIG, the file, the command line and the documents read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.config.client_directives import CLIENT_LIMITS, NETWORK, SECURITY
from respkv.config.cluster_directives import HANDOFF, MEMBERSHIP, QUORUM
from respkv.config.node_directives import COMPATIBILITY, MEMORY, OBSERVATION, PERSISTENCE
from respkv.config.repair_directives import REPAIR
from respkv.config.version_directives import VERSIONS

if TYPE_CHECKING:
    from respkv.config.directive import Directive, Group

GROUPS: tuple[Group, ...] = (
    NETWORK,
    CLIENT_LIMITS,
    SECURITY,
    MEMBERSHIP,
    QUORUM,
    HANDOFF,
    VERSIONS,
    REPAIR,
    MEMORY,
    PERSISTENCE,
    OBSERVATION,
    COMPATIBILITY,
)

DIRECTIVES: tuple[Directive, ...] = tuple(directive for group in GROUPS for directive in group.directives)

BY_NAME: dict[str, Directive] = {directive.name: directive for directive in DIRECTIVES} | {
    directive.alias: directive for directive in DIRECTIVES if directive.alias
}
"""Each directive under its name and under its alias."""

SHARED: tuple[Directive, ...] = tuple(directive for directive in DIRECTIVES if directive.is_shared)
"""What the cluster's versioned value holds."""


def lookup(name: str) -> Directive | None:
    """The directive of this name or alias, in any case."""
    return BY_NAME.get(name.lower())
