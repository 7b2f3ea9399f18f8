"""The file that a node was started with, for CONFIG REWRITE: read and replaced as a whole, at once, as Redis does it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TEMPORARY_SUFFIX = ".rewrite"


class ConfigFile:
    """One file. Whoever edited it since the start is heard: it is read again each time."""

    def __init__(self, path: str) -> None:
        """`path` is absolute, so that a later change of directory does no harm."""
        self.path = Path(path)

    def read(self) -> str:
        """Its text. Raises OSError."""
        return self.path.read_bytes().decode("utf-8", "surrogateescape")

    def replace(self, text: str) -> None:
        """Put another text in its place, durably and with the same permissions. Raises OSError, and the old one stands then."""
        temporary = self.path.with_name(self.path.name + TEMPORARY_SUFFIX)
        try:
            with temporary.open("wb") as file:
                shutil.copymode(self.path, temporary)
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
