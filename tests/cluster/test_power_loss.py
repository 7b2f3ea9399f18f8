"""Processes that die at any moment, and disks that forget, tear or spoil what was written: nothing durable goes missing unnoticed."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from respkv.storage.log_format import SEGMENT_HEADER_BYTES, SegmentHeader
from respkv.storage.mark import read_mark
from tests.cluster.crashing_node import EXIT_AT_POINT
from tests.cluster.harness import Cluster, NodeProcess, running_cluster, wait_until
from tests.cluster.load import Load
from tests.cluster.wire import is_error

pytestmark = pytest.mark.cluster

# Small, so that freezes, flushes and deletions of segments happen all the time.
SMALL_SEGMENTS = ["--memtable-size", "1mb", "--commit-log-segment-size", "1mb"]
POINTS = ["after_append", "after_rotate", "after_batch", "after_flush", "before_drop", "after_drop", "after_sync"]
BIG_VALUE = 2000


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("five"), count=5, directives=SMALL_SEGMENTS) as found:
        yield found


@pytest.fixture(scope="module")
def three_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directives = ["--appendfsync", "always"]
    with running_cluster(tmp_path_factory.mktemp("three"), count=3, directives=directives) as found:
        yield found


@pytest.fixture
def three(three_of_the_module: Cluster) -> Cluster:
    """Every acknowledged write is on the disk of two nodes of three."""
    three_of_the_module.start()
    three_of_the_module.wait_settled()
    return three_of_the_module


def test_all_nodes_killed_at_once_lose_no_acknowledged_write(five: Cluster) -> None:
    """What a process has written survives it; and what one node alone was told finds its way to the others."""
    loads = []
    for round_number in range(2):
        load = Load(five.nodes, writers_count=5, name=f"round{round_number}-", value_bytes=BIG_VALUE, pause_s=0.0)
        loads.append(load)
        with load:
            load.wait_more(1500)
            five.kill_all()
        five.start()
        five.wait_settled()
        for each in loads:
            each.check_replicas(five)


@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_dies_at_a_point_of_its_work_on_the_disk(five: Cluster, point: str) -> None:
    """Between log append, freeze, flush and the deletion of segments: it comes back with all that it had acknowledged."""
    victim = five[4]
    plain = victim.entry
    victim.kill()
    victim.entry = ("-m", "tests.cluster.crashing_node", point, "200" if point == "after_append" else "1")
    try:
        victim.start()
        with Load(five.nodes[:4], name=f"{point}-", value_bytes=BIG_VALUE, pause_s=0.0) as load:
            assert victim.wait_ended() == EXIT_AT_POINT
            load.wait_more(100)
            victim.entry = plain
            five.start()
            load.stop()
    finally:
        victim.entry = plain
    assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
    five.wait_settled()
    load.check_replicas(five)
    assert five[4].info("respkv")["respkv_damages"] == "0"


def segments_of(node: NodeProcess) -> list[Path]:
    return sorted((node.folder / "log").glob("log-*.seg"))


def durable_end(node: NodeProcess) -> tuple[Path, int]:
    """The segment that the durable mark lies in, and the mark's place in it."""
    reading = read_mark(node.folder / "log")
    assert reading is not None
    for path in reversed(segments_of(node)):
        header = SegmentHeader.unpack(path.read_bytes()[:SEGMENT_HEADER_BYTES])
        if header.first_position <= reading.mark.position:
            return path, SEGMENT_HEADER_BYTES + reading.mark.position - header.first_position
    raise AssertionError("the mark lies in no segment")


def spoil_tail(node: NodeProcess, how: str, rng: random.Random) -> None:
    """Do to the bytes behind the mark what a power cut may do: some blocks were written, others not, and not in order."""
    path, offset = durable_end(node)
    content = path.read_bytes()
    # Half a record was under way, at least.
    tail = content[offset:] + rng.randbytes(300)
    match how:
        case "cut":
            tail = tail[: rng.randrange(len(tail))] + b"\xc9"
        case "zeroed":
            tail = bytes(len(tail))
        case "scrambled":
            tail = rng.randbytes(len(tail))
        case _:
            raise AssertionError(how)
    path.write_bytes(content[:offset] + tail)


