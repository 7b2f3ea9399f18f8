from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from respkv import __version__
from respkv.cli.app import app


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_help_names_every_command(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["--help"]).output
    for name in ("server", "up", "status", "key", "version"):
        assert name in shown


@pytest.mark.parametrize("name", ["server", "up", "status", "key"])
def test_help_of_a_command_tells_its_exit_codes(runner: CliRunner, name: str) -> None:
    done = runner.invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "Exit code 0" in " ".join(done.output.split())


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(runner: CliRunner, arguments: list[str]) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0
    assert done.output.startswith(f"respkv {__version__} ")


@pytest.mark.parametrize("arguments", [["status"], ["key", "k"]])
def test_nobody_there_is_exit_code_2(runner: CliRunner, arguments: list[str]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        done = runner.invoke(app, [*arguments, "-p", str(port)])
    assert done.exit_code == 2
    assert f"no answer from 127.0.0.1:{port}" in done.stderr
