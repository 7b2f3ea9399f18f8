"""The commit log: what must survive the process before anybody is told that it was done.

Rule 1: after a failed write or sync the log is unusable and nothing is tried again. The kernel
may have marked the lost pages clean, so a second sync would succeed and lie (PostgreSQL's fsyncgate).
Rule 2: nothing is ever appended behind bytes that another process wrote: a start begins a new segment.
Rule 3: the mark is on the disk before anybody hears that what it covers is durable; so damage
below it is told from the torn tail of a power cut.

`append_all` and `rotate` belong to one thread (the loop's). `sync` and `drop_below` may run in another
at the same time, but not beside each other.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from respkv.errors import StorageError
from respkv.storage.files import sync_data, sync_directory, write_all
from respkv.storage.log_format import (
    BODY_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    Mark,
    SegmentHeader,
    pack_record_header,
    segment_path,
    segment_seed,
)
from respkv.storage.mark import MarkFile

if TYPE_CHECKING:
    from pathlib import Path

    from respkv.storage.log_recovery import LogRecovery

_VECTOR_LEN_MAX: Final = min(os.sysconf("SC_IOV_MAX"), 1024)


class _Segment:
    """One file of the log."""

    __slots__ = ("descriptor", "first_position", "name_is_durable", "number", "path", "seed", "size_bytes")

    def __init__(self, path: Path, *, number: int, first_position: int, seed: int, descriptor: int) -> None:
        self.path = path
        self.number = number
        self.first_position = first_position
        self.seed = seed
        self.descriptor = descriptor
        self.name_is_durable = False
        self.size_bytes = SEGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Counters of a commit log since the process began."""

    position: int
    synced_position: int
    segments_count: int
    bytes_on_disk: int
    appends_total: int
    appended_bytes_total: int
    syncs_total: int


