"""Write the tables of README.md from the tables of commands and directives; a test compares them.

A table stands between the lines `<!-- generated: NAME -->` and `<!-- end of NAME -->`; all else is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from respkv.commands.registry import MODULES  # noqa: E402 - found only once the path is set
from respkv.commands.table import COMMANDS, Command  # noqa: E402
from respkv.config.directive import Directive, Scope  # noqa: E402
from respkv.config.directives import GROUPS  # noqa: E402
from respkv.config.reference import range_of  # noqa: E402

README = ROOT / "README.md"
TITLES = {
    "string": "Strings and counters",
    "generic": "Keys",
    "transactions": "Transactions",
    "connection": "Connection",
    "server": "Server",
    "cluster": "Cluster",
}
REFUSAL = "Refused"
"""How the summary of a command begins that exists only to say why it is refused."""

assert MODULES


def is_refused(command: Command) -> bool:
    """Whether all that a command does is to say why it does nothing."""
    return command.summary.startswith(REFUSAL)


def shown(command: Command) -> str:
    """A command, with its subcommands if it has any that do something."""
    names = [name.decode() for name, each in command.subcommands.items() if not is_refused(each)]
    return f"`{command.name}` ({' '.join(names)})" if names else f"`{command.name}`"


def commands_table() -> str:
    """Every command that is supported, by group."""
    rows = ["| group | commands |", "|---|---|"]
    for group, title in TITLES.items():
        entries = [
            command
            for command in sorted(COMMANDS.values(), key=lambda command: command.name)
            if command.group == group and not is_refused(command)
        ]
        rows.append(f"| {title} | {' '.join(map(shown, entries))} |")
    assert {command.group for command in COMMANDS.values()} <= TITLES.keys()
    return "\n".join(rows)


def refused_list() -> str:
    """Every command that is known, and refused with its reason."""
    return ", ".join(_refused_names(sorted(COMMANDS.values(), key=lambda command: command.name))) + "."


def _refused_names(commands: Iterable[Command]) -> Iterable[str]:
    for command in commands:
        if is_refused(command):
            yield f"`{command.name}`"
        yield from (f"`{each.name.replace('|', ' ')}`" for each in command.subcommands.values() if is_refused(each))


def _name_of(directive: Directive) -> str:
    return f"`{directive.name}` (`{directive.alias}`)" if directive.alias else f"`{directive.name}`"


def _unit_of(directive: Directive) -> str:
    return f" {directive.unit}" if directive.unit and directive.default.isdecimal() else ""


def _with_default(directive: Directive) -> str:
    default = directive.default or '""'
    return f"`{directive.name} {default}`{' (at start)' if directive.immutable else ''}"


def cluster_directives_table() -> str:
    """The directives that belong to the cluster, with the first sentence of their explanation."""
    rows = ["| directive | default | range | meaning |", "|---|---|---|---|"]
    for group in GROUPS:
        for directive in group.directives:
            if directive.scope is Scope.CLUSTER:
                sentence = re.split(r"\. ", directive.help)[0].removesuffix(".").replace("|", "\\|")
                range_text = range_of(directive).replace(" | ", ", ")
                rows.append(f"| {_name_of(directive)} | {directive.default}{_unit_of(directive)} | {range_text} | {sentence} |")
    return "\n".join(rows)


def node_directives_table() -> str:
    """The directives of a node, by group, with their defaults."""
    rows = ["| group | directives with their defaults |", "|---|---|"]
    for group in GROUPS:
        own = [directive for directive in group.directives if directive.scope is Scope.NODE]
        if own:
            rows.append(f"| {group.title.lower()} | {', '.join(map(_with_default, own))} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands_table,
    "refused commands": refused_list,
    "directives of the cluster": cluster_directives_table,
    "directives of a node": node_directives_table,
}


def generated(text: str) -> str:
    """The text with all its tables drawn anew. Raises ValueError where a table has no place in it."""
    for name, draw in TABLES.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            msg = f"README.md lacks the lines {begin} and {end}"
            raise ValueError(msg)
        text = f"{before}{begin}\n{draw()}\n{end}{after}"
    return text


def main() -> None:
    """Write the file."""
    README.write_text(generated(README.read_text()))
    print(f"wrote {README.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
