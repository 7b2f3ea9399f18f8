"""Processes that die at every point between log append, freeze, flush and the deletion of segments."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from respkv.storage.directory import DataDirectory
from tests.server.disk_child import EXIT_AT_POINT, read_back

ROOT = Path(__file__).parents[2]
POINTS = ["after_append", "after_rotate", "after_batch", "after_flush", "before_drop", "after_drop", "after_sync"]


def child(path: Path, *, point: str = "", passes: int = 0, seed: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "tests.server.disk_child", str(path), point, str(passes), str(seed)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


def acknowledged_in(output: bytes) -> dict[bytes, bytes]:
    """The newest record of each key that the child said is in the log; a line cut by the kill does not count."""
    lines = output[: output.rfind(b"\n") + 1].splitlines()
    return {key: bytes.fromhex(record.decode()) for key, record in (line.split() for line in lines)}


def check(path: Path, acknowledged: dict[bytes, bytes]) -> None:
    directory = DataDirectory(path)
    records, damages = read_back(directory)
    directory.close()
    assert damages == []
    assert {key for key, record in acknowledged.items() if records.get(key, b"") < record} == set()


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_by_dying_at(tmp_path: Path, point: str) -> None:
    """One directory, several lives: each goes on with what the one before left."""
    acknowledged: dict[bytes, bytes] = {}
    for seed, passes in enumerate((0, 1, 3), start=1):
        process = child(tmp_path, point=point, passes=passes, seed=seed)
        output, errors = process.communicate()
        assert process.returncode == EXIT_AT_POINT, errors.decode()
        acknowledged |= acknowledged_in(output)
        check(tmp_path, acknowledged)
    assert point == "after_append" or len(acknowledged) > 50


def test_nothing_is_lost_by_a_kill_at_any_time(tmp_path: Path) -> None:
    rng = random.Random(5)
    acknowledged: dict[bytes, bytes] = {}
    for seed in range(1, 8):
        process = child(tmp_path, seed=seed)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randrange(50, 3_000))]
        process.kill()
        acknowledged |= acknowledged_in(b"".join(lines) + process.stdout.read())
        process.communicate()
        check(tmp_path, acknowledged)
    assert len(acknowledged) > 300
