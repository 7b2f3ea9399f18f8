"""What nodes tell each other about members: shapes, bounds and encoding.

Rule 1: everything that comes from outside is bounded here, before any table is touched.
Rule 2: fields may be added at the end; a node skips those that it does not know.

    Digest    "this is how new my knowledge is"     -> answered by Reply
    Reply     "you lack this; I lack that"          -> answered by Deltas if something is lacking
    Deltas    "here is what you lacked"
    Announce  a node's own state in full (`membership-protocol broadcast`)

Each also carries the sender's wall clock and its accusations: the peers that it takes for away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from respkv.errors import PeerProtocolError
from respkv.membership.members import APPLICATION_KEY_LEN_MAX, APPLICATION_KEYS_MAX, APPLICATION_TEXT_LEN_MAX, SHORT_ID_BYTES
from respkv.transport import border

PAYLOAD_BYTES_MAX = 128 * 1024
ENTRIES_MAX = 256
"""Members in one message; of a greater cluster each message names a random part."""
DELTA_BYTES_SOFT_MAX = 48 * 1024
"""No further delta is added to a message beyond this: the rest comes in a later round."""
GENERATION_MAX = 2**47
"""The year 6429: whoever claims more is broken, and there is room to outbid it."""
HEARTBEAT_MAX = 2**53

ShortId = Annotated[bytes, Meta(min_length=SHORT_ID_BYTES, max_length=SHORT_ID_BYTES)]
FullId = Annotated[bytes, Meta(min_length=20, max_length=20)]
Generation = Annotated[int, Meta(ge=0, le=GENERATION_MAX)]
Heartbeat = Annotated[int, Meta(ge=0, le=HEARTBEAT_MAX)]
WallMs = Annotated[int, Meta(ge=0, le=HEARTBEAT_MAX)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Host = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^\\s\\x00-\\x1f\\x7f]*$")]
"""Without blanks and line ends: it is shown in lines of words."""
Zone = Annotated[str, Meta(max_length=255)]
Key = Annotated[str, Meta(min_length=1, max_length=APPLICATION_KEY_LEN_MAX)]
Text = Annotated[str, Meta(max_length=APPLICATION_TEXT_LEN_MAX)]

Entry = tuple[ShortId, Generation, Heartbeat, Heartbeat]
"""(node, generation, heartbeat, state version)"""
Request = tuple[ShortId, Heartbeat]
"""(node, the state version that the asker has; 0 for everything)"""
Accusation = tuple[ShortId, Generation]
Item = tuple[Key, Heartbeat, int | float | Text]
"""(key, version, value)"""

Entries = Annotated[list[Entry], Meta(max_length=ENTRIES_MAX)]
Requests = Annotated[list[Request], Meta(max_length=ENTRIES_MAX)]
Accusations = Annotated[list[Accusation], Meta(max_length=ENTRIES_MAX)]
Items = Annotated[list[Item], Meta(max_length=APPLICATION_KEYS_MAX)]
Location = tuple[Host, Port, Port, Zone]
"""(host, port, cluster port, zone)"""


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What changed in one member's state after version `since`; with its address if that is 0."""

    node: FullId
    generation: Generation
    heartbeat: Heartbeat
    state_version: Heartbeat
    since: Heartbeat
    location: Location | None
    items: Items


DeltaList = Annotated[list[Delta], Meta(max_length=ENTRIES_MAX)]


class Digest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """How new the sender's knowledge of each member is."""

    wall_ms: WallMs
    entries: Entries
    accusations: Accusations


class Reply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """To a digest: heartbeats and states that are newer here, and what is newer there."""

    wall_ms: WallMs
    entries: Entries
    accusations: Accusations
    deltas: DeltaList
    requests: Requests


class Deltas(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """To the requests of a reply."""

    wall_ms: WallMs
    deltas: DeltaList


class Announce(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """The sender's own state, in full."""

    wall_ms: WallMs
    own: Delta
    accusations: Accusations


Message = Digest | Reply | Deltas | Announce

_ENCODER = msgspec.msgpack.Encoder()
_read: Callable[[bytes], Message] = border.reader(cast("Any", Message))


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _ENCODER.encode(message)


def decode(payload: bytes) -> Message:
    """The message in these bytes, or `PeerProtocolError`."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PeerProtocolError(f"gossip of {len(payload)} bytes; at most {PAYLOAD_BYTES_MAX} are read")
    return _read(payload)
