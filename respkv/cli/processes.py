"""One process for each node. It never outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_PATIENCE_S = 15.0
POLL_INTERVAL_S = 0.05
# From <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


def start(command: Sequence[str], *, log_path: Path) -> subprocess.Popen[bytes]:
    """Start a node in a process group of its own: Ctrl-C in the terminal reaches the supervisor alone.

    Call it from the main thread: Linux counts the end of the starting *thread* as the parent's death.
    """
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            # Safe here: this process has no other thread that could hold a lock over the fork.
            preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509
        )


def dying_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before it becomes a node, so that a supervisor that is killed leaves nobody behind.

    SIGKILL, as a stopped or hung node would keep its port after anything gentler; nothing acknowledged
    depends on a clean end.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It died before the line above.
            os._exit(1)

    return arm


def stop(processes: Sequence[subprocess.Popen[bytes]], *, is_hurried: Callable[[], bool]) -> int:
    """Ask each process to end, wait, and kill those that do not listen; returns how many were killed."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
        # A stopped process would only hear of it once it goes on.
        process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + STOP_PATIENCE_S
    while any(process.poll() is None for process in running) and time.monotonic() < deadline and not is_hurried():
        time.sleep(POLL_INTERVAL_S)
    stubborn = [process for process in running if process.poll() is None]
    for process in stubborn:
        process.kill()
        process.wait()
    return len(stubborn)


def ending_of(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
