"""conf/respkv.conf: every directive with its meaning, unit, range, default and scope, from the table."""

from __future__ import annotations

import textwrap

from respkv.config.conf_lines import line_for
from respkv.config.directive import INT64_MAX, Directive, Kind
from respkv.config.directives import GROUPS
from respkv.config.settings import Settings
from respkv.config.values import show_memory

WIDTH = 100

INTRODUCTION = """\
The configuration of a respkv node.

    respkv server /path/to/respkv.conf [--directive value ...]

This file is generated from the table of directives. Every line shows the default, so a line that is left out changes nothing.

One directive a line: its name in any case, then its arguments. An argument with blanks stands between double quotes, \
where \\n, \\t and \\xHH are understood, or between single quotes. `include PATH` reads another file, or all that a pattern \
like /etc/respkv/*.conf names. Of repeated lines the last one holds, and options of the command line come last: --port 7001.

Numbers of bytes may carry a unit: 1k is 1000 bytes, 1kb is 1024; m, mb, g and gb alike.

Scope `cluster`: one value for all nodes. CONFIG SET on any node changes it everywhere; what was set so is kept by the \
cluster, and beats this file when a node starts. Scope `node`: this node alone. "At start": CONFIG SET cannot change it."""

INCLUDES = """\
INCLUDES

An included file is read where its line stands. CONFIG REWRITE never changes it: what it has to say goes to the end of this file.

    include /etc/respkv/common.conf"""


def reference_conf() -> str:
    """The text of conf/respkv.conf. Read as a configuration, it sets every directive to its default."""
    parts = [_comment(INTRODUCTION), _heading(INCLUDES)]
    for group in GROUPS:
        parts.append(_heading(f"{group.title}\n\n{group.introduction}" if group.introduction else group.title))
        parts += [_entry(directive) for directive in group.directives]
    return "\n\n".join(parts) + "\n"


def range_of(directive: Directive) -> str:
    """Which arguments a directive takes, in few words."""
    match directive.kind:
        case Kind.BOOL:
            return "yes or no"
        case Kind.ENUM:
            return " | ".join(choice or '""' for choice in directive.choices)
        case Kind.INTEGER | Kind.MEMORY:
            return _range_of_number(directive)
        case Kind.QUORUM:
            return f"one | quorum | all | {directive.minimum} to {directive.maximum}"
        case Kind.STRING | Kind.LIST | Kind.BUFFER_LIMITS:
            return ""


def _range_of_number(directive: Directive) -> str:
    show = show_memory if directive.kind is Kind.MEMORY else str
    if directive.minimum == directive.maximum:
        return show(directive.minimum)
    if directive.maximum == INT64_MAX:
        return f"{show(directive.minimum)} or more"
    return f"{show(directive.minimum)} to {show(directive.maximum)}"


def facts_of(directive: Directive) -> str:
    """Unit, range, alias, scope: one line below the explanation."""
    default = directive.default or '""'
    facts = [
        f"Unit: {directive.unit}" if directive.unit else "",
        f"Range: {range_of(directive)}" if range_of(directive) else "",
        f"Default: {default}",
        f"Alias: {directive.alias}" if directive.alias else "",
        f"Scope: {directive.scope.value}{', at start' if directive.immutable else ''}",
    ]
    return ". ".join(fact for fact in facts if fact) + "."


def _entry(directive: Directive) -> str:
    comment = _comment(f"{directive.help}\n\n{facts_of(directive)}")
    return f"{comment}\n{line_for(directive, Settings().value(directive))}"


def _heading(text: str) -> str:
    title, _, rest = text.partition("\n\n")
    heading = f"{f'#### {title} ':#<{WIDTH}}"
    return f"{heading}\n\n{_comment(rest)}" if rest else heading


def _comment(text: str) -> str:
    paragraphs = []
    for paragraph in text.split("\n\n"):
        indent = "#     " if paragraph.startswith("    ") else "# "
        paragraphs.append(
            textwrap.fill(
                paragraph.strip(),
                WIDTH,
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n#\n".join(paragraphs)
