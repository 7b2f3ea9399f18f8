from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from respkv.cli.processes import ending_of, start, stop

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
ROOT = Path(__file__).parent.parent.parent
GRACE_S = 10


def wait_for_end(pidfd: int) -> bool:
    try:
        return bool(select.select([pidfd], [], [], GRACE_S)[0])
    finally:
        os.close(pidfd)


def test_a_process_is_asked_to_end(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", "import signal; signal.pause()"], log_path=tmp_path / "log")
    assert stop([process], is_hurried=lambda: False) == 0
    assert process.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="SIGSTOP and SIGCONT are watched through Linux's /proc")
def test_a_stopped_process_ends_too(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", "import signal; signal.pause()"], log_path=tmp_path / "log")
    process.send_signal(signal.SIGSTOP)
    assert stop([process], is_hurried=lambda: False) == 0


def test_a_process_that_does_not_listen_is_killed_in_a_hurry(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    process = start([sys.executable, "-c", DEAF], log_path=log)
    assert select.select([reader], [], [], GRACE_S)[0]
    os.close(reader)
    assert stop([process], is_hurried=lambda: True) == 1
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from respkv.cli.processes import start\n"
        "process = start([sys.executable, '-c', 'import signal; signal.pause()'], log_path=Path(sys.argv[1]))\n"
        "print(process.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "log"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pidfd = os.pidfd_open(int(supervisor.stdout.readline()))
        supervisor.kill()
        assert wait_for_end(pidfd)


def test_endings_in_words() -> None:
    assert ending_of(1) == "ended with exit code 1"
    assert ending_of(-9) == "was ended by SIGKILL"
