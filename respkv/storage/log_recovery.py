"""Reading a commit log back after a start, a crash, a power cut or damage.

Rule 1: what cannot be read behind the durable mark was never promised: the tail of a power cut.
It is cut off there, together with all that follows, so that what remains is a prefix.
Rule 2: what cannot be read below the mark is damage, and is never silent. All that can still be
read, before it and behind it, is yielded, and the report names the positions that are lost.
Rule 3: nothing on the disk changes while reading. `cut` does that, once the caller has gone on.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from respkv.errors import ConfigurationError, DamageError, StorageError
from respkv.storage.files import TEMPORARY_SUFFIX, sync_data, sync_directory
from respkv.storage.log_format import (
    OWNER_BYTES,
    RECORD_MAGIC,
    RECORD_MAGIC_BYTES,
    RECORD_OVERHEAD_BYTES,
    SALT_BYTES,
    SEGMENT_HEADER_BYTES,
    SEGMENT_PREFIX,
    SEGMENT_SUFFIX,
    SegmentHeader,
    parse_record_header,
    record_checksum,
    segment_path,
    segment_seed,
)
from respkv.storage.mark import MARK_NAME, read_mark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SEGMENT_NAME: Final = re.compile(rf"{SEGMENT_PREFIX}(\d{{16}}){re.escape(SEGMENT_SUFFIX)}")
_READ_AHEAD_BYTES: Final = 1 << 20
# Looking for the next good record hashes what a false start claims as its body; a value full of
# false starts must not make a restart take minutes.
_RESYNC_HASHED_BYTES_MAX: Final = 1 << 30
# Without a mark nothing is known to be unsynced, so whatever is unreadable counts as damage.
_POSITION_UNKNOWN: Final = 2**63


@dataclass(frozen=True, slots=True)
class Damage:
    """Positions that were durable and cannot be read; the range is empty if only a header suffered."""

    start_position: int
    end_position: int | None
    """None where nothing tells how far the log went."""
    reason: str


@dataclass(frozen=True, slots=True)
class TornTail:
    """What a power cut left behind the last sync."""

    segment: int
    position: int
    bytes_count: int
    reason: str

    def __str__(self) -> str:
        """As the log says it."""
        return f"{self.bytes_count} bytes behind position {self.position}, from segment {self.segment} on ({self.reason})"


@dataclass(slots=True)
class RecoveryReport:
    """What a recovery met; complete when all records are read."""

    records_count: int = 0
    segments_count: int = 0
    mark_position: int | None = None
    end_position: int = 0
    torn_tail: TornTail | None = None
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_damaged(self) -> bool:
        """Whether something that was durable is missing."""
        return bool(self.damages)


@dataclass(slots=True)
class _Found:
    """A segment file and what its header says."""

    number: int
    path: Path
    size_bytes: int
    header: SegmentHeader | None
    problem: str = ""


class LogRecovery:
    """Reads the log of a directory, once."""

    def __init__(self, directory: Path, *, owner: bytes) -> None:
        """Look at the mark and the segments' headers; records are read by `records`."""
        assert len(owner) == OWNER_BYTES
        self.directory = directory
        self.owner = owner
        self.report = RecoveryReport()
        self.is_complete = False
        self.mark_sequence = 0
        self.start_position = 0
        self.first_segment = 0
        self._durable_position = 0
        salt = self._read_mark()
        self._found, self._leftovers = self._list_segments()
        self._without_mark = salt is None and bool(self._found)
        self.salt = salt or self._salt_of_headers() or os.urandom(SALT_BYTES)
        self.is_new = salt is None and not self._found and not self.report.damages
        """Whether there never was a log here, or nothing of it is left."""
        self._judge_headers()
        self.position = self.start_position
        self.kept_segments: list[tuple[int, int, int]] = []
        """(number, first position, size) of what remains after the cut, oldest first."""
        self._rejected: list[_Found] = []
        self._cut_size_bytes: int | None = None
        numbers = [found.number for found in self._found + self._leftovers]
        self.next_segment = max([*numbers, self.first_segment, 0]) + 1

    def records(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield (kind, body, position behind it) of every readable record, in order."""
        assert not self.is_complete
        for index, found in enumerate(self._found):
            if not self._enter(found):
                self._reject(index, found.problem or f"segment {found.number} does not follow")
                break
            first_position = self.position
            self.kept_segments.append((found.number, first_position, found.size_bytes))
            following = next((later.header for later in self._found[index + 1 :] if later.header), None)
            yield from self._records_of(found, first_position, end_position=following.first_position if following else None)
            if self.report.torn_tail is not None:
                self._reject_all(index + 1)
                break
        self._finish()

    def cut(self) -> None:
        """Delete what was rejected, and make durable what was not: the next mark will cover it."""
        durable_position = self.report.mark_position or 0
        try:
            for found in reversed(self._rejected):
                found.path.unlink(missing_ok=True)
            for found in self._leftovers:
                found.path.unlink(missing_ok=True)
            for number, first_position, size_bytes in self.kept_segments:
                is_last = number == self.kept_segments[-1][0]
                if first_position + size_bytes - SEGMENT_HEADER_BYTES <= durable_position and not is_last:
                    continue
                descriptor = os.open(segment_path(self.directory, number), os.O_RDWR | os.O_CLOEXEC)
                try:
                    if is_last and self._cut_size_bytes is not None:
                        os.ftruncate(descriptor, self._cut_size_bytes)
                    sync_data(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise StorageError(f"cannot cut the log in {self.directory}: {error}") from error
        sync_directory(self.directory)

    def _read_mark(self) -> bytes | None:
        try:
            reading = read_mark(self.directory)
        except DamageError as error:
            self.report.damages.append(Damage(start_position=0, end_position=None, reason=str(error)))
            self._durable_position = _POSITION_UNKNOWN
            return None
        if reading is None:
            return None
        mark = reading.mark
        if mark.owner != self.owner:
            raise ConfigurationError(f"{self.directory} holds the log of node {mark.owner.hex()}, this is node {self.owner.hex()}")
        self.mark_sequence = mark.sequence
        self.start_position = mark.start_position
        self.first_segment = mark.first_segment
        self._durable_position = self.report.mark_position = mark.position
        if reading.lost_slots_count:
            # It may have been the newer one, and then nothing tells what is missing behind the older.
            # Disks do not tear so few bytes, so this is no power cut.
            self.report.damages.append(Damage(mark.position, None, "one slot of the durable mark is damaged"))
            self._durable_position = _POSITION_UNKNOWN
        return mark.salt

    def _list_segments(self) -> tuple[list[_Found], list[_Found]]:
        found: list[_Found] = []
        leftovers: list[_Found] = []
        try:
            for path in sorted(self.directory.iterdir()):
                match = _SEGMENT_NAME.fullmatch(path.name)
                if match:
                    segment = _Found(int(match[1]), path, path.stat().st_size, None)
                    (leftovers if segment.number < self.first_segment else found).append(segment)
                elif path.name == MARK_NAME + TEMPORARY_SUFFIX:
                    path.unlink()
        except OSError as error:
            raise StorageError(f"cannot list {self.directory}: {error}") from error
        for segment in found:
            self._read_header(segment)
        if leftovers:
            self.report.notes.append(f"{len(leftovers)} segments of the log are left over from a deletion")
        return found, leftovers

    def _read_header(self, found: _Found) -> None:
        try:
            with found.path.open("rb") as file:
                header = SegmentHeader.unpack(file.read(SEGMENT_HEADER_BYTES))
        except (OSError, DamageError) as error:
            found.problem = f"segment {found.number}: {error}"
            return
        if header.segment != found.number or header.owner != self.owner:
            found.problem = f"segment {found.number} holds segment {header.segment} of node {header.owner.hex()}"
            return
        found.header = header

    def _salt_of_headers(self) -> bytes | None:
        """Without a mark the salt that most headers agree on is the log's."""
        salts = [found.header.salt for found in self._found if found.header]
        return max(salts, key=salts.count) if salts else None

    def _judge_headers(self) -> None:
        for found in self._found:
            if found.header and found.header.salt != self.salt:
                found.header = None
                found.problem = f"segment {found.number} belongs to another log"
        if not self._without_mark:
            return
        if not self.report.damages:
            self.report.damages.append(Damage(0, None, "the durable mark is missing"))
        self._durable_position = _POSITION_UNKNOWN
        first = next((found.header for found in self._found if found.header), None)
        self.start_position = first.first_position if first else 0

    def _enter(self, found: _Found) -> bool:
        """Go on at the beginning of a segment; False if it is behind the mark and no good."""
        first_position = found.header.first_position if found.header else self.position
        if first_position == self.position and not found.problem:
            return True
        if self.position >= self._durable_position or first_position > self._durable_position:
            return False
        if first_position > self.position:
            self._damage(first_position, f"bytes before segment {found.number} are missing")
            self.position = first_position
            return True
        # The header lies or is unreadable. The records do not depend on it: take it for the next.
        reason = found.problem or f"segment {found.number} overlaps the one before it"
        self.report.damages.append(Damage(self.position, self.position, reason))
        return True

    def _damage(self, end_position: int, reason: str) -> None:
        end: int | None = min(end_position, self._durable_position)
        self.report.damages.append(Damage(self.position, None if end == _POSITION_UNKNOWN else end, reason))

    def _records_of(self, found: _Found, first_position: int, *, end_position: int | None) -> Iterator[tuple[int, bytes, int]]:
        """Read one segment, as far as the next one does not begin."""
        seed = segment_seed(self.salt, found.number)
        base = first_position - SEGMENT_HEADER_BYTES
        end_offset = found.size_bytes
        if end_position is not None and end_position >= first_position:
            end_offset = min(end_offset, end_position - base)
        offset = SEGMENT_HEADER_BYTES
        try:
            with found.path.open("rb", buffering=_READ_AHEAD_BYTES) as file:
                while offset < end_offset:
                    file.seek(offset)
                    for kind, body in _good_records(file, seed=seed, offset=offset, end_offset=end_offset):
                        offset += RECORD_OVERHEAD_BYTES + len(body)
                        self.position = base + offset
                        self.report.records_count += 1
                        yield kind, body, self.position
                    if offset >= end_offset:
                        break
                    reason = f"segment {found.number} is unreadable at {offset}"
                    if self.position >= self._durable_position:
                        self._tear(found, offset, reason)
                        return
                    resumed = _next_good_record(file, seed=seed, offset=offset + 1, end_offset=end_offset)
                    if resumed is None:
                        self._lose_rest(found, base=base, offset=offset, end_offset=end_offset, reason=reason)
                        return
                    self._damage(base + resumed, reason)
                    offset = resumed
                    self.position = base + offset
        except OSError as error:
            if self.position >= self._durable_position:
                self._tear(found, offset, str(error))
            else:
                self._lose_rest(found, base=base, offset=offset, end_offset=end_offset, reason=str(error))

    def _lose_rest(self, found: _Found, *, base: int, offset: int, end_offset: int, reason: str) -> None:
        """Give up on the rest of a segment: up to the mark it is damage, behind it a torn tail."""
        end_position = base + end_offset
        self._damage(end_position, reason)
        if end_position > self._durable_position:
            self.position = self._durable_position
            self._tear(found, max(offset, self._durable_position - base), reason)
        else:
            self.position = end_position

    def _tear(self, found: _Found, offset: int, reason: str) -> None:
        self._cut_size_bytes = offset
        number, first_position, _ = self.kept_segments[-1]
        assert number == found.number
        self.kept_segments[-1] = (number, first_position, offset)
        self.report.torn_tail = TornTail(segment=found.number, position=self.position, bytes_count=found.size_bytes - offset, reason=reason)

    def _reject(self, index: int, reason: str) -> None:
        """Cut the log before a segment that is behind the mark and does not fit."""
        found = self._found[index]
        self.report.torn_tail = TornTail(segment=found.number, position=self.position, bytes_count=0, reason=reason)
        self._reject_all(index)

    def _reject_all(self, index: int) -> None:
        torn = self.report.torn_tail
        assert torn is not None
        self._rejected = self._found[index:]
        bytes_count = torn.bytes_count + sum(found.size_bytes for found in self._rejected)
        self.report.torn_tail = TornTail(torn.segment, torn.position, bytes_count, torn.reason)

    def _finish(self) -> None:
        mark_position = self.report.mark_position
        if mark_position is not None and self.position < mark_position:
            self._damage(mark_position, "the end of the log is missing")
            self.position = mark_position
        self.report.segments_count = len(self.kept_segments)
        self.report.end_position = self.position
        self.is_complete = True


def _read_record(file: BinaryIO, *, seed: int, offset: int, end_offset: int) -> tuple[int, bytes] | None:
    """Read the record at the file's place; None if there is no good one."""
    header = file.read(RECORD_OVERHEAD_BYTES)
    if len(header) < RECORD_OVERHEAD_BYTES:
        return None
    magic, kind, zero, body_len, checksum = parse_record_header(header)
    if magic != RECORD_MAGIC or zero or body_len > end_offset - offset - RECORD_OVERHEAD_BYTES:
        return None
    body = file.read(body_len)
    if len(body) != body_len or record_checksum(body, kind=kind, seed=seed, offset=offset) != checksum:
        return None
    return kind, body


def _good_records(file: BinaryIO, *, seed: int, offset: int, end_offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield records up to the first that is none."""
    while offset < end_offset:
        record = _read_record(file, seed=seed, offset=offset, end_offset=end_offset)
        if record is None:
            return
        yield record
        offset += RECORD_OVERHEAD_BYTES + len(record[1])


def _next_good_record(file: BinaryIO, *, seed: int, offset: int, end_offset: int) -> int | None:
    """Find where records can be read again: a checksum that knows its place cannot match by chance."""
    file.seek(offset)
    rest = file.read(end_offset - offset)
    view = memoryview(rest)
    hashed_bytes = 0
    at = rest.find(RECORD_MAGIC_BYTES)
    while 0 <= at <= len(rest) - RECORD_OVERHEAD_BYTES and hashed_bytes < _RESYNC_HASHED_BYTES_MAX:
        _, kind, zero, body_len, checksum = parse_record_header(rest, at)
        body = view[at + RECORD_OVERHEAD_BYTES :][:body_len]
        if not zero and len(body) == body_len:
            hashed_bytes += body_len
            if record_checksum(body, kind=kind, seed=seed, offset=offset + at) == checksum:
                return offset + at
        at = rest.find(RECORD_MAGIC_BYTES, at + 1)
    return None
