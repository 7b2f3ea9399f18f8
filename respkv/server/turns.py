"""What goes into a turn of the node and what comes out of it.

Arrivals are plain tuples whose first element is one of the kinds below; departures are
one object with a list for each kind of effect, which the shell carries out in this order:
log, frames and replies, everything else.
"""

from __future__ import annotations

from typing import Any

CLIENT_OPENED = 1  # (kind, connection_id, peer_address, local_address)
CLIENT_DATA = 2  # (kind, connection_id, data)
CLIENT_CLOSED = 3  # (kind, connection_id)
PEER_OPENED = 4  # (kind, node_id): our link to this peer is authenticated and takes frames
PEER_CLOSED = 5  # (kind, node_id, reason)
PEER_FRAME = 6  # (kind, node_id, frame): from this peer, whole
LOG_DURABLE = 7  # (kind, turn_number): all that was appended up to and including this turn is on the disk
LOADED = 8  # (kind, token, records): one record, or None where the tables have none, for each key asked
SCANNED = 9  # (kind, token, rows, next_hash): rows of (key, record); next_hash None at the end
FLUSHED = 10  # (kind, freeze_number): the frozen part is in the tables
SAVED = 11  # (kind, name): a small file is durable
SIGNALLED = 12  # (kind, name): "TERM", "INT", ...
PRESSURE = 13  # (kind, free_disk_bytes: those that no compaction needs, write_stalled)
CLIENT_ENDED = 14  # (kind, connection_id): it sends nothing more, and may still read
PEER_BACKLOG = 15  # (kind, node_id, bytes): so many wait for this peer; 0: next to none

Arrival = tuple[Any, ...]

# Kinds of record in the commit log; the body is msgpack.
LOG_WRITES = 1  # [key, record, key, record, ...]
LOG_HINTS = 2  # [owner, [key, record, ...]]: stored like writes, and a hint row for the owner
LOG_HINTS_DROPPED = 3  # [owner, [key, ...]]
LOG_CONFIRMED = 4  # number of a mark (u64): everything before that mark reached its replicas or became a hint
LOG_MARK = 6  # its number (u64)
LOG_KEYS_DROPPED = 5  # [key, ...]: stand-in copies that their owners have taken over, deletions that all replicas had
LOG_REAPED = 7  # stamp (u64) above all deletions that were dropped

START_AGAIN = 75
"""Among the exit codes that a node asks for: it is built once more at once, from what its directory holds by then."""


class Departures:
    """What the shell has to do after a turn."""

    __slots__ = (
        "closes",
        "control",
        "deferred_closes",
        "events",
        "frames",
        "freeze",
        "link_closes",
        "loads",
        "log",
        "peer_closes",
        "purge_below",
        "replies",
        "saves",
        "scans",
        "stop",
        "sync",
        "wake_at",
    )

    def __init__(self) -> None:
        """Start with nothing to do."""
        self.log: list[tuple[int, bytes]] = []
        """(kind, body) to append to the commit log before anything is sent."""
        self.sync = 0
        """If not 0, the number of this turn: make the log durable and report LOG_DURABLE with the number."""
        self.frames: list[tuple[str, bytes]] = []
        self.control: list[tuple[str, bytes]] = []
        """Frames of the control channel: gossip, which must not wait behind data."""
        self.peer_closes: list[str] = []
        """Peers whose link to this node is to be closed: they sent what no node sends."""
        self.link_closes: list[str] = []
        """Peers to whom this node's link is to be closed and dialled anew."""
        self.events: list[tuple[str, str]] = []
        """(level, sentence) for the log file; levels are Redis's: debug, verbose, notice, warning."""
        self.replies: list[tuple[int, list[bytes]]] = []
        self.closes: list[int] = []
        """Connections to close at once, unsent replies dropped."""
        self.deferred_closes: list[int] = []
        """Connections to close when their replies are sent."""
        self.loads: list[tuple[int, list[tuple[int, bytes]]]] = []
        """(token, [(partition, key), ...]): read these from the tables, answer LOADED."""
        self.scans: list[tuple[int, int, int, int]] = []
        """(token, partition, first_hash, limit): read rows in order of xxh64, answer SCANNED."""
        self.freeze: Any = None
        """Rotate the log now; write what `freeze.batches()` yields (lists of (partition, key, record or None
        for a deletion)) to the tables over the next turns; flush; answer FLUSHED with `freeze.number`; then drop older segments."""
        self.purge_below: bytes | None = None
        """Delete from the tables all records whose first 8 bytes are below this stamp."""
        self.saves: list[tuple[str, bytes]] = []
        """(name, content): small files to write atomically, answer SAVED."""
        self.wake_at: float | None = None
        """Monotonic time at which a turn is due even if nothing arrives."""
        self.stop: int | None = None
        """Exit code, once the node wants to end."""
