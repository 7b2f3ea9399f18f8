"""One frame a peer and turn: a header that every frame carries, and sections.

    header   clock u64, ring epoch u32, stamp of the cluster value u64
    section  kind u8, body length u32, sequence u32, body

A request's sequence number is the sender's; the answer repeats it. The bytes of a WRITE section are
the same for every peer, so they are packed once; its body is also the body of the log record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from respkv.errors import PeerProtocolError
from respkv.transport.bounds import SECTION_BYTES_MAX

WRITE = 1  # [key, record, key, record, ...]
WRITE_ACK = 2  # [sequence, ...]: all of it is in the log
WRITE_ACK_NEWER = 3  # [stamp, index, held for how many us, its stamp, index, ...]: stored, but of these newer versions were held
STAND_IN = 4  # owners (20 raw bytes each, a count byte before them), then as WRITE: store, and a hint row for each owner
READ = 5  # [key, ...]
RECORDS = 6  # [record, ...]
REQUEST = 7  # [name, argument, ...]: a call that one node makes of another
RESULT = 8  # the answer to a REQUEST
GOSSIP = 9
REPAIR = 10  # as WRITE: merged whatever its stamps, answered by WRITE_ACK
REFUSED = 11  # [reason, ...]: a request that was not carried out
READ_STAND_IN = 14  # as READ, of one who may stand in
TOO_LONG = 15  # [index, ...]: a READ to ask again in parts, which begin at these keys; []: there is no room for the answer
CLUSTER_VALUE = 12
RING = 13

_HEADER = struct.Struct(">QIQ")
_SECTION = struct.Struct(">BII")
_SECTION_BYTES = _SECTION.size
HEADER_BYTES = _HEADER.size

Section = tuple[int, int, bytes]


def pack_header(clock: int, epoch: int, value_stamp: int) -> bytes:
    """The header of a frame."""
    return _HEADER.pack(clock, epoch, value_stamp)


def pack_section(kind: int, sequence: int, body: bytes) -> bytes:
    """One section."""
    return _SECTION.pack(kind, len(body), sequence) + body


def joined(packed: list[bytes]) -> Iterator[bytes]:
    """Packed sections, as many together as make a frame of a good length."""
    start = size = 0
    for end, section in enumerate(packed):
        if size and size + len(section) > SECTION_BYTES_MAX:
            yield b"".join(packed[start:end])
            start, size = end, 0
        size += len(section)
    yield b"".join(packed[start:])


def cuts(records: list[bytes]) -> list[int]:
    """Where to cut a list of records that is too long for one section: the first index of each part."""
    found, size = [0], 0
    for index, record in enumerate(records):
        if size and size + len(record) > SECTION_BYTES_MAX:
            found.append(index)
            size = 0
        size += len(record)
    return found


def unpack_header(frame: bytes) -> tuple[int, int, int]:
    """(clock, epoch, value_stamp). Raises PeerProtocolError if the frame is too short."""
    if len(frame) < HEADER_BYTES:
        msg = "short frame"
        raise PeerProtocolError(msg)
    return _HEADER.unpack_from(frame)


def sections(frame: bytes) -> Iterator[Section]:
    """(kind, sequence, body) for every section. Raises PeerProtocolError if one does not fit."""
    position, end = HEADER_BYTES, len(frame)
    unpack = _SECTION.unpack_from
    while position < end:
        if position + _SECTION_BYTES > end:
            msg = "truncated section header"
            raise PeerProtocolError(msg)
        kind, length, sequence = unpack(frame, position)
        position += _SECTION_BYTES
        if position + length > end:
            msg = "truncated section"
            raise PeerProtocolError(msg)
        yield kind, sequence, frame[position : position + length]
        position += length


def pack_owners(owners: tuple[str, ...]) -> bytes:
    """The node ids that a STAND_IN section stands in for, in front of its body."""
    return bytes((len(owners),)) + b"".join(bytes.fromhex(owner) for owner in owners)


def unpack_owners(body: bytes) -> tuple[list[str], bytes]:
    """(owners, the rest of the body)."""
    if not body or len(body) < 1 + 20 * body[0]:
        msg = "truncated owners"
        raise PeerProtocolError(msg)
    end = 1 + 20 * body[0]
    return [body[start : start + 20].hex() for start in range(1, end, 20)], body[end:]
