"""The commit log against cut, zeroed and scrambled tails, damage, and a full disk."""

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

from respkv.errors import ConfigurationError, StorageError
from respkv.storage.log import CommitLog
from respkv.storage.log_format import (
    RECORD_MAGIC_BYTES,
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    appended_bytes,
    segment_path,
)
from respkv.storage.log_recovery import LogRecovery, RecoveryReport

OWNER = bytes(range(20))
Records = list[tuple[int, bytes]]


def recover(directory: Path) -> tuple[LogRecovery, Records]:
    recovery = LogRecovery(directory, owner=OWNER)
    records = [(kind, body) for kind, body, _ in recovery.records()]
    return recovery, records


def open_log(directory: Path, *, segment_bytes_max: int = 1 << 20) -> tuple[CommitLog, Records, RecoveryReport]:
    recovery, records = recover(directory)
    return CommitLog(recovery, segment_bytes_max=segment_bytes_max), records, recovery.report


def some_records(rng: random.Random, count: int, *, body_len_max: int = 300) -> Records:
    return [(rng.randrange(1, 6), rng.randbytes(rng.randrange(body_len_max))) for _ in range(count)]


def fill(directory: Path, *, synced: Records, unsynced: Records, segment_bytes_max: int = 1 << 20) -> None:
    """A log as a power cut finds it: one part behind the mark."""
    log, _, _ = open_log(directory, segment_bytes_max=segment_bytes_max)
    for record in synced:
        log.append_all([record])
    log.sync()
    for record in unsynced:
        log.append_all([record])
    log.close()


def last_segment(directory: Path) -> Path:
    return max(directory.glob("log-*.seg"))


