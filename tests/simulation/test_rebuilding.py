"""What a node says that it has copied, it has: whatever happens to it next."""

from __future__ import annotations

import pytest

from respkv.server import copying
from respkv.server.copying import PIECE_ROWS
from respkv.server.rebuild import MARKER_FILE
from respkv.simulation.copies import check_copies
from respkv.simulation.process import Process
from tests.simulation.scene import Scene

KEYS = [f"k{number}" for number in range(600)]


def emptied(*, appendfsync: str = "everysec", **scenario: object) -> tuple[Scene, Process]:
    """Three nodes that have all keys, one of which has lost everything and begins to copy. Whoever is read answers alone."""
    directives = {"anti-entropy-interval": "0", "write-quorum": "all", "read-quorum": "one", "maxmemory": "100mb"}
    scene = Scene(nodes=3, directives={**directives, "appendfsync": appendfsync}, **scenario)
    for start in range(0, len(KEYS), 50):
        assert scene.ask(0, *(f"SET {key} v" for key in KEYS[start : start + 50])) == [b"OK"] * 50
    scene.run(3.0)
    scene.wait_for_rest()
    process = scene.process(1)
    process.kill(wiped=True)
    scene.run(1.0)
    process.restart()
    return scene, process


def run_until_complete(scene: Scene, process: Process) -> None:
    end = scene.world.schedule.now + 20.0
    while MARKER_FILE not in process.disk.files:
        assert scene.world.schedule.now < end
        scene.run(0.0002)


def answers(scene: Scene) -> list[object]:
    return [scene.ask(1, f"GET {key}") for key in KEYS[::7]]


@pytest.mark.parametrize("appendfsync", ["always", "everysec", "no"])
def test_a_power_cut_takes_nothing_from_a_node_that_has_just_been_rebuilt(appendfsync: str) -> None:
    scene, process = emptied(appendfsync=appendfsync)
    run_until_complete(scene, process)
    process.kill(power_lost=True)
    scene.run(1.0)
    process.restart()
    scene.run(3.0)
    assert answers(scene) == [[b"v"]] * len(KEYS[::7])


def test_what_is_merged_once_the_tables_have_told_is_waited_for() -> None:
    scene, process = emptied(read_s=(0.4, 0.4))
    # As once `maxmemory` has made it let go of something.
    scene.node(1).store.resident = False
    run_until_complete(scene, process)
    process.kill()
    scene.run(1.0)
    process.restart()
    scene.run(3.0)
    assert answers(scene) == [[b"v"]] * len(KEYS[::7])


def test_a_node_whose_disk_is_nearly_full_copies_nothing() -> None:
    scene, process = emptied()

    def run(seconds: float, *, free_bytes: int) -> int:
        for _ in range(round(seconds / 0.1)):
            process.press(free_bytes=free_bytes)
            scene.run(0.1)
        return len(process.disk.log)

    run(0.1, free_bytes=1000)
    assert scene.node(1).replica.writes_disabled
    count = run(1.0, free_bytes=1000)
    assert run(5.0, free_bytes=1000) - count < 10
    assert scene.node(1).rebuild.needed
    run(5.0, free_bytes=1 << 40)
    assert not scene.node(1).rebuild.needed
    assert answers(scene) == [[b"v"]] * len(KEYS[::7])


def test_no_more_is_copied_than_the_disk_keeps_up_with() -> None:
    # The queue in front of a slow disk grew with all that could be copied; once it is full, clients are refused.
    scene, process = emptied(read_s=(0.4, 0.4))
    scene.node(1).store.resident = False
    most = 0
    while MARKER_FILE not in process.disk.files:
        scene.run(0.01)
        most = max(most, scene.node(1).parking.keys_waiting)
    # Of two sources, each of which tells less than twice as much at once.
    assert 0 < most < 4 * PIECE_ROWS
    assert answers(scene) == [[b"v"]] * len(KEYS[::7])


def test_disks_that_take_long_keep_nobody_from_being_rebuilt() -> None:
    scene, process = emptied(memtable_bytes=1 << 12)
    for index in (0, 2):
        store = scene.node(index).store
        store.evict(0, keep={}, partitions_max=16)
        assert not store.resident
        scene.process(index).disk.slowness = 1000.0
    scene.run(200.0)
    assert MARKER_FILE in process.disk.files


def test_who_takes_long_to_keep_what_is_handed_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a record of many megabytes would, on a slow link.
    monkeypatch.setattr(copying, "ANSWER_S", 0.001)
    scene = Scene(nodes=3, delay_s=(0.004, 0.006))
    assert scene.ask(0, *(f"SET {key} v" for key in KEYS[:50])) == [b"OK"] * 50
    assert scene.ask(0, "CONFIG SET replication-factor 2") == [b"OK"]
    scene.run(60.0)
    scene.wait_for_rest()
    assert check_copies(scene.world) == []


def test_who_is_rebuilt_reads_as_many_that_no_later_read_goes_behind_an_earlier_one() -> None:
    # With a W of all nodes one source was enough: not for what was never acknowledged, and was read and repaired all the same.
    directives = {"sloppy-quorum": "no", "hinted-handoff": "no", "write-quorum": "all", "anti-entropy-interval": "0"}
    scene = Scene(nodes=3, directives=directives)
    links = [(0, 1), (0, 2), (1, 0), (2, 0)]
    writer = scene.send(0, "SET k v")
    scene.cut(*links, breaks=True)
    scene.run(0.05)
    scene.mend(*links, breaks=True)
    scene.run(3.0)
    assert str(scene.replies(writer)[0]).startswith("TIMEOUT")
    assert scene.ask(0, "GET k") == [b"v"]
    held = [index for index in range(3) if scene.node(index).store.get(b"k")]
    assert held[0] == 0
    assert len(held) == 2
    rebuilt = scene.process(held[1])
    scene.process(0).kill()
    rebuilt.kill(wiped=True)
    scene.run(3.0)
    rebuilt.restart()
    scene.run(20.0)
    assert str(scene.ask(3 - held[1], "GET k")[0]).startswith("NOQUORUM")
    scene.process(0).restart()
    scene.wait_for_rest()
    assert [scene.ask(index, "GET k") for index in range(3)] == [[b"v"]] * 3
