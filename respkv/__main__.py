"""`python -m respkv`."""

from __future__ import annotations

import sys

from respkv.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
