"""Logs to test with."""

from __future__ import annotations

import random
from pathlib import Path

from respkv.storage.log import CommitLog
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


def is_subsequence(part: Records, whole: Records) -> bool:
    rest = iter(whole)
    return all(any(record == other for other in rest) for record in part)