class CommitLog:
    """Append-only segment files in a directory."""

    def __init__(self, recovery: LogRecovery, *, segment_bytes_max: int) -> None:
        """Go on behind what a recovery found: cut what it rejected, then begin a new segment.

        All that the recovery yielded is durable when this returns.
        """
        assert recovery.is_complete
        self._directory = recovery.directory
        self._segment_bytes_max = segment_bytes_max
        self.owner = recovery.owner
        self.salt = recovery.salt
        self._broken: StorageError | None = None
        self._in_thread = False
        self._appends_total = self._appended_bytes_total = self._syncs_total = 0
        self._opened_at_position = self.position = recovery.position
        self.synced_position = recovery.position
        recovery.cut()
        self._segments: deque[_Segment] = deque()
        for number, first_position, size_bytes in recovery.kept_segments:
            path = segment_path(self._directory, number)
            kept = _Segment(path, number=number, first_position=first_position, seed=0, descriptor=-1)
            kept.size_bytes = size_bytes
            self._segments.append(kept)
        self._unsynced: deque[_Segment] = deque()
        self._mark = Mark(
            sequence=recovery.mark_sequence + 1,
            # Not what was found: where segments are missing, the next start has to miss them too.
            first_segment=recovery.first_segment,
            start_position=recovery.start_position,
            position=self.position,
            salt=self.salt,
            owner=self.owner,
        )
        self._mark_file = MarkFile(self._directory, self._mark)
        self._segment = self._begin_segment(recovery.next_segment)

    @property
    def segment(self) -> int:
        """The number of the segment that is appended to."""
        return self._segment.number

    def append_all(self, records: list[tuple[int, bytes]]) -> int:
        """Append (kind, body) in order with one write; the position behind the last.

        What is appended survives the process from now on, and a power cut after the next sync.
        """
        if self._broken is not None:
            raise self._broken
        segment = self._segment
        if segment.size_bytes >= self._segment_bytes_max:
            self.rotate()
            segment = self._segment
        seed = segment.seed
        offset = segment.size_bytes
        parts: list[bytes] = []
        for kind, body in records:
            assert len(body) <= BODY_BYTES_MAX
            parts.append(pack_record_header(body, kind=kind, seed=seed, offset=offset))
            parts.append(body)
            offset += RECORD_OVERHEAD_BYTES + len(body)
        total_bytes = offset - segment.size_bytes
        try:
            if len(parts) > _VECTOR_LEN_MAX:
                parts = [b"".join(parts)]
            written_bytes = os.writev(segment.descriptor, parts)
            if written_bytes != total_bytes:
                # A nearly full disk, or more than a call takes (2 GiB): the next call says which.
                write_all(segment.descriptor, b"".join(parts)[written_bytes:])
        except OSError as error:
            raise self._break(f"cannot append to {segment.path}: {error}") from error
        segment.size_bytes = offset
        # The position moves last: a sync in another thread must never claim bytes that are not written.
        self.position += total_bytes
        self._appends_total += 1
        return self.position

    def rotate(self) -> int:
        """Begin a new segment, and give its number: all that was appended so far is in older ones."""
        if self._broken is not None:
            raise self._broken
        if self._segment.size_bytes > SEGMENT_HEADER_BYTES:
            self._segment = self._begin_segment(self._segment.number + 1)
        return self._segment.number

    def sync(self) -> int:
        """Make durable what was appended before this call, and say up to which position that is."""
        self._enter_thread()
        try:
            return self._sync()
        finally:
            self._in_thread = False

    def drop_below(self, segment: int) -> None:
        """Delete the segments older than this one.

        The mark forgets them first: a crash in between leaves files that the next start deletes,
        instead of a gap that it would take for damage.
        """
        self._enter_thread()
        try:
            self._sync()
            segments = list(self._segments)
            dropped = [old for old in segments if old.number < segment]
            first = segments[len(dropped)]
            if first.number == self._mark.first_segment:
                return
            self._write_mark(replace(self._mark, first_segment=first.number, start_position=first.first_position))
            for old in dropped:
                assert self._segments[0] is old
                self._segments.popleft()
                try:
                    old.path.unlink(missing_ok=True)
                except OSError as error:
                    raise self._break(f"cannot delete {old.path}: {error}") from error
        finally:
            self._in_thread = False

    def statistics(self) -> LogStatistics:
        """Counters for INFO."""
        segments = list(self._segments)
        return LogStatistics(
            position=self.position,
            synced_position=self.synced_position,
            segments_count=len(segments),
            bytes_on_disk=sum(segment.size_bytes for segment in segments),
            appends_total=self._appends_total,
            appended_bytes_total=self.position - self._opened_at_position,
            syncs_total=self._syncs_total,
        )

    def close(self) -> None:
        """Close the files, without a sync. Nothing may run in the other thread."""
        assert not self._in_thread
        for segment in self._segments:
            if segment.descriptor >= 0:
                os.close(segment.descriptor)
                segment.descriptor = -1
        self._mark_file.close()
        self._broken = self._broken or StorageError("the commit log is closed")

    def _enter_thread(self) -> None:
        assert not self._in_thread
        if self._broken is not None:
            raise self._broken
        self._in_thread = True

    def _break(self, reason: str) -> StorageError:
        self._broken = StorageError(reason)
        return self._broken

    def _begin_segment(self, number: int) -> _Segment:
        path = segment_path(self._directory, number)
        header = SegmentHeader(segment=number, first_position=self.position, salt=self.salt, owner=self.owner)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            write_all(descriptor, header.pack())
        except OSError as error:
            raise self._break(f"cannot begin {path}: {error}") from error
        segment = _Segment(
            path,
            number=number,
            first_position=self.position,
            seed=segment_seed(self.salt, number),
            descriptor=descriptor,
        )
        self._segments.append(segment)
        self._unsynced.append(segment)
        return segment

    def _sync(self) -> int:
        # First the position, then the segments: whatever is appended meanwhile is synced or
        # not, but all below this position is in one of these files.
        position = self.position
        segments = list(self._unsynced)
        if position == self.synced_position and len(segments) == 1 and segments[0].name_is_durable:
            return position
        try:
            for segment in segments:
                sync_data(segment.descriptor)
            if not all(segment.name_is_durable for segment in segments):
                sync_directory(self._directory)
        except (OSError, StorageError) as error:
            raise self._break(f"cannot sync {segments[0].path}: {error}") from error
        for segment in segments:
            segment.name_is_durable = True
        for segment in segments[:-1]:
            self._unsynced.popleft()
            os.close(segment.descriptor)
            segment.descriptor = -1
        self._write_mark(replace(self._mark, position=position))
        self.synced_position = position
        self._syncs_total += 1
        return position

    def _write_mark(self, mark: Mark) -> None:
        mark = replace(mark, sequence=self._mark.sequence + 1)
        try:
            self._mark_file.write(mark)
        except StorageError as error:
            self._broken = error
            raise
        self._mark = mark
