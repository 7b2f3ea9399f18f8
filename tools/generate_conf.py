"""Write conf/respkv.conf from the table of directives; a test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from respkv.config.reference import reference_conf  # noqa: E402 - found only once the path is set

CONF = ROOT / "conf" / "respkv.conf"


def main() -> None:
    """Write the file."""
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(reference_conf())
    print(f"wrote {CONF.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
