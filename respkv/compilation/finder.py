"""Let `import` find the compiled form of a hot module, if there is one of exactly its text.

Only `respkv server` installs this, before it imports the node. Tests in one process and the simulator run interpreted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

from respkv.compilation.modules import HOT, compiled_paths, needs, read_sources

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

SWITCH = "RESPKV_COMPILED"
"""The environment variable that switches it off, with the value `no`: to profile, to debug, or to doubt."""


class CompiledFinder(MetaPathFinder):
    """Finds compiled hot modules; has nothing to say about all others."""

    def __init__(self) -> None:
        """Look what there is, once: whoever edits a file while the process starts gets what was there at this moment."""
        self._paths: dict[str, Path] = {}
        sources = read_sources()
        for name, path in compiled_paths(sources).items():
            if path.is_file() and all(needed in self._paths for needed in needs(name, sources[name])):
                self._paths[name] = path

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What to load for a module, or None: then the source is interpreted."""
        compiled = self._paths.get(fullname)
        if compiled is None:
            return None
        return spec_from_file_location(fullname, compiled, loader=ExtensionFileLoader(fullname, str(compiled)))


def install() -> None:
    """From now on hot modules are loaded compiled where that can be, unless the user has switched it off."""
    if os.environ.get(SWITCH) != "no":
        # Where the sources are not files there is nothing to compare with.
        with contextlib.suppress(OSError):
            sys.meta_path.insert(0, CompiledFinder())


def describe() -> str:
    """How the hot modules of this process run: "compiled", "interpreted", or how many of them are compiled."""
    loaded = [sys.modules[name] for name in HOT if name in sys.modules]
    compiled = sum(isinstance(module.__loader__, ExtensionFileLoader) for module in loaded)
    if not compiled:
        return "interpreted"
    return "compiled" if compiled == len(HOT) else f"compiled in part ({compiled} of {len(HOT)} hot modules)"
