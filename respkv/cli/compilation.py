"""What `respkv compile` does: a faster node, where there is a C compiler."""

from __future__ import annotations

import sys
import time

from respkv.compilation import builder, modules
from respkv.compilation.finder import SWITCH

EXIT_COMPILED = 0
EXIT_INTERPRETED = 1


def compile_hot_modules() -> int:
    """Compile what is not, and say so; the exit code. Nothing is printed if there is nothing to do."""
    try:
        sources = builder.Sources()
    except SyntaxError as error:
        _say(f"not compiled: {error}")
        return EXIT_INTERPRETED
    count = len(sources.missing())
    if not count:
        return EXIT_COMPILED
    started = time.monotonic()
    try:
        linker = builder.find_linker()
    except builder.BuildError as error:
        return _give_up(error)
    _say(f"compiling {count} of the {len(modules.HOT)} files that every request passes through (a minute or several for all of them)")
    failed: list[tuple[str, str]] = []

    def note(job: builder.Job, problem: str) -> None:
        if problem:
            failed.append((job.name, problem))

    try:
        builder.build(sources, linker=linker, on_done=note)
    except builder.BuildError as error:
        return _give_up(error)
    sources.sweep()
    if failed:
        name, problem = failed[0]
        _say(f"{len(failed)} files could not be compiled and are interpreted, which is slower; {name}:\n{problem}")
        return EXIT_INTERPRETED
    _say(f"compiled in {time.monotonic() - started:.0f} s; nodes that start from now on use it ({SWITCH}=no switches it off)")
    return EXIT_COMPILED


def _give_up(error: builder.BuildError) -> int:
    _say(f"not compiled: {error}. Everything works all the same, at about two thirds of the speed; `respkv compile` tries again.")
    return EXIT_INTERPRETED


def _say(text: str) -> None:
    """To the error output: what is asked of the launcher may be read by a program."""
    print(f"respkv: {text}", file=sys.stderr, flush=True)
