"""Small files that are whole or absent, the lock of a directory, and what the disk has left.

Rule: a rename is durable only when the directory is synced, and its content only when the
file was synced before it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xxhash import xxh3_64_hexdigest

from respkv.errors import ConfigurationError, DamageError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_HEADER_WORD = b"respkv-file-1"
_HEADER_BYTES_MAX = 80

# macOS has no fdatasync.
sync_data = getattr(os, "fdatasync", os.fsync)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot sync the directory {directory}: {error}") from error


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, however many calls it takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file so that a crash leaves the old content or the new one, and later damage shows.

    The header is one readable line, so that an operator can look at the file.
    """
    header = b"%b %d %b\n" % (_HEADER_WORD, len(content), xxh3_64_hexdigest(content).encode())
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, header + content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    sync_directory(path.parent)


def read_checked(path: Path) -> bytes | None:
    """Read what `write_atomic` wrote; None where there is no such file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamageError(f"cannot read {path}: {error}") from error
    header, newline, body = content.partition(b"\n")
    words = header[:_HEADER_BYTES_MAX].split(b" ")
    if not newline or words != [_HEADER_WORD, b"%d" % len(body), xxh3_64_hexdigest(body).encode()]:
        raise DamageError(f"{path} fails its checksum")
    return body


def make_directory(directory: Path) -> None:
    """Make a directory, and its name durable, unless it is there."""
    try:
        if directory.is_dir():
            return
        directory.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot make the directory {directory}: {error}") from error
    sync_directory(directory.parent)


class DirectoryLock:
    """Held as long as a process works in a directory; the kernel releases it when the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, or raise because another process has it."""
        self._path = directory / "lock"
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {self._path}: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigurationError(f"{directory} is in use by another process") from error

    def close(self) -> None:
        """Let go of the directory."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """What the file system says of itself."""

    free_bytes: int
    """For a process without privileges."""
    total_bytes: int


def disk_space(directory: Path) -> DiskSpace:
    """Ask the file system that holds a directory."""
    try:
        status = os.statvfs(directory)
    except OSError as error:
        raise StorageError(f"cannot ask for the free space of {directory}: {error}") from error
    return DiskSpace(free_bytes=status.f_bavail * status.f_frsize, total_bytes=status.f_blocks * status.f_frsize)
