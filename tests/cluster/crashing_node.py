"""A node that ends itself at a named point of its work on the disk: `POINT PASSES` and then what `respkv server` takes.

The points are those that the disk's shell tells its `crash_hook`; PASSES is how often the point is passed before.
"""

from __future__ import annotations

import functools
import os
import sys

from respkv.server import start
from respkv.server.disk import Disk
from respkv.server.main import run_server

EXIT_AT_POINT = 86


def main() -> int:
    point, passes, *arguments = sys.argv[1:]
    left = [int(passes)]

    def crash(passed: str) -> None:
        if passed == point:
            left[0] -= 1
            if left[0] < 0:
                os._exit(EXIT_AT_POINT)

    start.Disk = functools.partial(Disk, crash_hook=crash)  # type: ignore[attr-defined, assignment]
    return run_server(arguments)


if __name__ == "__main__":
    sys.exit(main())
