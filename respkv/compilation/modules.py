"""Which files are compiled, and where the compiled form of each lies.

Rule: a compiled module is named after the text that it was made from. Nothing is ever compared by date, so whoever edits a
file runs the new text at once, interpreted until it is compiled again, and never the old one.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent.parent

HOT: Final = (
    "respkv.metrics",
    "respkv.placement.slots",
    "respkv.versions.clock",
    "respkv.versions.records",
    "respkv.resp.pipeline",
    "respkv.resp.writer",
    "respkv.resp.reader",
    "respkv.transport.border",
    "respkv.transport.bounds",
    "respkv.transport.frames",
    "respkv.transport.packets",
    "respkv.transport.turn",
    "respkv.storage.log_format",
    "respkv.storage.log",
    "respkv.storage.freeze",
    "respkv.storage.hash_trees",
    "respkv.storage.store",
    "respkv.storage.parking",
    "respkv.repair.confirmation",
    "respkv.coordinator.recent_writes",
    "respkv.coordinator.routes",
    "respkv.coordinator.batches",
    "respkv.coordinator.reads",
    "respkv.coordinator.writes",
    "respkv.coordinator.replica",
    "respkv.coordinator.coordinator",
    "respkv.commands.context",
    "respkv.server.turns",
    "respkv.server.session",
    "respkv.server.dispatch",
    "respkv.server.admission",
    "respkv.server.peers",
    "respkv.server.framing",
    "respkv.server.pressure",
    "respkv.server.channels",
    "respkv.server.node",
    "respkv.server.reactor",
)
"""Every module that a plain SET or GET passes through, in an order in which each relies only on the classes of those before it.
What runs once a second gains nothing and stays as it is."""

DIRECTIVES: Final = {"language_level": "3", "annotation_typing": "True", "auto_pickle": "False"}

C_FLAGS: Final = ("-O2", "-fwrapv", "-DNDEBUG", "-w")

_SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
_imports: Final = re.compile(rb"^ *from (respkv\.[a-z_.]+) import ", re.MULTILINE).findall


def folder() -> Path:
    """Where compiled modules lie: in the environment whose Python runs, so a checkout has its own."""
    return Path(sys.prefix) / "respkv-compiled"


def source_path(name: str) -> Path:
    """The file of a hot module."""
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")


def read_sources() -> dict[str, bytes]:
    """The texts of all hot modules."""
    return {name: source_path(name).read_bytes() for name in HOT}


def needs(name: str, source: bytes) -> list[str]:
    """The hot modules on whose classes the compiled form of a module relies: those before it that it imports."""
    before = HOT[: HOT.index(name)]
    return [found for found in dict.fromkeys(word.decode() for word in _imports(source)) if found in before]


def compiled_paths(sources: Mapping[str, bytes]) -> dict[str, Path]:
    """Where the compiled form of each module of just this text, above modules of just theirs, lies if anybody has made it."""
    recipe = repr((sorted(DIRECTIVES.items()), C_FLAGS)).encode() + Path(__file__).with_name("natives.py").read_bytes()
    digests: dict[str, str] = {}
    for name in HOT:
        below = " ".join(digests[each] for each in needs(name, sources[name])).encode()
        digests[name] = hashlib.sha256(b"\0".join((recipe, name.encode(), below, sources[name]))).hexdigest()
    return {name: folder() / f"{name}.{digest[:32]}{_SUFFIX}" for name, digest in digests.items()}
