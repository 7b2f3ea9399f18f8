"""Frames: a header and sections, read back exactly or refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import PeerProtocolError
from respkv.transport import frames
from respkv.transport.turn import SEQUENCE_MODULUS, Turn

SECTIONS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=100)), max_size=6)
NODES = st.lists(st.binary(min_size=20, max_size=20).map(bytes.hex), max_size=5)


def read(frame: bytes) -> list[frames.Section]:
    frames.unpack_header(frame)
    return list(frames.sections(frame))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), SECTIONS)
def test_a_frame_is_read_back(clock: int, epoch: int, mark: int, sections: list[tuple[int, int, bytes]]) -> None:
    frame = frames.pack_header(clock, epoch, mark) + b"".join(frames.pack_section(*section) for section in sections)
    assert frames.unpack_header(frame) == (clock, epoch, mark)
    assert list(frames.sections(frame)) == sections


@given(SECTIONS.filter(bool), st.data())
def test_a_frame_that_was_cut_is_refused(sections: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    packed = [frames.pack_section(*section) for section in sections]
    whole = frames.pack_header(1, 2, 3) + b"".join(packed)
    ends = {frames.HEADER_BYTES + sum(map(len, packed[:count])) for count in range(len(packed) + 1)}
    end = data.draw(st.integers(0, len(whole)).filter(lambda place: place not in ends))
    with pytest.raises(PeerProtocolError):
        read(whole[:end])


@given(st.binary(max_size=200))
def test_any_bytes_are_sections_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except PeerProtocolError:
        return
    assert frames.HEADER_BYTES + sum(9 + len(body) for _, _, body in found) == len(data)


def test_a_section_of_four_gigabytes_that_is_not_there_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="truncated section"):
        list(frames.sections(frames.pack_header(1, 1, 1) + struct.pack(">BII", frames.WRITE, 2**32 - 1, 1)))


@given(NODES, st.binary(max_size=50))
def test_owners_are_read_back(owners: list[str], rest: bytes) -> None:
    assert frames.unpack_owners(frames.pack_owners(tuple(owners)) + rest) == (owners, rest)


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x01" + b"x" * 19, b"\xff" + b"x" * 20])
def test_owners_that_are_not_there_are_refused(body: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        frames.unpack_owners(body)


def test_sequences_begin_anew_within_four_bytes() -> None:
    turn = Turn()
    turn.sequence = SEQUENCE_MODULUS - 2
    assert turn.next_sequence() == SEQUENCE_MODULUS - 1
    assert turn.next_sequence() == 0


def test_what_waits_for_the_log_runs_in_order_and_only_up_to_what_is_durable() -> None:
    turn = Turn()
    done: list[str] = []
    turn.when_logged(lambda: done.append("everysec"))
    assert done == ["everysec"]
    turn.sync_each_turn = True
    for number, name in ((1, "a"), (1, "b"), (2, "c"), (4, "d")):
        turn.number = number
        turn.when_logged(lambda name=name: done.append(name))  # type: ignore[misc]
    turn.durable(1)
    assert done[1:] == ["a", "b"]
    turn.durable(3)
    assert done[1:] == ["a", "b", "c"]
    turn.durable(9)
    assert done[1:] == ["a", "b", "c", "d"]
