from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from respkv.cli.entry import wants_server

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("arguments", [["server"], ["server", "my.conf"], ["server", "--port", "7001"], ["server", "-"]])
def test_a_node_is_told_apart(arguments: list[str]) -> None:
    assert wants_server(arguments)


@pytest.mark.parametrize("arguments", [[], ["up"], ["server", "--help"], ["--version"]])
def test_all_else_is_not(arguments: list[str]) -> None:
    assert not wants_server(arguments)


def test_a_node_starts_without_the_command_line_libraries() -> None:
    program = "import sys, respkv.cli.entry; sys.exit(bool({'typer', 'rich', 'redis', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_it_does_not_run_without_its_assertions() -> None:
    done = subprocess.run([sys.executable, "-O", "-m", "respkv", "version"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "python -O" in done.stderr
