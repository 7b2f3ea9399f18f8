"""Compile the hot modules: Cython makes C of each, the C compiler that Python was built with makes a module of that.

Rule 1: a module appears under its name whole or not at all, so builders do not disturb each other, nor nodes that start meanwhile.
Rule 2: what cannot be compiled is no failure of respkv: it says so, and is interpreted.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from respkv.compilation.modules import C_FLAGS, DIRECTIVES, HOT, PACKAGE, compiled_paths, folder, needs, read_sources, source_path
from respkv.compilation.natives import NativeClass, Told, tell

OUTPUT_LINES_SHOWN = 5


class BuildError(Exception):
    """A module, or all of them, cannot be compiled here; the text says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One module to compile."""

    name: str
    target: Path


class Sources:
    """The hot modules as they are at one moment, and what Cython is told about them."""

    def __init__(self) -> None:
        """Read everything once: what is compiled is what the name says."""
        self.texts = read_sources()
        self.paths = compiled_paths(self.texts)
        self.told: dict[str, Told] = {}
        known: dict[str, dict[str, NativeClass]] = {}
        for name in HOT:
            told = self.told[name] = tell(self.texts[name].decode(), {each: known[each] for each in needs(name, self.texts[name])})
            known[name] = told.classes

    def missing(self) -> list[Job]:
        """The hot modules that are not compiled."""
        return [Job(name, path) for name, path in self.paths.items() if not path.is_file()]

    def lay_out(self, directory: Path) -> None:
        """Write what Cython reads."""
        for name, told in self.told.items():
            path = directory / source_path(name).relative_to(PACKAGE.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            for package in (path.parent, directory / PACKAGE.name):
                (package / "__init__.py").touch()
            path.write_text(told.source)
            path.with_suffix(".pxd").write_text(told.declarations)

    def sweep(self) -> None:
        """Delete what was compiled from texts that are no more."""
        for path in folder().glob("respkv.*"):
            if path not in self.paths.values():
                path.unlink(missing_ok=True)


def build(sources: Sources, *, linker: list[str], on_done: Callable[[Job, str], None]) -> None:
    """Compile what is missing, as many modules at a time as there are cores. Raises BuildError if nothing can be written.

    `on_done` gets each module in order, and why it could not be compiled, or "".
    """
    jobs = sources.missing()
    try:
        folder().mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder()) as name, ThreadPoolExecutor(os.cpu_count()) as threads:
            scratch = Path(name)
            sources.lay_out(scratch)
            complaints = _translate(jobs, scratch)
            for job, problem in zip(jobs, threads.map(lambda job: _link(job, scratch, linker), jobs), strict=True):
                on_done(job, problem and (complaints or problem))
    except OSError as error:
        msg = f"cannot write to {folder()}: {error.strerror}"
        raise BuildError(msg) from error


def find_linker() -> list[str]:
    """The command that makes a module of C, as Python itself was built; or, where that is not at hand, the system's compiler.

    Raises BuildError if that, or anything else, is missing without which nothing can be compiled.
    """
    if importlib.util.find_spec("Cython") is None:
        msg = "Cython is not installed (pip install 'respkv[compile]')"
        raise BuildError(msg)
    words = shlex.split(sysconfig.get_config_var("LDSHARED") or "")
    if not words or shutil.which(words[0]) is None:
        words = ["cc", "-shared"]
    if shutil.which(words[0]) is None:
        msg = "there is no C compiler (on Debian: apt install gcc)"
        raise BuildError(msg)
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        msg = "Python's C headers are not installed (on Debian: apt install python3-dev)"
        raise BuildError(msg)
    return [*words, *shlex.split(sysconfig.get_config_var("CCSHARED") or ""), *C_FLAGS, f"-I{include}"]


def _translate(jobs: list[Job], scratch: Path) -> str:
    """Make C of modules, all in one process: starting Cython takes longer than most of them. What it had to complain about."""
    directives = [word for option, value in DIRECTIVES.items() for word in ("-X", f"{option}={value}")]
    # Tracebacks show the name that Cython is given: it is the source's, from the package on, and found wherever that lies.
    names = [str(source_path(job.name).relative_to(PACKAGE.parent)) for job in jobs]
    return _run([sys.executable, "-m", "cython", *directives, *names], scratch)


def _link(job: Job, scratch: Path, linker: list[str]) -> str:
    """Make a module of its C; why that could not be, or ""."""
    c_file = (scratch / source_path(job.name).relative_to(PACKAGE.parent)).with_suffix(".c")
    module = scratch / job.target.name
    problem = _run([*linker, "-o", str(module), str(c_file)], scratch)
    if not problem:
        module.replace(job.target)
    return problem


def _run(command: list[str], directory: Path) -> str:
    """Run a command; the end of what it said if it failed."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return ""
    lines = (done.stderr + done.stdout).strip().splitlines()
    return "\n".join(lines[-OUTPUT_LINES_SHOWN:]) or f"{command[0]} failed"
