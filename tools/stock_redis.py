"""See to the stock Redis programs that the tests hold respkv against."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("redis-cli", "redis-benchmark", "redis-server")
POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """The programs that are not on PATH."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


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
        print(f"{', '.join(absent)} missing: installing Debian's package redis", flush=True)
        apt_get("update")
        with services_kept_down():
            apt_get("install", "-y", "--no-install-recommends", "redis")
        absent = missing()
    if absent:
        print(f"{', '.join(absent)} missing: the tests that need them are skipped. Install Redis 7 (on Debian: apt-get install redis).")
