r"""A stored record is one `bytes`, and merging two plain records of a key is `max` of the two.

    [0:8]    stamp of the version, big-endian (see `clock`)
    [8:16]   actor: the node incarnation that stamped it
    [16]     form: TOMBSTONE, VALUE, VALUE_EXPIRING, or SIBLINGS
    [17]     type: b"s" for a string, 0 for a tombstone
    VALUE           [18:] the value
    VALUE_EXPIRING  [18:26] stamp of the expiry, [26:34] when, in unix ms (FOREVER: persisted),
                    then b"\\x01" and the value; cut to 34 bytes once it has expired and its bytes were dropped
    SIBLINGS        stamp and actor are the newest that it knows of; then a version vector and plain records: see `vectors`,
                    which alone merges this form

Rule 1: among plain records (all but SIBLINGS) bytes order is the merge order. A later stamp wins, then the actor, then within one version a
record with an expiry register over one without, the later expiry stamp, the longer expiry, and last
the bytes of the value: a total order, so merging is associative, commutative and idempotent by itself.
Rule 2: whoever changes the expiry writes the value along with it, so the winner is always complete.
Rule 3: b"" is a key known to be absent. It is below every record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

TOMBSTONE = 0
VALUE = 1
VALUE_EXPIRING = 2
SIBLINGS = 3

STRING = ord("s")

VERSION_BYTES = 16
HEADER_BYTES = 18
EXPIRED_BYTES = 34
EXPIRING_HEADER_BYTES = 35
FOREVER = 2**64 - 1
ABSENT = b""

SIBLINGS_HEADER_BYTES = 38
"""Of that form: version, form, type; the floor (16 bytes); how many entries the vector has and how many records follow, 2 bytes each."""

_TYPE_NAMES = {STRING: "string"}
_PLAIN = {bytes((VALUE, STRING))}
"""Forms and types of records that hold nothing that can be malformed."""
_COUNTS = struct.Struct(">HH")
_LENGTH = struct.Struct(">I")
_STAMP = struct.Struct(">Q")
_EXPIRY = struct.Struct(">QQ")

pack_stamp = _STAMP.pack


def string_tail(actor: bytes) -> bytes:
    """Bytes 8 to 18 of every plain string that an actor writes: kept ready by who writes many."""
    return actor + bytes((VALUE, STRING))


def string(value: bytes, *, stamp: int, actor: bytes, expire_at_ms: int | None = None) -> bytes:
    """The record of a string, expiring at a unix millisecond if one is given."""
    if expire_at_ms is None:
        return pack_stamp(stamp) + actor + b"\x01s" + value
    return pack_stamp(stamp) + actor + b"\x02s" + _EXPIRY.pack(stamp, expire_at_ms) + b"\x01" + value


def tombstone(*, stamp: int, actor: bytes) -> bytes:
    """The record of a deletion."""
    return pack_stamp(stamp) + actor + b"\x00\x00"


def siblings_in(record: bytes) -> list[bytes]:
    """The plain records in a record: itself, or its siblings, the newest first."""
    if not record or record[16] != SIBLINGS:
        return [record] if record else []
    entries_count, siblings_count = _COUNTS.unpack_from(record, 34)
    position = SIBLINGS_HEADER_BYTES + VERSION_BYTES * entries_count
    found: list[bytes] = []
    for _ in range(siblings_count):
        (size,) = _LENGTH.unpack_from(record, position)
        position += _LENGTH.size
        found.append(record[position : position + size])
        position += size
    return found


def chosen(record: bytes, now_ms: int) -> bytes:
    """The plain record that a client sees: of several siblings the newest that has not expired, the same on every node; or ABSENT."""
    for sibling in siblings_in(record):
        if is_visible(sibling, now_ms):
            return sibling
    return ABSENT


def with_siblings(record: bytes, siblings: list[bytes]) -> bytes:
    """The same record with its siblings changed, one by one, in what a merge does not look at."""
    end = SIBLINGS_HEADER_BYTES + VERSION_BYTES * int(_COUNTS.unpack_from(record, 34)[0])
    return record[:end] + b"".join(_LENGTH.pack(len(sibling)) + sibling for sibling in siblings)


def with_expiry(record: bytes, *, stamp: int, expire_at_ms: int) -> bytes:
    """The same version with another expiry register; FOREVER persists it. Of siblings, all that hold a value.

    The record must be alive, and without values that have expired: an expiry never revives a version.
    """
    if record[16] == SIBLINGS:
        changed = [with_expiry(each, stamp=stamp, expire_at_ms=expire_at_ms) if holds_value(each) else each for each in siblings_in(record)]
        return with_siblings(record, changed)
    value = record[HEADER_BYTES:] if record[16] == VALUE else record[EXPIRING_HEADER_BYTES:]
    return record[:VERSION_BYTES] + b"\x02" + record[17:18] + _EXPIRY.pack(stamp, expire_at_ms) + b"\x01" + value


def restamped(record: bytes, stamp: int) -> bytes:
    """The same content as a later version, for a write that must win over what a replica already holds."""
    if record[16] == VALUE_EXPIRING:
        return pack_stamp(stamp) + record[8:18] + pack_stamp(stamp) + record[26:]
    return pack_stamp(stamp) + record[8:]


def reversioned(record: bytes, stamp: int, actor: bytes) -> bytes:
    """The same content of a plain record as a version of another stamp and actor."""
    if record[16] == VALUE_EXPIRING:
        return pack_stamp(stamp) + actor + record[16:18] + pack_stamp(stamp) + record[26:]
    return pack_stamp(stamp) + actor + record[16:]


def stamp_of(record: bytes) -> int:
    """The stamp of the version; 0 for an absent key."""
    return int(_STAMP.unpack_from(record)[0]) if record else 0


def newest_stamp_of(record: bytes) -> int:
    """The highest stamp in the record: that of its version or of its expiry."""
    if not record:
        return 0
    if record[16] == SIBLINGS:
        return max(stamp_of(record), *map(newest_stamp_of, siblings_in(record)), 0)
    if record[16] == VALUE_EXPIRING:
        return int(max(_STAMP.unpack_from(record)[0], _STAMP.unpack_from(record, 18)[0]))
    return int(_STAMP.unpack_from(record)[0])


def expiry_of(record: bytes, now_ms: int = 0) -> int | None:
    """The unix millisecond at which the record expires, or None if it never does. Of siblings, the one that is seen at `now_ms`."""
    if record and record[16] == SIBLINGS:
        return expiry_of(chosen(record, now_ms))
    if len(record) >= EXPIRED_BYTES and record[16] == VALUE_EXPIRING:
        when = int(_STAMP.unpack_from(record, 26)[0])
        return None if when == FOREVER else when
    return None


def value_of(record: bytes, now_ms: int) -> bytes | None:
    """The value that a client sees, or None: absent, deleted or expired."""
    if not record:
        return None
    form = record[16]
    if form == VALUE:
        return record[HEADER_BYTES:]
    if form == VALUE_EXPIRING and len(record) > EXPIRED_BYTES and _STAMP.unpack_from(record, 26)[0] > now_ms:
        return record[EXPIRING_HEADER_BYTES:]
    if form == SIBLINGS:
        return value_of(chosen(record, now_ms), now_ms)
    return None


def is_visible(record: bytes, now_ms: int) -> bool:
    """Whether a client sees a value."""
    if not record:
        return False
    form = record[16]
    if form == SIBLINGS:
        return any(is_visible(sibling, now_ms) for sibling in siblings_in(record))
    return form == VALUE or (form == VALUE_EXPIRING and len(record) > EXPIRED_BYTES and bool(_STAMP.unpack_from(record, 26)[0] > now_ms))


def holds_value(record: bytes) -> bool:
    """Whether value bytes are stored: what a count of keys counts, as Redis counts keys that expired unnoticed."""
    if not record:
        return False
    form = record[16]
    if form == SIBLINGS:
        return any(map(holds_value, siblings_in(record)))
    return form == VALUE or (form == VALUE_EXPIRING and len(record) > EXPIRED_BYTES)


def is_remains(record: bytes) -> bool:
    """Whether a record is only, or also, about the past: a deletion, what expired, what siblings have seen."""
    if not record or record[16] == VALUE:
        return False
    return record[16] != VALUE_EXPIRING or len(record) <= EXPIRED_BYTES


def will_expire(record: bytes) -> bool:
    """Whether value bytes are stored that are to be dropped one day."""
    if not record or record[16] in {TOMBSTONE, VALUE}:
        return False
    if record[16] == SIBLINGS:
        return any(map(will_expire, siblings_in(record)))
    return len(record) > EXPIRED_BYTES and expiry_of(record) is not None


def siblings_count(record: bytes) -> int:
    """How many values are stored side by side: 0 or 1 of a plain record."""
    return sum(map(holds_value, siblings_in(record)))


def without_expired_value(record: bytes, now_ms: int) -> bytes:
    """The record itself, or what is kept of it once it has expired: its version and its expiry, a tombstone."""
    if record and record[16] == SIBLINGS:
        siblings = siblings_in(record)
        kept = [without_expired_value(sibling, now_ms) for sibling in siblings]
        return record if kept == siblings else with_siblings(record, kept)
    if len(record) > EXPIRED_BYTES and record[16] == VALUE_EXPIRING and _STAMP.unpack_from(record, 26)[0] <= now_ms:
        return record[:EXPIRED_BYTES]
    return record


def type_name(record: bytes) -> str:
    """What TYPE answers for a visible record."""
    if record[16] == SIBLINGS:
        record = next(sibling for sibling in siblings_in(record) if holds_value(sibling))
    return _TYPE_NAMES[record[17]]


def are_well_formed(found: Sequence[bytes], *, stamp_max: int) -> bool:
    """Whether another node's bytes are records that a node can have made: checked at the border, never again."""
    if {record[16:18] for record in found} <= _PLAIN:
        return not found or max(found)[:8] <= pack_stamp(stamp_max)
    return all(is_well_formed(record) and newest_stamp_of(record) <= stamp_max for record in found)


