"""A disk that does not keep up: memory has an end all the same, and clients and peers hear why."""

from __future__ import annotations

import msgspec

from respkv.server import turns
from respkv.storage import parking
from respkv.storage.freeze import Freeze
from respkv.transport import frames
from respkv.versions import records
from tests.commands.node_alone import Process, World

VALUE = b"x" * 100_000


def hang(process: Process) -> list[Freeze]:
    """From now on freezes do not end; returns those that have begun."""
    begun: list[Freeze] = []
    disk = process._disk

    def obey(out: turns.Departures) -> None:
        if out.freeze is not None:
            begun.append(out.freeze)
            out.freeze = None
        disk(out)

    process._disk = obey  # type: ignore[method-assign]
    return begun


def test_writes_are_refused_while_a_freeze_does_not_end_and_memory_is_far_beyond_its_bound() -> None:
    world = World(1, maxmemory="16mb", memtable_size="1mb")
    process, client = world.processes[0], world.client()
    begun = hang(process)
    replies = [client("SET", f"k{number}", VALUE) for number in range(1000)]
    node = process.node
    assert node.store.used_bytes < (16 + 64 + 1) << 20
    assert replies[:800] == [b"OK"] * 800
    assert all(str(reply).startswith("BUSY the disk is stalled") for reply in replies[-100:])
    assert "the disk is stalled" in client("INFO", "respkv").decode()
    assert client("GET", "k1") == VALUE
    # It takes all that it owes, and what came since.
    process.arrivals.append((turns.FLUSHED, begun[0].number))
    world.advance(0.1)
    process.arrivals.append((turns.FLUSHED, begun[1].number))
    world.advance(0.1)
    assert client("SET", "k", "v") == b"OK"
    assert [text for level, text in process.events if level == "warning"][-1] == "writes are stored again: the disk has room, and keeps up"


def test_a_full_disk_is_given_at_once_what_was_deleted() -> None:
    """Deletions make room when they are in the tables, and nobody can write until there is room."""
    world = World(1)
    process, client = world.processes[0], world.client()
    begun = hang(process)
    assert client("SET", "k", VALUE) == b"OK"
    assert client("DEL", "k") == 1
    assert not begun
    process.arrivals.append((turns.PRESSURE, 0, False))
    world.advance(0.1)
    assert len(begun) == 1
    process.arrivals.append((turns.FLUSHED, begun[0].number))
    process.arrivals.append((turns.PRESSURE, 0, False))
    world.advance(0.1)
    assert len(begun) == 1


def test_every_node_knows_who_takes_no_writes() -> None:
    world = World(3)
    world.processes[0].arrivals.append((turns.PRESSURE, 0, False))
    world.advance(3.0)
    told = msgspec.json.decode(world.client(2)("RESPKV", "STATUS"))
    assert sorted(node["refuses_writes"] for node in told["nodes"]) == ["", "", "the disk is nearly full (min-free-disk)"]
    world.processes[0].arrivals.append((turns.PRESSURE, 1 << 40, False))
    world.advance(3.0)
    told = msgspec.json.decode(world.client(2)("RESPKV", "STATUS"))
    assert [node["refuses_writes"] for node in told["nodes"]] == ["", "", ""]


def test_a_repair_tells_that_a_node_has_no_room() -> None:
    world = World(3)
    process, client = world.processes[0], world.client()
    process.arrivals.append((turns.PRESSURE, 0, False))
    world.advance(3.0)
    client("RESPKV", "REPAIR")
    world.advance(3.0)
    told = msgspec.json.decode(client("RESPKV", "REPAIR", "STATUS"))
    assert told["total"]["failures"]
    for failure in told["total"]["failures"]:
        assert failure.endswith(f"{process.node.me[:8]} stores no writes: the disk is nearly full (min-free-disk)")


def test_a_little_memory_is_no_reason_to_refuse_what_has_to_be_in_it() -> None:
    world = World(1, maxmemory="1mb", memtable_size="1mb")
    client = world.client()
    hang(world.processes[0])
    assert [client("SET", f"k{number}", VALUE) for number in range(600)] == [b"OK"] * 600


def flood(world: World, count: int, *, size: int) -> None:
    """Writes of a peer, to cold keys of a node whose disk gives nothing back."""
    process = world.processes[0]
    peer = world.addresses[1].node
    node = process.node
    header = frames.pack_header(node.clock.last, node.cluster.ring.epoch, node.cluster.value_mark)
    for number in range(count):
        record = records.string(b"x" * size, stamp=node.clock.last, actor=bytes(8))
        body = msgspec.msgpack.encode([b"key%d" % number, record])
        process.arrivals.append((turns.PEER_FRAME, peer, header + frames.pack_section(frames.WRITE, number + 1, body)))
        if number % 100 == 0:
            process.turn()
    process.turn()


def test_requests_that_wait_for_the_disk_have_an_end() -> None:
    world = World(3, maxmemory="4mb")
    process = world.processes[0]
    node = process.node
    node.store.resident = False
    loads: list[tuple[int, list[tuple[int, bytes]]]] = []
    disk = process._disk

    def obey(out: turns.Departures) -> None:
        loads.extend(out.loads)
        out.loads = []
        disk(out)

    process._disk = obey  # type: ignore[method-assign]
    flood(world, 8000, size=10_000)
    assert parking.BYTES_MAX <= node.parking.bytes_waiting < parking.BYTES_MAX + 20_000
    assert node.replica.records_refused_total > 1000
    client = world.client()
    assert str(client("GET", "cold")).startswith("BUSY too many requests wait for the disk")
    told = client("INFO", "respkv").decode()
    assert f"respkv_loads_waiting_bytes:{node.parking.bytes_waiting}\r\n" in told
    assert f"respkv_loads_waiting_keys:{node.parking.keys_waiting}\r\n" in told
    # The disk is back.
    process._disk = disk  # type: ignore[method-assign]
    process.arrivals += [(turns.LOADED, token, [None] * len(wanted)) for token, wanted in loads]
    world.advance(0.1)
    assert (len(node.parking), node.parking.keys_waiting, node.parking.bytes_waiting) == (0, 0, 0)
    assert client("GET", "cold") is None