def flip(path: Path, offset: int, *, mask: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


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
    assert not segment_path(tmp_path, 1).exists()
    log.close()


# ------------------------------------------------------------------ torn tails


def tear(path: Path, way: str, offset: int, rng: random.Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if way == "cut":
            file.truncate(offset)
            return
        file.seek(offset)
        if way == "zero":
            file.write(bytes(size - offset))
        elif way == "scramble":
            file.write(rng.randbytes(size - offset))
        elif way == "hole":
            file.write(bytes(min(64, size - offset)))
        elif way == "longer":
            file.seek(0, os.SEEK_END)
            file.write(bytes(rng.randrange(1, 5000)))


@pytest.mark.parametrize("way", ["cut", "zero", "scramble", "hole", "longer"])
@pytest.mark.parametrize("seed", range(12))
def test_a_torn_tail_loses_nothing_that_was_synced(tmp_path: Path, way: str, seed: int) -> None:
    rng = random.Random(seed)
    synced, unsynced = some_records(rng, 30), some_records(rng, 30)
    fill(tmp_path, synced=synced, unsynced=unsynced)
    path = last_segment(tmp_path)
    durable = SEGMENT_HEADER_BYTES + appended_bytes(synced)
    tear(path, way, rng.randrange(durable, path.stat().st_size), rng)

    log, records, report = open_log(tmp_path)
    assert not report.is_damaged
    assert len(records) >= len(synced)
    assert records == (synced + unsynced)[: len(records)], "a prefix"
    log.append_all([(9, b"after")])
    log.close()
    recovery, again = recover(tmp_path)
    assert again == [*records, (9, b"after")]
    assert recovery.report.torn_tail is None, "it was cut"
    assert not recovery.report.is_damaged


@pytest.mark.parametrize("seed", range(25))
def test_a_power_cut_across_segments_keeps_what_was_synced_and_a_prefix(tmp_path: Path, seed: int) -> None:
    """Every file keeps what was synced of it and any part of the rest; files made later may be absent."""
    rng = random.Random(seed)
    log, _, _ = open_log(tmp_path, segment_bytes_max=2_000)
    written: Records = []
    synced_count = 0
    for _ in range(rng.randrange(1, 60)):
        turn = some_records(rng, rng.randrange(1, 4))
        log.append_all(turn)
        written += turn
        if rng.random() < 0.1:
            log.sync()
            synced_count = len(written)
        if rng.random() < 0.05:
            log.rotate()
    durable = log.synced_position
    sizes = {segment.path: (segment.first_position, segment.size_bytes) for segment in log._segments}
    log.close()
    for path, (first_position, size) in sizes.items():
        kept = SEGMENT_HEADER_BYTES + durable - first_position
        if kept >= size:
            continue
        if kept <= SEGMENT_HEADER_BYTES:
            if rng.random() < 0.3:
                path.unlink()
                continue
            kept = rng.randrange(0, SEGMENT_HEADER_BYTES + 1) if rng.random() < 0.3 else SEGMENT_HEADER_BYTES
        tear(path, rng.choice(["cut", "zero", "scramble"]), rng.randrange(kept, size), rng)

    log, records, report = open_log(tmp_path)
    assert not report.is_damaged, report
    assert records[:synced_count] == written[:synced_count]
    assert records == written[: len(records)]
    log.close()
    recovery, again = recover(tmp_path)
    assert again == records
    assert recovery.report.torn_tail is None


def test_a_torn_slot_of_the_mark_leaves_the_one_before(tmp_path: Path) -> None:
    log, _, _ = open_log(tmp_path)
    positions = []
    for number in range(4):
        log.append_all([(1, b"%d" % number)])
        positions.append(log.sync())
    log.close()
    newest = max(range(2), key=lambda slot: (tmp_path / "mark").read_bytes()[slot * 4096 + 12 :][:8])
    flip(tmp_path / "mark", newest * 4096 + 40)
    recovery, records = recover(tmp_path)
    assert len(records) == 4
    assert recovery.report.mark_position == positions[-2]
    assert recovery.report.notes
    assert not recovery.report.is_damaged


# ------------------------------------------------------------------ damage


def damaged_log(directory: Path) -> tuple[Records, list[Path]]:
    """A log of several synced segments, and one record behind the mark."""
    rng = random.Random(7)
    synced = some_records(rng, 24, body_len_max=60)
    fill(directory, synced=synced, unsynced=[(1, b"unsynced")], segment_bytes_max=300)
    return [*synced, (1, b"unsynced")], sorted(directory.glob("log-*.seg"))


def test_every_flipped_byte_below_the_mark_is_reported(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    written, paths = damaged_log(origin)
    assert len(paths) > 3
    copy = tmp_path / "copy"
    for path in paths:
        for offset in range(path.stat().st_size):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(origin, copy)
            flip(copy / path.name, offset, mask=1 << (offset % 8))
            recovery, records = recover(copy)
            report = recovery.report
            behind_mark = path == paths[-1] and offset >= path.stat().st_size - RECORD_OVERHEAD_BYTES - len("unsynced")
            if behind_mark:
                assert not report.is_damaged
                assert report.torn_tail is not None
                assert records == written[:-1]
                continue
            assert report.is_damaged, (path.name, offset)
            # One record at most is lost by one byte, and all others are still there, in order.
            assert len(records) >= len(written) - 1
            assert is_subsequence(records, written)
            lost = sum((damage.end_position or 0) - damage.start_position for damage in report.damages)
            assert lost == appended_bytes(written) - appended_bytes(records)


def is_subsequence(part: Records, whole: Records) -> bool:
    rest = iter(whole)
    return all(any(record == other for other in rest) for record in part)


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_missing_segment_is_reported(tmp_path: Path, index: int) -> None:
    written, paths = damaged_log(tmp_path)
    paths[index].unlink()
    recovery, records = recover(tmp_path)
    assert recovery.report.is_damaged
    assert is_subsequence(records, written)
    assert 0 < len(records) < len(written)


def test_all_segments_missing_is_reported_until_the_log_moved_on(tmp_path: Path) -> None:
    _, paths = damaged_log(tmp_path)
    for path in paths:
        path.unlink()
    for _ in range(2):
        log, records, report = open_log(tmp_path)
        assert report.is_damaged
        assert records == []
        assert log.position > 0, "positions are never used twice"
        log.append_all([])
        log.close()
    log, _, _ = open_log(tmp_path)
    log.drop_below(log.segment)
    log.close()
    assert not recover(tmp_path)[0].report.is_damaged


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_shortened_segment_is_reported(tmp_path: Path, index: int) -> None:
    written, paths = damaged_log(tmp_path)
    for size in (paths[index].stat().st_size * 2 // 3, SEGMENT_HEADER_BYTES, 10, 0):
        os.truncate(paths[index], size)
        recovery, records = recover(tmp_path)
        assert recovery.report.is_damaged
        assert is_subsequence(records, written)


def test_a_segment_in_the_place_of_another_is_reported(tmp_path: Path) -> None:
    written, paths = damaged_log(tmp_path)
    shutil.copy(paths[0], paths[2])
    recovery, records = recover(tmp_path)
    assert recovery.report.is_damaged
    assert is_subsequence(records, written), "its records are not taken twice"


def test_a_segment_of_another_log_is_reported(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, paths = damaged_log(tmp_path / "ours")
    damaged_log(tmp_path / "theirs")
    shutil.copy(tmp_path / "theirs" / paths[1].name, paths[1])
    recovery, records = recover(tmp_path / "ours")
    assert recovery.report.is_damaged
    assert is_subsequence(records, ours)
    assert len(records) < len(ours), "the same bytes of another log do not pass for ours"


@pytest.mark.parametrize("way", ["missing", "damaged", "short"])
def test_a_lost_mark_is_reported_and_nothing_readable_is_dropped(tmp_path: Path, way: str) -> None:
    written, _ = damaged_log(tmp_path)
    mark = tmp_path / "mark"
    if way == "missing":
        mark.unlink()
    elif way == "short":
        os.truncate(mark, 30)
    else:
        flip(mark, 30)
        flip(mark, 4096 + 30)
    log, records, report = open_log(tmp_path)
    assert report.is_damaged
    assert report.damages[0].end_position is None
    assert records == written
    log.append_all([(1, b"on")])
    log.close()
    assert recover(tmp_path)[1] == [*written, (1, b"on")]


def test_a_sector_that_turned_to_zeros_costs_its_records_alone(tmp_path: Path) -> None:
    written = some_records(random.Random(3), 200, body_len_max=100)
    fill(tmp_path, synced=written, unsynced=[])
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(4096)
        file.write(bytes(512))
    recovery, records = recover(tmp_path)
    assert recovery.report.is_damaged
    assert is_subsequence(records, written)
    assert len(written) - 40 < len(records) < len(written)


def test_a_value_that_imitates_records_cannot_be_taken_for_one(tmp_path: Path) -> None:
    """A client that knows the format writes a whole segment into a value; its record is then damaged."""
    (tmp_path / "other").mkdir()
    fill(tmp_path / "other", synced=[(1, b"forged")] * 50, unsynced=[])
    forged = last_segment(tmp_path / "other").read_bytes()
    written = [(1, b"a"), (1, b"x" + RECORD_MAGIC_BYTES * 3000 + forged), (1, b"b")]
    log_directory = tmp_path / "log"
    log_directory.mkdir()
    fill(log_directory, synced=written, unsynced=[])
    flip(last_segment(log_directory), SEGMENT_HEADER_BYTES + 2 * RECORD_OVERHEAD_BYTES + 1)
    recovery, records = recover(log_directory)
    assert records == [(1, b"a"), (1, b"b")]
    assert recovery.report.is_damaged


def test_a_log_of_another_node_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, synced=[(1, b"a")], unsynced=[])
    with pytest.raises(ConfigurationError, match="holds the log of node"):
        LogRecovery(tmp_path, owner=bytes(20))


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
