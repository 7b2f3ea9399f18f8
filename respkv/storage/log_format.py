"""The bytes of a commit log: segment headers, records, and the durable mark. Pure.

A segment is a header and then records without a gap:

    header  magic 8 | version u32 | segment u64 | first position u64 | salt 8 | owner 20 | checksum u64
    record  magic u16 | kind u8 | zero u8 | body length u32 | checksum u64 | body

Rule 1: a record is believed only in the place where it was written. Its checksum is seeded with
the log's random salt, its segment, its offset and its kind, so neither the stale bytes of another
place nor a client's value that imitates a record can pass for one.
Rule 2: a position counts the bytes of records since the log began, their headers included,
the headers of segments not. Whoever knows what is appended can therefore compute it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xxhash import xxh3_64_intdigest

from respkv.errors import DamageError

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_PREFIX: Final = "log-"
SEGMENT_SUFFIX: Final = ".seg"
SEGMENT_MAGIC: Final = b"respkvlg"
MARK_MAGIC: Final = b"respkvmk"
VERSION: Final = 1
SALT_BYTES: Final = 8
OWNER_BYTES: Final = 20
BODY_BYTES_MAX: Final = 2**32 - 1

RECORD_MAGIC: Final = 0xC95A
RECORD_MAGIC_BYTES: Final = RECORD_MAGIC.to_bytes(2, "big")

_RECORD = struct.Struct(">HBBIQ")
_HEADER = struct.Struct(f">8sIQQ{SALT_BYTES}s{OWNER_BYTES}s")
_MARK = struct.Struct(f">8sIQQQQ{SALT_BYTES}s{OWNER_BYTES}s")
_CHECKSUM = struct.Struct(">Q")

RECORD_OVERHEAD_BYTES: Final = _RECORD.size
"""What a record adds to the position beyond its body."""
SEGMENT_HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
MARK_BYTES: Final = _MARK.size + _CHECKSUM.size

_MASK = 2**64 - 1
# An odd multiplier spreads neighbouring offsets over all bits of the seed: xxh3 of a short
# body is weak against a seed and a body that differ in the same few bits.
_SPREAD = 0x9E3779B97F4A7C15

parse_record_header = _RECORD.unpack_from
"""(magic, kind, zero, body length, checksum) at an offset of a buffer."""


def segment_path(directory: Path, segment: int) -> Path:
    """Name the file of a segment."""
    return directory / f"{SEGMENT_PREFIX}{segment:016d}{SEGMENT_SUFFIX}"


def appended_bytes(records: list[tuple[int, bytes]]) -> int:
    """How far the position moves when these records are appended."""
    return sum(len(body) for _, body in records) + RECORD_OVERHEAD_BYTES * len(records)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment."""

    segment: int
    first_position: int
    salt: bytes
    owner: bytes

    def pack(self) -> bytes:
        """Give the header's bytes."""
        content = _HEADER.pack(SEGMENT_MAGIC, VERSION, self.segment, self.first_position, self.salt, self.owner)
        return content + _CHECKSUM.pack(xxh3_64_intdigest(content))

    @classmethod
    def unpack(cls, content: bytes) -> SegmentHeader:
        """Read a header, or say why it is none."""
        _check(content, size=SEGMENT_HEADER_BYTES, what="segment header")
        magic, version, segment, first_position, salt, owner = _HEADER.unpack_from(content)
        if magic != SEGMENT_MAGIC or version != VERSION:
            raise DamageError(f"segment header has magic {magic!r} and version {version}")
        return cls(segment=segment, first_position=first_position, salt=salt, owner=owner)


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where the log is on the disk, written after each sync."""

    sequence: int
    first_segment: int
    """The oldest one that is still needed: what is older is a leftover of a deletion."""
    start_position: int
    """Where that segment begins. From here to `position` nothing may be missing."""
    position: int
    salt: bytes
    owner: bytes

    def pack(self) -> bytes:
        """Give the mark's bytes."""
        numbers = (self.sequence, self.first_segment, self.start_position, self.position)
        content = _MARK.pack(MARK_MAGIC, VERSION, *numbers, self.salt, self.owner)
        return content + _CHECKSUM.pack(xxh3_64_intdigest(content))

    @classmethod
    def unpack(cls, content: bytes) -> Mark:
        """Read a mark, or say why it is none."""
        _check(content, size=MARK_BYTES, what="durable mark")
        magic, version, sequence, first_segment, start_position, position, salt, owner = _MARK.unpack_from(content)
        if magic != MARK_MAGIC or version != VERSION:
            raise DamageError(f"durable mark has magic {magic!r} and version {version}")
        return cls(
            sequence=sequence,
            first_segment=first_segment,
            start_position=start_position,
            position=position,
            salt=salt,
            owner=owner,
        )


def _check(content: bytes, *, size: int, what: str) -> None:
    if len(content) < size:
        raise DamageError(f"{what} has {len(content)} of {size} bytes")
    (expected,) = _CHECKSUM.unpack_from(content, size - _CHECKSUM.size)
    if xxh3_64_intdigest(content[: size - _CHECKSUM.size]) != expected:
        raise DamageError(f"{what} fails its checksum")


def segment_seed(salt: bytes, segment: int) -> int:
    """Give the part of a record's checksum that belongs to its segment.

    It does not depend on the segment's header, so that a damaged header costs no record.
    """
    return xxh3_64_intdigest(salt, segment)


def record_checksum(body: bytes | memoryview, *, kind: int, seed: int, offset: int) -> int:
    """Bind a body to its kind and to its place."""
    return xxh3_64_intdigest(body, (seed + ((offset << 8) + kind) * _SPREAD) & _MASK)


def pack_record_header(body: bytes, *, kind: int, seed: int, offset: int) -> bytes:
    """Give the bytes that precede a body which will stand at this offset of its segment."""
    checksum = xxh3_64_intdigest(body, (seed + ((offset << 8) + kind) * _SPREAD) & _MASK)
    return _RECORD.pack(RECORD_MAGIC, kind, 0, len(body), checksum)
