"""Dotted version vector sets: how concurrent writes of a key are all kept, and merged. Pure.

Source: Preguiça et al., "Dotted Version Vectors" (2010), and Riak's fold of contents by dots. What is particular here:

A dot is the version (stamp, actor) of one write. An actor's stamps only rise, so the vector's entry (stamp, actor) covers
all writes of that actor up to the stamp. Who coordinates a write holds the key's record and merges its own write into it
first, so an actor never covers what it has not seen; a node that lost a copy goes on under a new actor.

A record is three things, each merged by itself:

    floor     a version: every write below it is superseded
    vector    for each actor the highest stamp that was seen, as far as it is not below the floor
    siblings  the plain records that nobody has replaced, by their dots, none below the floor

Rule 1: a plain record of version v is floor v, vector {v}, siblings {v} (none for a tombstone). Merging two of them this way
is `max` again; so last write wins and siblings live side by side, and a key may pass from one to the other at any time.
Rule 2: a dot of one side survives if the other side has it too, or does not cover it. A deletion is a write that leaves no
sibling, so what was written at the same time survives it.
Rule 3: what has the meaning of a plain record is stored as one: equal copies are equal bytes, whichever way they came about.
"""

from __future__ import annotations

import struct
from base64 import b64decode, urlsafe_b64encode
from typing import NamedTuple
from zlib import crc32

from respkv.errors import ClientError
from respkv.versions.records import (
    ABSENT,
    SIBLINGS,
    SIBLINGS_HEADER_BYTES,
    STRING,
    TOMBSTONE,
    VERSION_BYTES,
    describe_version,
    is_well_formed,
    siblings_in,
    with_siblings,
)

_COUNTS = struct.Struct(">HH")
_CONTEXT_WORD = b"\x02"
"""The first byte of a context that a client is given: its format. The checksum of its key follows, and a record."""
_CONTEXT_HEADER_BYTES = 5
ACTORS_MAX = 2048
"""A context that leaves more entries than this in a vector was made up. Vectors grow beyond it by nobody's context."""
_NO_FLOOR = bytes(VERSION_BYTES)

Version = bytes
"""16 bytes: stamp, actor. Their order is the order in time."""


class Dotted(NamedTuple):
    """A record taken apart."""

    floor: Version
    vector: dict[bytes, bytes]
    """Actor -> stamp."""
    siblings: dict[Version, bytes]
    """Dot -> plain record."""

    def covers(self, version: Version) -> bool:
        """Whether a write is known here: seen, or superseded."""
        return version < self.floor or self.vector.get(version[8:], b"") >= version[:8]


def take_apart(record: bytes) -> Dotted:
    """Any record as a set of siblings with its vector."""
    if not record:
        return Dotted(_NO_FLOOR, {}, {})
    if record[16] != SIBLINGS:
        version = record[:VERSION_BYTES]
        return Dotted(version, {version[8:]: version[:8]}, {} if record[16] == TOMBSTONE else {version: record})
    (entries_count, _) = _COUNTS.unpack_from(record, 34)
    ends = range(SIBLINGS_HEADER_BYTES, SIBLINGS_HEADER_BYTES + VERSION_BYTES * entries_count, VERSION_BYTES)
    vector = {record[start + 8 : start + 16]: record[start : start + 8] for start in ends}
    return Dotted(record[18:34], vector, {sibling[:VERSION_BYTES]: sibling for sibling in siblings_in(record)})


def put_together(dotted: Dotted) -> bytes:
    """The record of a set of siblings, in the one form that it has."""
    floor, vector, siblings = dotted
    entries = sorted(stamp + actor for actor, stamp in vector.items() if stamp + actor >= floor)
    if entries == [floor]:
        if not siblings:
            return floor + bytes((TOMBSTONE, 0))
        if list(siblings) == [floor]:
            return siblings[floor]
    if not entries and not siblings:
        return ABSENT if floor == _NO_FLOOR else floor + bytes((TOMBSTONE, 0))
    newest = entries[-1] if entries else floor
    header = newest + bytes((SIBLINGS, STRING if siblings else 0)) + floor + _COUNTS.pack(len(entries), len(siblings))
    return with_siblings(header + b"".join(entries), [siblings[dot] for dot in sorted(siblings, reverse=True)])


def merge(left: bytes, right: bytes) -> bytes:
    """The record that has seen what both have seen: associative, commutative, idempotent."""
    if left == right or not right:
        return left
    if not left:
        return right
    if left[16] != SIBLINGS and right[16] != SIBLINGS:
        return max(left, right)
    return put_together(_joined(take_apart(left), take_apart(right)))


