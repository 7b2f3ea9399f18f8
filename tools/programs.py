"""See to the programs that the tests need beside respkv: stock Redis, to hold it against, and iptables, to cut a cluster in two."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {"redis-cli": "redis", "redis-benchmark": "redis", "redis-server": "redis", "iptables": "iptables"}
"""Each program, and Debian's package that has it."""
POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """The programs that are not on PATH."""
    return [program for program in PACKAGES if shutil.which(program) is None]


def can_install() -> bool:
    """Whether this is root on Debian or a descendant of it."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


@contextmanager
def services_kept_down() -> Iterator[None]:
    """Let no package start its service: the tests start their own servers, and port 6379 may be somebody's."""
    before = POLICY.read_bytes() if POLICY.exists() else None
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            POLICY.unlink()
        else:
            POLICY.write_bytes(before)


def apt_get(*arguments: str) -> None:
    """Run apt-get, quietly unless it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", "-q", *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")


def provide() -> None:
    """Install what is missing where that is allowed, else say what to install."""
    absent = missing()
    if not absent:
        return
    if can_install():
        packages = sorted({PACKAGES[program] for program in absent})
        print(f"{', '.join(absent)} missing: installing Debian's {' and '.join(packages)}", flush=True)
        apt_get("update")
        with services_kept_down():
            apt_get("install", "-y", "--no-install-recommends", *packages)
        absent = missing()
    if absent:
        packages = sorted({PACKAGES[program] for program in absent})
        print(f"{', '.join(absent)} missing: the tests that need them are skipped. On Debian: apt-get install {' '.join(packages)}.")