def test_a_torn_tail_costs_nothing_that_was_synced(three: Cluster) -> None:
    rng = random.Random(7)
    loads = []
    for turn in range(3):
        load = Load(three.nodes, name=f"torn{turn}-", value_bytes=200, pause_s=0.0)
        loads.append(load)
        with load:
            load.wait_more(200)
            three.kill_all()
        for node, how in zip(three.nodes, rng.sample(["cut", "zeroed", "scrambled"], 3), strict=True):
            spoil_tail(node, how, rng)
        three.start()
        for node in three.nodes:
            assert node.log().count("the log's tail was torn and is cut") == turn + 1, node.log_tail()
            assert node.info("respkv")["respkv_damages"] == "0"
        three.wait_settled()
        for each in loads:
            each.check_replicas(three)


def spoil(path: Path, offset: int, count: int = 50) -> None:
    """Flip some bytes of a file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(byte ^ 0x5A for byte in content[offset : offset + count])
    path.write_bytes(content)


def test_damage_before_the_mark_is_repaired_before_the_node_votes(three: Cluster) -> None:
    """Reported, a new actor, copied from the other replicas; until then neither its acknowledgements nor its answers count."""
    damaged, other, third = three.nodes
    with Load(three.nodes, name="damage", value_bytes=200) as load:
        load.wait_more(500)
        load.stop()
    three.wait_settled()
    actor = damaged.info("respkv")["respkv_actor"]
    three.kill_all()
    path, end = durable_end(damaged)
    spoil(path, end // 2)
    damaged.start()
    other.start()
    wait_until("it answers", lambda: damaged.ask("PING") == b"PONG")
    for node in (damaged, other):
        wait_until("they see each other", lambda node=node: node.info("respkv")["respkv_nodes_up"] == "2")  # type: ignore[misc]
    wait_until("it is known not to count", lambda: other.info("respkv")["respkv_nodes_counting"] == "1")
    assert "durable data is missing or damaged" in damaged.log()
    assert damaged.info("respkv")["respkv_damages"] == "1"
    assert damaged.info("respkv")["respkv_rebuilding"] == "1"
    assert damaged.info("respkv")["respkv_actor"] != actor
    # Two nodes are up, one counts: less than a quorum, whoever is asked. It takes the third node to know what was lost.
    for node in (damaged, other):
        assert node.info("respkv")["respkv_nodes_counting"] == "1"
        assert is_error(node.ask("GET", "damage0:0"), "NOQUORUM")
        assert is_error(node.ask("SET", "damage0:0", "x"), "NOQUORUM")
    third.start()
    three.wait_ready()
    three.wait_settled()
    load.check_replicas(three)
    # It has set aside what was left and copied all of it: what was found stays known, and the reason is the right one.
    wait_until("it was rebuilt for the damage", lambda: "its data was damaged, and others have all of it" in damaged.log())
    assert "away for too long" not in damaged.log()
    wait_until("it is complete", lambda: damaged.info("respkv").get("respkv_rebuilding") == "0")
    assert damaged.info("respkv")["respkv_damages"] == "1"
    # A further start has nothing to report, and forgets nothing either, until an operator has taken note.
    three.kill_all()
    three.start()
    assert damaged.log().count("durable data is missing or damaged") == 1
    assert damaged.info("respkv")["respkv_damages"] == "1"
    assert damaged.ask("CONFIG", "RESETSTAT") == b"OK"
    assert damaged.info("respkv")["respkv_damages"] == "0"
    wait_until("that is on the disk", lambda: (damaged.folder / "state" / "damages").read_bytes().endswith(b"\n"))
    three.kill_all()
    three.start()
    assert damaged.info("respkv")["respkv_damages"] == "0"


def test_what_a_node_has_lost_it_does_not_call_missing(three: Cluster) -> None:
    """Two nodes acknowledged writes that the third never saw; one of the two loses them, the other is away.

    Nobody who is up has them, so nobody may say that they do not exist: from its first moment on, and whomever one asks.
    """
    damaged, ignorant, away = three.nodes
    ignorant.kill()
    three.wait_seen_down(ignorant)
    keys = [b"lost:%d" % index for index in range(100)]
    with damaged.connect() as wire:
        assert set(wire.ask_all([("SET", key, "x" * 100) for key in keys])) == {b"OK"}
    three.kill_all()
    path, end = durable_end(damaged)
    spoil(path, end - 8000, 7000)
    damaged.start()
    ignorant.start()
    with contextlib.ExitStack() as stack:
        for node in (damaged, ignorant):
            wait_until("it listens", lambda node=node: node.ask("PING"))  # type: ignore[misc]
        wires = [stack.enter_context(node.connect()) for node in (damaged, ignorant)]
        asked = 0
        while asked < 5000 or damaged.info("respkv")["respkv_nodes_up"] == "1":
            replies = [reply for wire in wires for reply in wire.ask_all([("GET", key) for key in keys])]
            assert None not in replies
            asked += len(replies)
    away.start()
    three.wait_ready()
    three.wait_settled()
    assert {value for held in three.holdings(keys).values() for value in held} == {b"x" * 100}


def test_a_node_that_is_killed_while_it_copies_what_was_damaged_still_says_why_it_does(three: Cluster) -> None:
    three.kill_all()
    damaged = three.nodes[0]
    spoil(damaged.folder / "state" / "node-id", 40)
    log_length = len(damaged.log())
    for _ in range(2):
        # Alone it does not come to an end.
        damaged.start()
        wait_until("it answers", lambda: damaged.ask("PING") == b"PONG")
        damaged.kill()
    told = damaged.log()[log_length:]
    assert told.count("durable data is missing or damaged: state/node-id fails its checksum") == 1
    assert told.count("counting until it is done: an earlier start found damage") == 1
    assert "this node is new" not in told
    three.start()


@pytest.mark.parametrize("name", ["mark", "a segment", "all of the log", "the tables' list", "a table", "all tables", "a small file"])
def test_whatever_file_is_spoiled_or_gone_no_key_is_missing_unnoticed(five: Cluster, name: str) -> None:
    """A node may refuse to go on with a damaged file once; in the end it says so, and has again all that it should have."""
    five.start()
    five.wait_settled()
    with Load(five.nodes[:4], name=f"{name.replace(' ', '-')}-", value_bytes=BIG_VALUE, pause_s=0.0) as load:
        load.wait_more(1500)
        load.stop()
    five.wait_settled()
    node = five[4]
    wait_until("its tables have been written", lambda: int(node.info("respkv")["respkv_disk_flushes_total"]) > 0)
    node.kill()
    log_length = len(node.log())
    tables = sorted((node.folder / "tables").glob("*.sst"))
    match name:
        case "mark":
            (node.folder / "log" / "mark").unlink()
        case "a segment":
            segments_of(node)[0].unlink()
        case "all of the log":
            for path in (node.folder / "log").iterdir():
                path.unlink()
        case "the tables' list":
            (node.folder / "tables" / "CURRENT").unlink()
        case "a table":
            spoil(tables[0], os.path.getsize(tables[0]) // 3, 2000)  # noqa: PTH202
        case "all tables":
            for path in tables:
                path.unlink()
        case "a small file":
            spoil(node.folder / "state" / "ring", 100)
        case _:
            raise AssertionError(name)
    for _ in range(3):
        node.start()
        wait_until("it serves or has given up", lambda: not node.is_running or node.ask("PING") == b"PONG")
        if node.is_running:
            break
    five.wait_ready()
    said = node.log()[log_length:]
    assert "damaged" in said or "missing" in said, node.log_tail()
    assert "complete: " in said, node.log_tail()
    five.wait_settled()
    load.check_replicas(five)
    keys = five[0].ask("KEYS", "*")
    own = sum(node in five.preference_list(key)[:3] for key in keys)
    wait_until("it has all its keys", lambda: next(int(each["keys"]) for each in node.status()["nodes"] if each["id"] == node.id) == own)
