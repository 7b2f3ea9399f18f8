"""The commit log against cut, zeroed and scrambled tails, and against damage of what was durable."""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from respkv.errors import ConfigurationError
from respkv.storage.log_format import RECORD_MAGIC_BYTES, RECORD_OVERHEAD_BYTES, SEGMENT_HEADER_BYTES, appended_bytes
from respkv.storage.log_recovery import LogRecovery
from tests.storage.logs import Records, fill, flip, is_subsequence, last_segment, open_log, recover, some_records

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


@pytest.mark.parametrize("slot", [0, 1])
def test_a_lost_slot_of_the_mark_is_damage_for_it_may_have_been_the_newer(tmp_path: Path, slot: int) -> None:
    log, _, _ = open_log(tmp_path)
    for number in range(4):
        log.append_all([(1, b"%d" % number)])
        log.sync()
    log.close()
    flip(tmp_path / "mark", slot * 4096 + 40)
    log, records, report = open_log(tmp_path)
    assert len(records) == 4
    assert report.is_damaged
    log.close()
    assert not recover(tmp_path)[0].report.is_damaged, "the mark is whole again"


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
                assert re.fullmatch(r"\d+ bytes behind position \d+, from segment \d+ on \(.+\)", str(report.torn_tail))
                assert records == written[:-1]
                continue
            assert report.is_damaged, (path.name, offset)
            # One record at most is lost by one byte, and all others are still there, in order.
            assert len(records) >= len(written) - 1
            assert is_subsequence(records, written)
            lost = sum((damage.end_position or 0) - damage.start_position for damage in report.damages)
            assert lost == appended_bytes(written) - appended_bytes(records)


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


def spoil(directory: Path, rng: random.Random) -> None:
    """Something bad happens to one file, anywhere in it."""
    paths = sorted(directory.iterdir())
    path = rng.choice(paths)
    size = path.stat().st_size
    way = rng.choice(["flip", "zero", "scramble", "cut", "delete", "move"])
    if way == "delete" and len(paths) > 1:
        path.unlink()
    elif way == "move":
        source = rng.choice(sorted(directory.glob("log-*.seg")) or [path])
        if source != path:
            shutil.copy(source, path)
    elif size:
        offset = rng.randrange(size)
        if way == "flip":
            flip(path, offset, mask=1 << rng.randrange(8))
        elif way == "cut":
            os.truncate(path, offset)
        else:
            length = rng.randrange(1, 200)
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(bytes(min(length, size - offset)) if way == "zero" else rng.randbytes(min(length, size - offset)))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_a_synced_record_is_there_or_its_loss_is_reported(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    synced, unsynced = some_records(rng, rng.randrange(40), body_len_max=80), some_records(rng, rng.randrange(10))
    fill(tmp_path, synced=synced, unsynced=unsynced, segment_bytes_max=rng.choice([200, 1_000, 1 << 20]))
    for _ in range(rng.randrange(1, 4)):
        spoil(tmp_path, rng)
    log, records, report = open_log(tmp_path)
    assert is_subsequence(records, synced + unsynced), "nothing that was never written, and in order"
    if not report.is_damaged:
        assert records[: len(synced)] == synced
        assert records == (synced + unsynced)[: len(records)]
    log.append_all([(9, b"after")])
    log.sync()
    log.close()
    recovery, again = recover(tmp_path)
    assert again == [*records, (9, b"after")], "a second start finds the same"
    assert recovery.report.torn_tail is None
