"""Frames cut into packets of at most 256 KiB on two channels: a large value must not look like a death.

packet   length u32 (of what follows the 5 bytes), flags u8 (1: more of this frame follows; 2: control channel)
"""

from __future__ import annotations

import struct

from respkv.errors import PeerProtocolError

PACKET_BYTES_MAX = 256 * 1024
_HEADER = struct.Struct(">IB")
_HEADER_BYTES = _HEADER.size
_MORE = 1
_CONTROL = 2


def cut(frame: bytes, *, control: bool = False) -> list[bytes]:
    """The packets of a frame; one for nearly every frame."""
    channel = _CONTROL if control else 0
    length = len(frame)
    if length <= PACKET_BYTES_MAX:
        return [_HEADER.pack(length, channel) + frame]
    pieces = []
    for start in range(0, length, PACKET_BYTES_MAX):
        piece = frame[start : start + PACKET_BYTES_MAX]
        more = _MORE if start + PACKET_BYTES_MAX < length else 0
        pieces.append(_HEADER.pack(len(piece), channel | more) + piece)
    return pieces


class PacketReader:
    """Bytes of one link in, whole frames out. Bounded by `frame_bytes_max`."""

    __slots__ = ("_buffer", "_parts", "_sizes", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int) -> None:
        """Frames longer than `frame_bytes_max` are refused before they are stored."""
        self.frame_bytes_max = frame_bytes_max
        self._buffer = b""
        self._parts: tuple[list[bytes], list[bytes]] = ([], [])
        self._sizes = [0, 0]

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete. Raises PeerProtocolError for bytes that are no packets."""
        if self._buffer:
            data = self._buffer + data
        frames: list[bytes] = []
        position, end = 0, len(data)
        while end - position >= _HEADER_BYTES:
            length, flags = _HEADER.unpack_from(data, position)
            # An empty piece of a longer frame would cost memory that no bound counts.
            if length > PACKET_BYTES_MAX or flags > 3 or (not length and flags & _MORE):
                msg = "bad packet header"
                raise PeerProtocolError(msg)
            start = position + _HEADER_BYTES
            if start + length > end:
                break
            position = start + length
            channel = flags >> 1
            parts = self._parts[channel]
            if flags & _MORE or parts:
                frame = self._join(data[start:position], channel, more=bool(flags & _MORE))
                if frame is not None:
                    frames.append(frame)
            else:
                frames.append(data[start:position])
        self._buffer = data[position:] if position else data
        return frames

    def _join(self, piece: bytes, channel: int, *, more: bool) -> bytes | None:
        parts = self._parts[channel]
        parts.append(piece)
        self._sizes[channel] += len(piece)
        if self._sizes[channel] > self.frame_bytes_max:
            msg = "frame too long"
            raise PeerProtocolError(msg)
        if more:
            return None
        frame = b"".join(parts)
        parts.clear()
        self._sizes[channel] = 0
        return frame
