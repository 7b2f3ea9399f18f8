"""Directives among the arguments of `respkv up`, and in the files that it writes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from respkv.config.conf_lines import parse_line, quoted
from respkv.config.directives import lookup
from respkv.config.start import option_lines
from respkv.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
OWNED = frozenset(
    {
        "port",
        "cluster-port",
        "dir",
        "cluster-nodes",
        "cluster-secret",
        "cluster-announce-ip",
        "cluster-announce-port",
        "cluster-announce-bus-port",
        "logfile",
        "daemonize",
    }
)
"""What differs from node to node, or holds the cluster together: `up` itself sees to these."""


def directives_of(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The arguments of each `--directive value ...`, by its proper name; a later one wins."""
    found: dict[str, list[str]] = {}
    for line in option_lines(list(arguments)):
        directive = lookup(line.name)
        if directive is None:
            raise ConfigurationError(f"--{line.name} is no directive; conf/respkv.conf explains all there are.")
        if directive.name in OWNED:
            raise ConfigurationError(f"--{line.name} is what `respkv up` sets for each node; --nodes, --port and --dir are yours.")
        if directive.name == "bind" and line.arguments != [LOOPBACK]:
            raise ConfigurationError(
                f"--{line.name}: `respkv up` keeps its nodes on {LOOPBACK}; those that others reach are started one by one, "
                "by `respkv server`."
            )
        found[directive.name] = line.arguments
    return found


def with_directives(text: str, directives: Mapping[str, Sequence[str]]) -> str:
    """A respkv.conf with these directives set: in their old place, or else at the end."""
    missing = dict(directives)
    lines = []
    for raw in text.splitlines():
        name = name_in(raw)
        if name not in directives:
            lines.append(raw)
        elif name in missing:
            lines.append(line_of(name, missing.pop(name)))
    lines += [line_of(name, values) for name, values in missing.items()]
    return "\n".join(lines) + "\n"


def name_in(raw: str) -> str:
    """The proper name of the directive that a line sets; nothing where it sets none."""
    line = parse_line(raw, source="respkv.conf", number=0)
    directive = lookup(line.name) if line else None
    return directive.name if directive else ""


def line_of(name: str, values: Sequence[str]) -> str:
    """One line of a respkv.conf."""
    return " ".join([name, *map(quoted, values)])
