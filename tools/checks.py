"""Run every check of the project, one after the other; `tools/test` is its launcher.

A failed step does not stop the next ones: one run tells all there is to tell.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tools.programs import provide

BIN = Path(sys.executable).parent
STATIC_STEPS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "."],
    "types": ["mypy"],
    "import contracts": ["lint-imports"],
}
EXIT_INTERRUPTED = 130


def run_static(name: str, arguments: list[str]) -> bool:
    """Run one step; its output is worth reading only if it failed."""
    print(f"{name:<18}", end="", flush=True)
    started = time.monotonic()
    done = subprocess.run([BIN / arguments[0], *arguments[1:]], capture_output=True, text=True, check=False)
    passed = done.returncode == 0
    print(f"{'ok' if passed else 'FAILED'}  {time.monotonic() - started:.1f} s", flush=True)
    if not passed:
        print(done.stdout + done.stderr, flush=True)
    return passed


def run_tests(arguments: list[str]) -> int:
    """Run pytest and hand back its exit code."""
    print("tests", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    print(f"{'tests':<18}{'ok' if code == 0 else f'FAILED (exit code {code})'}  {time.monotonic() - started:.1f} s")
    return code


def main(arguments: list[str]) -> int:
    """Run all steps. The exit code is pytest's, or 1 if only something before it failed."""
    failed = [name for name, step in STATIC_STEPS.items() if not run_static(name, step)]
    provide()
    code = run_tests(arguments)
    if failed:
        print(f"failed before the tests: {', '.join(failed)}")
    return code or int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