def is_well_formed(record: bytes) -> bool:
    """Whether bytes are a record at all."""
    if len(record) < HEADER_BYTES:
        return False
    form = record[16]
    if form == TOMBSTONE:
        return len(record) == HEADER_BYTES and not record[17]
    if form == SIBLINGS:
        return _are_siblings_well_formed(record)
    if record[17] not in _TYPE_NAMES:
        return False
    return form == VALUE or (
        form == VALUE_EXPIRING and (len(record) == EXPIRED_BYTES or record[EXPIRED_BYTES : EXPIRED_BYTES + 1] == b"\x01")
    )


def is_plain(record: bytes) -> bool:
    """The same for one that holds no siblings."""
    return is_well_formed(record) and record[16] != SIBLINGS


def _are_siblings_well_formed(record: bytes) -> bool:
    if len(record) < SIBLINGS_HEADER_BYTES:
        return False
    entries_count, siblings_count = _COUNTS.unpack_from(record, 34)
    position = SIBLINGS_HEADER_BYTES + VERSION_BYTES * entries_count
    starts = range(SIBLINGS_HEADER_BYTES, position, VERSION_BYTES)
    versions = [record[18:34], *(record[start : start + VERSION_BYTES] for start in starts)]
    # The newest of what was seen stands first: one above it would be superseded by nothing, and above all that clocks may say.
    if max(versions) != record[:VERSION_BYTES] or sorted(set(versions[1:])) != versions[1:]:
        return False
    for _ in range(siblings_count):
        if position + _LENGTH.size > len(record):
            return False
        start = position + _LENGTH.size
        position = start + int(_LENGTH.unpack_from(record, position)[0])
        sibling = record[start:position]
        if len(sibling) < HEADER_BYTES or sibling[16] not in {VALUE, VALUE_EXPIRING} or not is_well_formed(sibling):
            return False
    return bool(position == len(record))


def identity(record: bytes) -> bytes:
    """What two copies have in common exactly if they are the same to every client, now and later. For hash trees.

    Whether the bytes of an expired value were dropped already makes no difference.
    """
    if not record:
        return ABSENT
    form = record[16]
    if form == VALUE_EXPIRING:
        return record[:EXPIRED_BYTES]
    if form == SIBLINGS:
        return with_siblings(record, [identity(sibling) for sibling in siblings_in(record)])
    return record[:HEADER_BYTES]


def describe(record: bytes) -> str:
    """A version in words: the stamp's milliseconds, its logic, and the actor."""
    return describe_version(record[:VERSION_BYTES]) if record else "absent"


def describe_version(version: bytes) -> str:
    """The same for the 16 bytes of a stamp and an actor."""
    stamp = stamp_of(version)
    return f"{stamp >> 16}.{stamp & 0xFFFF}@{version[8:16].hex()}"
