"""What a node is started with: `[CONF_FILE] [-] [--directive value ...]`, as redis-server takes it.

The file, then standard input (`-`), then the options: what comes later wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from respkv.config.checks import start_problem
from respkv.config.conf_lines import Line, in_quotes, lines_of, split_line
from respkv.config.directives import lookup
from respkv.config.settings import Settings
from respkv.config.values import UnfitArgumentError
from respkv.errors import ConfigurationError

Reader = Callable[[str], Iterable[tuple[str, str]]]
"""The files that a path or a glob pattern names, each with its text; `-` is standard input.

A pattern may name none; a path that cannot be read raises `OSError`. Bytes that are no UTF-8 are decoded with `surrogateescape`.
"""

STANDARD_INPUT = "-"
COMMAND_LINE = "the command line"
INCLUDE_DEPTH_MAX = 16


@dataclass(slots=True)
class Start:
    """Settings that are good to start with, and where they come from."""

    settings: Settings = field(default_factory=Settings)
    conf_file: str | None = None
    """What CONFIG REWRITE rewrites; None if the node was started without a file."""
    given: dict[str, Line] = field(default_factory=dict)
    """The line that set each directive last, by the directive's name."""


def configure(arguments: list[str], *, read: Reader) -> Start:
    """Read the command line and the files that it names. Raises `ConfigurationError`."""
    start = Start()
    rest = list(arguments)
    if rest and not rest[0].startswith("-"):
        start.conf_file = rest.pop(0)
        _load_files(start, start.conf_file, read=read, depth=0)
    # As in redis-server, the dash stands first, behind the file, or last.
    if STANDARD_INPUT in rest[:1]:
        rest.pop(0)
        _load_files(start, STANDARD_INPUT, read=read, depth=0)
    elif STANDARD_INPUT in rest[-1:]:
        rest.pop()
        _load_files(start, STANDARD_INPUT, read=read, depth=0)
    for line in option_lines(rest):
        _load_line(start, line, read=read, depth=0)
    problem = start_problem(start.settings)
    if problem:
        for name in problem.names:
            if name in start.given:
                raise start.given[name].fault(problem.reason)
        raise ConfigurationError(problem.reason)
    return start


def option_lines(arguments: list[str]) -> list[Line]:
    """The options of a command line as lines of a file.

    The word after an option is its value even if it begins with dashes, so that any value can be given;
    further words are values until the next option. `--port 7001` may also come as one word.
    """
    lines: list[Line] = []
    may_begin = True
    for word in arguments:
        if may_begin and word.startswith("--"):
            words = split_line(word[2:])
            if not words:
                raise Line(COMMAND_LINE, 0, word, word, []).fault("Bad directive or wrong number of arguments")
            lines.append(Line(COMMAND_LINE, 0, word[2:].strip(), words[0].lower(), words[1:]))
            may_begin = len(words) > 1
        elif not lines:
            raise Line(COMMAND_LINE, 0, word, word, []).fault("Bad directive or wrong number of arguments")
        else:
            last = lines.pop()
            lines.append(Line(COMMAND_LINE, 0, f"{last.text} {in_quotes(word)}", last.name, [*last.arguments, word]))
            may_begin = True
    return lines


def _load_files(start: Start, path: str, *, read: Reader, depth: int) -> None:
    if depth > INCLUDE_DEPTH_MAX:
        msg = f"{path} is included by {INCLUDE_DEPTH_MAX} files that include each other"
        raise ConfigurationError(msg)
    try:
        files = list(read(path))
    except OSError as error:
        msg = f"Fatal error, can't open config file '{path}': {error.strerror or error}"
        raise ConfigurationError(msg) from None
    for source, text in files:
        for line in lines_of(text, source=source):
            _load_line(start, line, read=read, depth=depth)


def _load_line(start: Start, line: Line, *, read: Reader, depth: int) -> None:
    if line.name == "include":
        if len(line.arguments) != 1:
            raise line.fault("wrong number of arguments")
        _load_files(start, line.arguments[0], read=read, depth=depth + 1)
        return
    directive = lookup(line.name)
    if directive is None:
        raise line.fault("Bad directive or wrong number of arguments")
    try:
        start.settings.assign(directive, line.arguments)
    except UnfitArgumentError as error:
        raise line.fault(str(error), sensitive=directive.sensitive) from None
    start.given[directive.name] = line
