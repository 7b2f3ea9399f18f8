"""The commit log: what is appended is read back, positions, segments, a full disk."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import StorageError
from respkv.storage.log_format import RECORD_OVERHEAD_BYTES, appended_bytes, segment_path
from respkv.storage.log_recovery import LogRecovery
from tests.storage.logs import OWNER, Records, fill, last_segment, open_log, recover, some_records


def test_a_new_log_is_empty_and_remembers(tmp_path: Path) -> None:
    log, records, report = open_log(tmp_path)
    assert records == []
    assert not report.is_damaged
    written = [(1, b"one"), (2, b""), (5, b"x" * 70_000)]
    assert log.append_all(written) == appended_bytes(written) == log.position
    assert log.synced_position == 0
    assert log.sync() == log.position == log.synced_position
    log.close()
    recovery, records = recover(tmp_path)
    assert records == written
    assert recovery.position == appended_bytes(written)
    assert recovery.report.torn_tail is None
    assert not recovery.report.is_damaged


def test_more_records_in_a_turn_than_a_system_call_takes(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path)
    written = some_records(random.Random(1), 5_000, body_len_max=9)
    assert log.append_all(written) == appended_bytes(written)
    log.close()
    assert recover(tmp_path)[1] == written


def test_positions_are_those_that_append_gave(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path, segment_bytes_max=500)
    written = some_records(random.Random(2), 40)
    positions = [log.append_all([record]) for record in written]
    log.close()
    recovery = LogRecovery(tmp_path, owner=OWNER)
    assert [position for _, _, position in recovery.records()] == positions
    assert len(list(tmp_path.glob("log-*.seg"))) > 5


def test_a_start_begins_a_new_segment(tmp_path: Path) -> None:
    fill(tmp_path, synced=[(1, b"first")], unsynced=[])
    before = last_segment(tmp_path).read_bytes()
    log, _, _ = open_log(tmp_path)
    log.append_all([(1, b"second")])
    log.close()
    assert segment_path(tmp_path, 1).read_bytes() == before
    assert recover(tmp_path)[1] == [(1, b"first"), (1, b"second")]


def test_recovery_itself_makes_what_it_yields_durable(tmp_path: Path) -> None:
    fill(tmp_path, synced=[(1, b"a")], unsynced=[(1, b"b")])
    log, records, report = open_log(tmp_path)
    assert len(records) == 2
    assert report.mark_position == RECORD_OVERHEAD_BYTES + 1
    assert log.synced_position == log.position
    log.close()
    assert recover(tmp_path)[0].report.mark_position == 2 * (RECORD_OVERHEAD_BYTES + 1)


def test_dropped_segments_are_gone_and_not_missed(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path)
    log.append_all([(1, b"old")])
    segment = log.rotate()
    log.append_all([(1, b"new")])
    assert log.rotate() == segment + 1
    assert log.rotate() == segment + 1, "an empty segment is as good as a new one"
    log.drop_below(segment)
    assert [path.name for path in sorted(tmp_path.glob("log-*.seg"))] == [
        segment_path(tmp_path, number).name for number in (segment, segment + 1)
    ]
    log.append_all([(1, b"newer")])
    statistics = log.statistics()
    assert statistics.segments_count == 2
    assert statistics.bytes_on_disk == sum(path.stat().st_size for path in tmp_path.glob("log-*.seg"))
    log.close()
    recovery, records = recover(tmp_path)
    assert records == [(1, b"new"), (1, b"newer")]
    assert not recovery.report.is_damaged


def test_a_crash_between_the_mark_and_the_deletion_leaves_leftovers(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path)
    log.append_all([(1, b"old")])
    kept = tmp_path / "kept"
    shutil.copy(segment_path(tmp_path, 1), kept)
    log.rotate()
    log.append_all([(1, b"new")])
    log.drop_below(2)
    log.close()
    kept.rename(segment_path(tmp_path, 1))
    log, records, report = open_log(tmp_path)
    assert records == [(1, b"new")]
    assert not report.is_damaged
    assert report.notes == ["1 segments of the log are left over from a deletion"]
    assert not segment_path(tmp_path, 1).exists()
    log.close()


# ------------------------------------------------------------------ any history

TURNS = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=4),
        st.sampled_from(["sync", "rotate", "restart", "drop"]),
    ),
    max_size=25,
)


@given(turns=TURNS, segment_bytes_max=st.integers(100, 2_000))
def test_any_history_is_read_back(tmp_path_factory: pytest.TempPathFactory, turns: list[str | Records], segment_bytes_max: int) -> None:
    directory = tmp_path_factory.mktemp("log")
    log, _, _ = open_log(directory, segment_bytes_max=segment_bytes_max)
    segments: dict[int, Records] = {}
    for turn in turns:
        match turn:
            case "sync":
                assert log.sync() == log.position
            case "rotate":
                log.rotate()
            case "drop":
                log.drop_below(log.segment)
                segments = {log.segment: segments.get(log.segment, [])}
            case "restart":
                log.close()
                log, records, report = open_log(directory, segment_bytes_max=segment_bytes_max)
                assert not report.is_damaged
                assert report.torn_tail is None
                assert records == [record for kept in segments.values() for record in kept]
            case _:
                assert isinstance(turn, list)
                log.append_all(turn)
                segments.setdefault(log.segment, []).extend(turn)
    log.close()
    shutil.rmtree(directory)


# ------------------------------------------------------------------ failing disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where the machine lets us mount one."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("mounting a small tmpfs needs root")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs: {made.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run([umount, "-l", str(tmp_path)], check=True)


def test_a_full_disk_breaks_the_log_for_good_and_keeps_what_was_appended(small_disk: Path) -> None:
    log, _, _ = open_log(small_disk)
    appended: Records = []
    record = (1, b"x" * 3_000)

    def append_until_full() -> None:
        while True:
            log.append_all([record])
            appended.append(record)

    with pytest.raises(StorageError, match="No space left"):
        append_until_full()
    assert len(appended) > 300
    with pytest.raises(StorageError, match="No space left"):
        log.append_all([(1, b"")])
    with pytest.raises(StorageError, match="No space left"):
        log.sync()
    with pytest.raises(StorageError, match="No space left"):
        log.rotate()
    log.close()
    recovery, records = recover(small_disk)
    assert records == appended
    assert not recovery.report.is_damaged
    assert recovery.report.torn_tail is not None


def test_a_failed_sync_is_never_tried_again(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path)
    log.append_all([(1, b"a")])
    # A descriptor that takes bytes and cannot be synced stands in for a dying disk.
    reader, writer = os.pipe()
    os.dup2(writer, log._segment.descriptor)
    with pytest.raises(StorageError, match="cannot sync"):
        log.sync()
    with pytest.raises(StorageError, match="cannot sync"):
        log.append_all([(1, b"b")])
    with pytest.raises(StorageError, match="cannot sync"):
        log.sync()
    assert log.synced_position == 0
    os.close(reader)
    os.close(writer)
    log.close()
