from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from respkv.compilation import finder
from respkv.compilation.builder import Sources
from respkv.compilation.modules import HOT, PACKAGE

PROGRAM = """
from respkv.compilation import finder
finder.install()
import respkv.server.main, sys
print(finder.describe())
print(*[name for name in finder.HOT if sys.modules[name].__file__.endswith(".py")])
"""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    if Sources().missing():
        pytest.skip("the hot modules are not compiled here (`respkv compile`)")


def load_all(directory: Path, **environment: str) -> tuple[str, set[str]]:
    """How a process started in a checkout runs: in words, and the hot modules that it interprets."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=directory, env=os.environ | environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.split("\n")[:2]
    return first, set(second.split())


def test_a_process_of_the_checkout_runs_compiled() -> None:
    assert load_all(PACKAGE.parent) == ("compiled", set())


def test_the_environment_switches_it_off() -> None:
    assert load_all(PACKAGE.parent, RESPKV_COMPILED="no") == ("interpreted", set(HOT))


def test_edited_text_is_never_run_in_its_old_form(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "respkv")
    assert load_all(tmp_path) == ("compiled", set())
    edited = tmp_path / "respkv" / "server" / "session.py"
    edited.write_text(edited.read_text() + "\n# Another text.\n")
    described, interpreted = load_all(tmp_path)
    assert "respkv.server.session" in interpreted
    assert "respkv.storage.store" not in interpreted
    assert described == f"compiled in part ({len(HOT) - len(interpreted)} of {len(HOT)} hot modules)"


def test_this_process_is_interpreted() -> None:
    assert finder.describe() == "interpreted"
