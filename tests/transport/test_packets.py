"""Packets: frames come out as they went in, however the bytes are cut; nothing else gets memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import PeerProtocolError
from respkv.transport.packets import PACKET_BYTES_MAX, PacketReader, cut

FRAME_BYTES_MAX = 1 << 20


@given(frames=st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8), sizes=st.lists(st.integers(1, 400), min_size=1))
def test_frames_survive_any_cutting(frames: list[tuple[bytes, bool]], sizes: list[int]) -> None:
    stream = b"".join(packet for frame, control in frames for packet in cut(frame, control=control))
    reader = PacketReader(FRAME_BYTES_MAX)
    found = []
    position = turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        found += reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == [frame for frame, _ in frames]


@pytest.mark.parametrize(
    "length", [0, 1, PACKET_BYTES_MAX - 1, PACKET_BYTES_MAX, PACKET_BYTES_MAX + 1, 3 * PACKET_BYTES_MAX, 3 * PACKET_BYTES_MAX + 7]
)
def test_long_frames_are_cut_and_joined(length: int) -> None:
    frame = bytes(range(256)) * (length // 256 + 1)
    frame = frame[:length]
    packets = cut(frame)
    assert all(len(packet) <= PACKET_BYTES_MAX + 5 for packet in packets)
    assert len(packets) == max(1, -(-length // PACKET_BYTES_MAX))
    assert PacketReader(FRAME_BYTES_MAX).feed(b"".join(packets)) == [frame]


def test_gossip_overtakes_the_pieces_of_a_long_frame() -> None:
    long = b"x" * (3 * PACKET_BYTES_MAX)
    first, second, third = cut(long)
    (gossip,) = cut(b"heartbeat", control=True)
    assert PacketReader(FRAME_BYTES_MAX).feed(first + gossip + second + gossip + third) == [b"heartbeat", b"heartbeat", long]


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xff\xff\xff\x00",
        b"\x80\x00\x00\x00\x01",
        (PACKET_BYTES_MAX + 1).to_bytes(4) + b"\x00",
        b"\x00\x00\x00\x01\x04",
        b"\x00\x00\x00\x01\xff",
        b"\x00\x00\x00\x00\x01",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_packet_is_refused_before_anything_is_stored(header: bytes) -> None:
    reader = PacketReader(FRAME_BYTES_MAX)
    tracemalloc.start()
    try:
        with pytest.raises(PeerProtocolError):
            reader.feed(header)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_frame_above_the_bound_is_refused() -> None:
    reader = PacketReader(3 * PACKET_BYTES_MAX)
    packets = cut(b"x" * (3 * PACKET_BYTES_MAX + 1))
    for packet in packets[:-1]:
        assert reader.feed(packet) == []
    with pytest.raises(PeerProtocolError, match="frame too long"):
        reader.feed(packets[-1])


@given(st.binary(max_size=2000))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    reader = PacketReader(FRAME_BYTES_MAX)
    try:
        frames = reader.feed(data)
    except PeerProtocolError:
        return
    assert sum(map(len, frames)) <= len(data)
