"""Small files, the lock of a directory, free space."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from respkv.errors import ConfigurationError, DamageError, StorageError
from respkv.storage.files import DirectoryLock, disk_space, make_directory, read_checked, write_atomic


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    assert read_checked(path) is None
    for content in (b"", b"one\ntwo", b"\0" * 100_000):
        write_atomic(path, content)
        assert read_checked(path) == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["ring"]


def test_the_first_line_is_for_people(tmp_path: Path) -> None:
    write_atomic(tmp_path / "node-id", b"abc")
    assert (tmp_path / "node-id").read_bytes().startswith(b"respkv-file-1 3 ")


def test_every_flipped_or_missing_byte_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    write_atomic(path, b"content of a file")
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(DamageError):
            read_checked(path)
        path.write_bytes(whole[:offset])
        with pytest.raises(DamageError):
            read_checked(path)


def test_a_crash_before_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    write_atomic(path, b"old")
    (tmp_path / "ring.tmp").write_bytes(b"half of the n")
    assert read_checked(path) == b"old"
    write_atomic(path, b"new")
    assert read_checked(path) == b"new"
    assert not (tmp_path / "ring.tmp").exists()


def test_a_failed_write_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent/ring"):
        write_atomic(tmp_path / "absent" / "ring", b"")


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(ConfigurationError, match="in use by another process"):
        DirectoryLock(tmp_path)
    lock.close()
    lock.close()
    DirectoryLock(tmp_path).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = """
import sys, pathlib
from respkv.storage.files import DirectoryLock
lock = DirectoryLock(pathlib.Path(sys.argv[1]))
print(1, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(ConfigurationError):
            DirectoryLock(tmp_path)
        process.kill()
    DirectoryLock(tmp_path).close()


def test_directories_are_made_once(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        make_directory(tmp_path / "file" / "below")


def test_the_disk_says_what_is_free(tmp_path: Path) -> None:
    space = disk_space(tmp_path)
    assert 0 < space.free_bytes <= space.total_bytes
    with pytest.raises(StorageError):
        disk_space(tmp_path / "absent")
