"""How long what travels between two nodes may be: all of it follows from `proto-max-bulk-len` and `peer-queue-limit`. Pure.

Rule 1: what a request makes long is cut up, or refused by itself, before it is queued; a link breaks only under what nobody foresaw.
Rule 2: a node that sends reckons with its own settings: all nodes of a cluster are given the same.
"""

from __future__ import annotations

LONG_BYTES = 256 * 1024
"""From here on a section is worth looking at before it is queued."""
SECTION_BYTES_MAX = 32 << 20
"""What is made of many records is cut up when it is longer. A single record may be longer than this."""
LONG_BYTES_PER_S = 16 << 20
"""What a link and the node behind it carry at least, while all is well: nobody is slow for what is long before this has passed."""


def transfer_s(size: int) -> float:
    """How much later than a short one an answer may come to what is so long, or an answer that is."""
    return size / LONG_BYTES_PER_S if size > LONG_BYTES else 0.0


def frame_bytes_max(bulk_bytes_max: int) -> int:
    """The longest frame that a peer may send: a turn's worth of the biggest values."""
    return 4 * bulk_bytes_max + (64 << 20)


def siblings_bytes_max(bulk_bytes_max: int) -> int:
    """The longest record that a write may leave of several values: copies may each have others, and all together must fit into a frame."""
    return frame_bytes_max(bulk_bytes_max) // 4


def long_bytes_max(queue_bytes_max: int, bulk_bytes_max: int) -> int:
    """How much of what is long may wait for a peer: some of the queue is left to what is short, and one record always fits."""
    return max(queue_bytes_max * 3 // 4, frame_bytes_max(bulk_bytes_max) // 2)


def link_bytes_max(queue_bytes_max: int, bulk_bytes_max: int) -> int:
    """When a link is given up, because more than this waits for it."""
    return max(queue_bytes_max, long_bytes_max(queue_bytes_max, bulk_bytes_max) * 4 // 3)
