"""Key -> slot as Redis Cluster does it (CRC16, hash tags); slot -> partition by cutting 16384 slots into equal parts."""

from __future__ import annotations

from binascii import crc_hqx

SLOT_COUNT = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key: CRC16/XMODEM of the key, or of the first non-empty `{tag}` in it, modulo 16384.

    Source: Redis Cluster specification, "Keys hash tags".
    """
    if b"{" in key:
        start = key.index(b"{") + 1
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    return crc_hqx(key, 0) & 16383


def partition_shift(ring_size: int) -> int:
    """How far to shift a slot right to get its partition, for a ring of `ring_size` partitions (a power of two)."""
    return (SLOT_COUNT // ring_size).bit_length() - 1


def partition_slots(partition: int, *, ring_size: int) -> tuple[int, int]:
    """First and last slot of a partition."""
    width = SLOT_COUNT // ring_size
    return partition * width, (partition + 1) * width - 1