def _joined(left: Dotted, right: Dotted) -> Dotted:
    floor = max(left.floor, right.floor)
    siblings: dict[Version, bytes] = {}
    for mine, other in ((left, right), (right, left)):
        for dot, record in mine.siblings.items():
            there = other.siblings.get(dot)
            if there is not None:
                # The same write; its expiry may have been changed since.
                siblings[dot] = max(record, there)
            elif dot >= floor and not other.covers(dot):
                siblings[dot] = record
    return Dotted(floor, _joined_vectors(left.vector, right.vector), {dot: record for dot, record in siblings.items() if dot >= floor})


def _joined_vectors(left: dict[bytes, bytes], right: dict[bytes, bytes]) -> dict[bytes, bytes]:
    vector = dict(left)
    for actor, stamp in right.items():
        vector[actor] = max(stamp, vector.get(actor, b""))
    return vector


def successor(held: bytes, context: bytes, new: bytes) -> bytes:
    """The record after a write: `new` (plain, of a version above all) replaces what `context` has seen, and nothing else.

    `held` is the coordinator's own record, `context` a record or what `context_of` gave: what the writer has seen.
    Raises ClientError for a context that nobody can have been given.
    """
    mine, seen = take_apart(held), take_apart(context)
    version = new[:VERSION_BYTES]
    vector = _joined_vectors(mine.vector, seen.vector)
    if len(vector) > max(ACTORS_MAX, len(mine.vector)):
        msg = "invalid context: it names more writers than there can have been"
        raise ClientError(msg)
    assert vector.get(version[8:], b"") < version[:8]
    vector[version[8:]] = version[:8]
    floor = max(mine.floor, seen.floor)
    siblings = {dot: record for dot, record in mine.siblings.items() if dot >= floor and not seen.covers(dot)}
    if new[16] != TOMBSTONE:
        siblings[version] = new
    return put_together(Dotted(floor, vector, siblings))


def without_values(record: bytes) -> bytes:
    """What of a record says which writes it has seen: a record that has seen the same, and holds nothing."""
    if not record:
        return ABSENT
    floor, vector, _ = take_apart(record)
    return put_together(Dotted(floor, vector, {}))


def settled(record: bytes) -> bytes:
    """The same values, and no more of the past than they need: for a record that every replica has, while nobody holds another.

    Writes below the oldest sibling exist nowhere any more; so the vector forgets the actors that made them.
    """
    if not record or record[16] != SIBLINGS:
        return record
    _, vector, siblings = take_apart(record)
    floor = min(siblings) if siblings else record[:VERSION_BYTES]
    return put_together(Dotted(floor, vector, siblings))


def raised(record: bytes, floor: bytes) -> bytes:
    """A record without what was written below a stamp of 8 bytes, or below none at all (b"")."""
    if record < floor:
        return ABSENT
    if not floor or record[16] != SIBLINGS:
        return record
    low, vector, siblings = take_apart(record)
    lifted = max(low, floor + bytes(8))
    return put_together(Dotted(lifted, vector, {dot: sibling for dot, sibling in siblings.items() if dot >= lifted}))


def context_of(key: bytes, record: bytes) -> bytes:
    """What a client may hand back to say what it has seen: opaque to it, never empty, and of letters that a shell leaves alone."""
    return urlsafe_b64encode(_context_header(key) + without_values(record))


def seen_by(key: bytes, context: bytes) -> bytes:
    """The record behind a client's context. Raises ClientError for bytes that `context_of` did not make.

    The context of another key is refused: it would cover values of this one that its client has not seen.
    """
    try:
        data = b64decode(context, altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    header, record = data[:_CONTEXT_HEADER_BYTES], data[_CONTEXT_HEADER_BYTES:]
    is_version = len(record) == VERSION_BYTES + 2 and record[16:] == b"\0\0"
    is_whole = len(header) == _CONTEXT_HEADER_BYTES and header.startswith(_CONTEXT_WORD)
    if not is_whole or (record and not is_version and not _is_vector(record)):
        msg = "invalid context: give back what RESPKV SIBLINGS answered, byte for byte"
        raise ClientError(msg)
    if header != _context_header(key):
        msg = "invalid context: it was given for another key"
        raise ClientError(msg)
    return record


def _context_header(key: bytes) -> bytes:
    return _CONTEXT_WORD + crc32(key).to_bytes(4)


def _is_vector(record: bytes) -> bool:
    return is_well_formed(record) and record[16] == SIBLINGS and not siblings_in(record)


def describe_vector(record: bytes) -> list[str]:
    """What a record has seen, a version in words for each actor, the newest first."""
    floor, vector, siblings = take_apart(record)
    versions = sorted({stamp + actor for actor, stamp in vector.items()} | {floor} | set(siblings), reverse=True)
    return [describe_version(version) for version in versions if version != _NO_FLOOR]
