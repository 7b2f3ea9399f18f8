"""Where a process starts.

Rule 1: a node imports no command-line library. `server` is told apart here, by hand, because five nodes
that start together on two cores feel every import.
"""

from __future__ import annotations

import sys

HELP_WORDS = frozenset({"--help", "-h"})
EXIT_REFUSED = 1


def main() -> int:
    """Run the command that the arguments name; the result is the exit code."""
    if not __debug__:
        print("respkv does not run under python -O: its assertions guard your data.", file=sys.stderr)
        return EXIT_REFUSED
    arguments = sys.argv[1:]
    if wants_server(arguments):
        from respkv.compilation import finder

        # Before the node is imported: what is imported already stays interpreted.
        finder.install()
        from respkv.server.main import run_server

        return run_server(arguments[1:])
    from respkv.cli.app import run_app

    return run_app(arguments)


def wants_server(arguments: list[str]) -> bool:
    """Whether a node is to run, rather than to be explained."""
    return arguments[:1] == ["server"] and not (len(arguments) > 1 and arguments[1] in HELP_WORDS)
