"""The durable mark: up to where the commit log is on the disk.

Two slots in blocks of their own are overwritten in turn, each by one synchronous write, instead of
replacing a file: measured 124 us against 473 us for temp, fsync, rename and fsync of the
directory, and as safe: a mark lies within a sector, which disks write whole, and if one did not, the other
slot would still hold the mark before, and the damage would be seen. The file itself is made the long way, once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from respkv.errors import DamageError, StorageError
from respkv.storage.files import TEMPORARY_SUFFIX, sync_directory, write_all
from respkv.storage.log_format import MARK_BYTES, Mark

if TYPE_CHECKING:
    from pathlib import Path

MARK_NAME: Final = "mark"
# Larger than what any disk writes as a unit, so that a torn slot never takes the other along.
_SLOT_BYTES: Final = 4096
# One call that returns when the bytes are on the disk; the file never grows, so no metadata follows.
_WRITE_THROUGH: Final = getattr(os, "O_DSYNC", os.O_SYNC)


@dataclass(frozen=True, slots=True)
class MarkReading:
    """What the file says."""

    mark: Mark
    lost_slots_count: int
    """1 if a slot is unreadable, which may have held a newer mark."""


def read_mark(directory: Path) -> MarkReading | None:
    """Read the newest mark; None where there never was one, DamageError where there was."""
    try:
        content = (directory / MARK_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamageError(f"cannot read the durable mark: {error}") from error
    marks: list[Mark] = []
    for slot in range(2):
        try:
            marks.append(Mark.unpack(content[slot * _SLOT_BYTES :][:MARK_BYTES]))
        except DamageError:
            continue
    if not marks:
        raise DamageError("both slots of the durable mark are damaged")
    return MarkReading(mark=max(marks, key=lambda mark: mark.sequence), lost_slots_count=2 - len(marks))


class MarkFile:
    """Writes marks. One thread at a time."""

    def __init__(self, directory: Path, first: Mark) -> None:
        """Start the file anew with a mark in both slots."""
        path = directory / MARK_NAME
        temporary = path.with_name(MARK_NAME + TEMPORARY_SUFFIX)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, first.pack().ljust(_SLOT_BYTES, b"\0") * 2)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | _WRITE_THROUGH)
        except OSError as error:
            raise StorageError(f"cannot make the durable mark {path}: {error}") from error
        sync_directory(directory)

    def write(self, mark: Mark) -> None:
        """Return when the mark is on the disk."""
        try:
            written = os.pwrite(self._descriptor, mark.pack(), (mark.sequence & 1) * _SLOT_BYTES)
        except OSError as error:
            raise StorageError(f"cannot write the durable mark: {error}") from error
        if written != MARK_BYTES:
            raise StorageError(f"wrote {written} of {MARK_BYTES} bytes of the durable mark")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
