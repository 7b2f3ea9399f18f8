"""A peer that has proved who it is, and sends nonsense: its link is closed, or it is answered with an error; nobody stops."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respkv.config import cluster_value
from respkv.transport import frames
from tests.commands.node_alone import World

ODD: list[Any] = [None, True, -1, 0, 1, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5, "", "x" * 300, b"", b"\x00", b"\xff" * 17, b"\x02" * 18]
ODD += [
    b"\x00" * 16 + b"\x03s" + b"\xff" * 20,
    b"\x00" * 16 + b"\x07?" + b"v",
    b"\xff" * 16 + b"\x01sv",
    b"-x",
    b":x\r\n",
    b"+",
    [],
    [[]],
    {"r": 1},
]
LIAR = 2


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """(container, place) of everything in a decoded message."""
    found: list[tuple[Any, Any]] = []
    places = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for place in places:
        found.append((value, place))
        found += leaves(value[place])
    return found


def spoilt(body: bytes, rng: random.Random) -> bytes:
    """Something that is nearly a body."""
    choice = rng.randrange(4)
    if choice == 0:
        return body[: rng.randrange(len(body) + 1)]
    if choice == 1:
        place = rng.randrange(len(body) + 1)
        return body[:place] + bytes((rng.randrange(256),)) + body[place + 1 :]
    if choice == 2:
        odd = rng.choice(ODD)
        return odd if isinstance(odd, bytes) else msgspec.msgpack.encode(odd)
    return respelled(body, rng)


def respelled(body: bytes, rng: random.Random) -> bytes:
    """The same message with one of its parts replaced, dropped or repeated. Messages travel inside of messages."""
    try:
        message = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body + b"\xc0"
    places = leaves(message)
    if not places:
        return msgspec.msgpack.encode([message])
    container, place = rng.choice(places)
    part = container[place]
    match rng.randrange(5):
        case 0 if isinstance(container, list):
            del container[place]
        case 1 if isinstance(container, list):
            container.insert(place, part)
        case 2 if isinstance(part, bytes):
            container[place] = spoilt(part, rng)
        case 3 if isinstance(part, int):
            container[place] = part + rng.choice((-1, 1, 1 << 16, 1 << 40))
        case _:
            container[place] = rng.choice(ODD)
    return msgspec.msgpack.encode(message)


class LyingWorld(World):
    """A world in which what one node tells the first one is spoilt on the way."""

    rng: random.Random | None = None

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        if self.rng is not None and source == self.addresses[LIAR].node and target == self.addresses[0].node:
            frame = self._spoil(frame, self.rng)
        super().deliver(source, target, frame)

    @staticmethod
    def _spoil(frame: bytes, rng: random.Random) -> bytes:
        header, parts = frame[: frames.HEADER_BYTES], list(frames.sections(frame))
        if rng.randrange(10) == 0:
            return spoilt(frame, rng)
        if rng.randrange(2):
            place = rng.randrange(len(parts))
            kind, sequence, body = parts[place]
            if rng.randrange(10) == 0:
                kind = rng.randrange(20)
            parts[place] = kind, sequence, spoilt(body, rng)
        return header + b"".join(frames.pack_section(kind, sequence, body) for kind, sequence, body in parts)


COMMANDS = [
    "SET k{n} v",
    "GET k{n}",
    "MSET k1 v k2 v k3 v k4 v",
    "MGET k1 k2 k3 k4 k5",
    "INCR c{n}",
    "SET s{n} v",
    "GET s{n}",
    "DEL s{n}",
    "APPEND s{n} v",
    "RESPKV SIBLINGS s{n}",
    "RESPKV VERSION s{n}",
    "DEL k{n} c{n}",
    "SET k{n} v PX 50",
    "DBSIZE",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "RESPKV KEY k{n}",
    "RESPKV STATUS",
    "RESPKV REPAIR",
    "RESPKV REPAIR STATUS",
    "CLUSTER NODES",
    "CLUSTER COUNTKEYSINSLOT 1",
    "CONFIG SET speculative-retry 4{n}",
    "FLUSHALL",
    "INFO",
    "RESPKV REPAIR",
]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_no_nonsense_of_a_peer_stops_a_node(seed: int) -> None:
    rng = random.Random(seed)
    world = LyingWorld(3, conflict_resolution_prefix="s siblings")
    first, other, liar = (world.client(index) for index in range(3))
    world.rng = rng
    for _ in range(40):
        client = rng.choice((first, first, other, liar))
        client(*rng.choice(COMMANDS).format(n=rng.randrange(9)).split())
        if rng.randrange(8) == 0:
            world.advance(1.0)
    world.rng = None
    world.advance(10.0)
    node = world.processes[0].node
    assert [text for _, text in world.processes[0].events if "internal error" in text] == []
    assert node.statistics.internal_errors_total == 0
    assert first("SET", "k", "after") == b"OK"
    assert first("GET", "k") == b"after"


class ListeningWorld(World):
    """A world that keeps what calls were answered with."""

    def __init__(self, count: int) -> None:
        self.results: list[bytes] = []
        super().__init__(count)

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        self.results += [body for kind, sequence, body in frames.sections(frame) if (kind, sequence) == (frames.RESULT, ASKED)]
        super().deliver(source, target, frame)


KEY = b"k"
FAR = (1 << 63).to_bytes(8)
NO_RECORDS = {
    "shorter than its header": b"\x00" * 17,
    "of an unknown form": bytes(16) + b"\x09s",
    "of an unknown type": bytes(16) + b"\x01?v",
    "a tombstone with a value": bytes(16) + b"\x00\x00v",
    "an expiry cut off": bytes(16) + b"\x02s" + bytes(10),
    "an expiry without its mark": bytes(16) + b"\x02s" + bytes(16) + b"\x07v",
    "siblings of the wrong lengths": bytes(16) + b"\x03s" + bytes(16) + b"\x00\x01\x00\x05",
    "of the far future": FAR + bytes(8) + b"\x01sv",
    "with an expiry of the far future": bytes(16) + b"\x02s" + FAR + bytes(8) + b"\x01v",
}


def feed(world: World, kind: int, body: bytes, *, sequence: int = 1) -> bool:
    """Send the first node one section of the second. Returns whether the link was closed for it."""
    process, peer = world.processes[0], world.processes[1].address.node
    node = process.node
    before = len(process.turned_away)
    header = frames.pack_header(node.clock.last, node.cluster.ring.epoch, node.cluster.value_mark)
    world.deliver(peer, process.address.node, header + frames.pack_section(kind, sequence, body))
    process.turn()
    closed = process.turned_away[before:]
    assert closed in ([], [peer])
    assert bool(closed) == (bool(process.events) and process.events[-1][1].startswith("closing the link from"))
    process.events.clear()
    return bool(closed)


@pytest.mark.parametrize("record", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record_comes_in_nowhere(record: bytes) -> None:
    world = World(3)
    node = world.processes[0].node
    client = world.client()
    body = msgspec.msgpack.encode([KEY, record])
    owner = frames.pack_owners((world.addresses[2].node,))
    assert feed(world, frames.WRITE, body)
    assert feed(world, frames.REPAIR, body)
    assert feed(world, frames.STAND_IN, owner + body)
    assert feed(world, frames.RECORDS, msgspec.msgpack.encode([b"", record]))
    assert not any(node.store.shards)
    assert node.hints.count() == 0
    assert client("SET", KEY, "v") == b"OK"
    assert client("GET", KEY) == b"v"


def test_whole_frames_are_no_reason() -> None:
    world = World(3)
    record = bytes(16) + b"\x01sv"
    body = msgspec.msgpack.encode([KEY, record])
    assert not feed(world, frames.WRITE, body)
    assert not feed(world, frames.STAND_IN, frames.pack_owners((world.addresses[2].node,)) + body)
    assert not feed(world, frames.RECORDS, msgspec.msgpack.encode([b"", record]))


@pytest.mark.parametrize("owner", ["ab" * 20, None], ids=["a stranger", "the node itself"])
def test_nobody_stands_in_for(owner: str | None) -> None:
    world = World(3)
    owners = frames.pack_owners((owner or world.addresses[0].node,))
    assert feed(world, frames.STAND_IN, owners + msgspec.msgpack.encode([KEY, bytes(16) + b"\x01sv"]))


def test_a_value_of_the_far_future_is_not_adopted() -> None:
    world = World(3)
    node = world.processes[0].node
    for changed in ({"stamp": 1 << 63}, {"flush_floor": 1 << 63}):
        value = msgspec.structs.replace(node.cluster.value, **changed)
        assert feed(world, frames.CLUSTER_VALUE, cluster_value.encode(value))
    assert node.clock.last >> 16 <= world.wall_ms


ASKED = 99
KEYS = [b"k%d" % number for number in range(100)]
CALLS = {
    "a hash below nothing": ("scan", [[[0, -1]], 10, None, -1]),
    "partitions that are none": ("count", [-1, 5000]),
    "more partitions than there are": ("count", [0] * 5000),
    "a position nowhere": ("rows", [-5000, 0]),
    "no arguments": ("command", []),
    "a command of nothing": ("command", [2, None, []]),
    "a command that is not passed on": ("command", [2, None, [b"SHUTDOWN"]]),
    "a value that is none": ("value", 5),
    "roots of nothing": ("tree-roots", [1]),
    "leaves of partitions nowhere": ("tree-leaves", [0, 5000]),
    "leaves of too many partitions": ("tree-leaves", [0] * 5000),
    "keys of a leaf nowhere": ("tree-keys", [[0, -1]]),
    "keys of no leaf": ("tree-keys", []),
    "a record that is none, to be settled": ("tree-meet", [["k", "no record", 0]]),
    "remains of several lengths": ("reap-look", [1, 3, [b"k"], [], [1]]),
    "remains of the far future": ("reap", [1, 3, b"\xff" * 8, [b"k"], [1], [1]]),
    "a repair of nothing": ("repair", ["all"]),
    "what is no call, to be waited for": ("waits", [1]),
}


@pytest.mark.parametrize(("name", "argument"), CALLS.values(), ids=CALLS)
def test_a_malformed_call_is_answered_with_an_error(name: str, argument: object) -> None:
    world = ListeningWorld(3)
    process = world.processes[0]
    # A command that comes after a silence makes this node ask whether anybody still waits for it. Now there was one.
    world.client(1)("INCR", next(key for key in KEYS if world.processes[1].node.coordinator.primary_of(key) == process.address.node))
    assert not feed(world, frames.REQUEST, msgspec.msgpack.encode([name.encode(), msgspec.msgpack.encode(argument)]), sequence=ASKED)
    world.settle()
    assert [answer[:4] for answer in world.results] == [b"-ERR"]
    assert process.node.statistics.internal_errors_total == 0
    assert process.stopped is None


def test_a_ring_that_is_none_is_not_adopted() -> None:
    world = World(3)
    ring = world.ring
    for owners in ((9, *ring.owners[1:]), ring.owners[1:], (-1, *ring.owners[1:])):
        assert feed(world, frames.RING, msgspec.msgpack.encode([7, ring.members, owners]))
    assert feed(world, frames.RING, b"\x93\x07\x91\x92\xa1\xff\xa0\x90")
    assert world.processes[0].node.cluster.ring == ring
