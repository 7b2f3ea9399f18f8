"""Make or update the checkout's private `.venv`. Run by environment.sh, with any Python from 3.11 on.

Rule 1: the stamp is written last, so an interrupted run is simply done again.
Rule 2: one process works at a time; a second one waits, and then finds nothing to do.
Rule 3: without changed requirements nothing is fetched, so that a checkout works offline; changed sources are compiled.
"""

from __future__ import annotations

import fcntl
import json
import platform
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def say(text: str) -> None:
    """Tell the user what takes so long, without touching stdout: a program may be reading that."""
    print(f"respkv: {text}", file=sys.stderr, flush=True)


def stamp_path(kind: str) -> Path:
    """Where it is written down what the environment was made from."""
    return VENV / f"respkv-{kind}.stamp"


def read_stamp(kind: str) -> tuple[str, str]:
    """The mark of the launcher (of the requirements and the sources) and the requirements, as last written; blank if never."""
    try:
        mark, requirements = stamp_path(kind).read_text().splitlines()
    except (OSError, ValueError):
        return "", ""
    return mark, requirements


def requirements_of(project: dict[str, Any], kind: str) -> list[str]:
    """What to install besides respkv itself."""
    return list(project["dependency-groups"]["dev"]) if kind == "dev" else []


def fingerprint_of(project: dict[str, Any], kind: str) -> str:
    """Everything in pyproject.toml that an installed environment depends on, and where it lies."""
    about = project["project"]
    parts = [
        about["requires-python"],
        about["dependencies"],
        about["optional-dependencies"],
        about["scripts"],
        project["build-system"],
        requirements_of(project, kind),
    ]
    return json.dumps([str(ROOT), parts])


def is_usable() -> bool:
    """Whether the environment's Python runs, is new enough and can install."""
    probe = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([PYTHON, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install(requirements: list[str]) -> None:
    """Run pip, and show its output only if it failed, without its advice."""
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    done = subprocess.run([*pip, "--editable", f"{ROOT}[compile]", *requirements], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        print("\n".join(line for line in lines if not line.startswith("WARNING")), file=sys.stderr)
        say("pip could not install what is needed (its words are above); run the command again to go on from here.")
        raise SystemExit(1)


def compile_hot_files() -> None:
    """Let respkv compile itself. It says what it does, and where it cannot, it works all the same."""
    subprocess.run([PYTHON, "-P", "-m", "respkv", "compile"], stdout=sys.stderr, check=False)


def update(kind: str, mark: str) -> None:
    """Bring the environment up to date, holding the lock."""
    if read_stamp(kind)[0] == mark and PYTHON.exists():
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    fingerprint = fingerprint_of(project, kind)
    usable = is_usable()
    if not usable or read_stamp(kind)[1] != fingerprint:
        started = time.monotonic()
        if not usable:
            say(f"making a private environment in .venv with Python {platform.python_version()}")
            venv.create(VENV, clear=True, with_pip=True)
        extra = " and the developers' tools" if kind == "dev" else ""
        why = "pyproject.toml has changed" if usable and read_stamp(kind)[1] else "the first start needs them"
        say(f"installing the libraries{extra} into .venv: {why}")
        install(requirements_of(project, kind))
        say(f".venv is ready after {time.monotonic() - started:.0f} s")
    compile_hot_files()
    for each in ("runtime", kind):
        stamp_path(each).write_text(f"{mark}\n{fingerprint_of(project, each)}\n")


def main() -> None:
    """Take the lock (on this very file: nothing is left behind) and update."""
    kind, mark = sys.argv[1:]
    with Path(__file__).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is preparing .venv")
            fcntl.flock(lock, fcntl.LOCK_EX)
        update(kind, mark)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
