"""Wall clocks that jump: for a moment, for good, and by more than any other node believes."""

from __future__ import annotations

import pytest

from respkv.versions.clock import BELIEVED_AFTER_S, milliseconds
from respkv.versions.records import holds_value
from tests.simulation.scene import Scene

HOUR_MS = 3_600_000.0


def ahead_ms(scene: Scene, index: int) -> float:
    """How far a node's stamps are ahead of the time."""
    process = scene.process(index)
    return milliseconds(scene.node(index).clock.last) - process.clock.read(scene.world.schedule.now)


@pytest.mark.parametrize("hours", [-25.0, 23.9, 25.0])
def test_one_bad_reading_moves_no_stamps_expires_nothing_and_cuts_nobody_off(hours: float) -> None:
    # By more than a day every peer refused every frame of the node until it was started again; by less, all clocks followed it.
    scene = Scene()
    assert scene.ask(0, "SET a 1 EX 1000") == [b"OK"]
    scene.skew(1, hours * HOUR_MS)
    scene.run(0.05)
    assert scene.ask(1, "SET b 1") == [b"OK"]
    scene.skew(1, -hours * HOUR_MS)
    scene.run(5.0)
    assert [scene.ask(index, "GET a", "SET b 2") for index in range(3)] == [[b"1", b"OK"]] * 3
    assert max(abs(ahead_ms(scene, index)) for index in range(3)) < 1000
    assert scene.world.problems == []


def test_a_jump_that_lasts_is_believed_after_a_while() -> None:
    scene = Scene(directives={"max-clock-skew": "2000000"})
    scene.skew(1, HOUR_MS)
    scene.run(BELIEVED_AFTER_S - 1.0)
    assert ahead_ms(scene, 1) < -HOUR_MS / 2
    scene.run(2.0)
    assert abs(ahead_ms(scene, 1)) < 1000


def test_a_jump_to_the_time_of_the_others_is_believed_at_once() -> None:
    scene = Scene()
    scene.skew(1, -HOUR_MS)
    scene.run(BELIEVED_AFTER_S + 5.0)
    (reply,) = scene.ask(1, "SET a 1")
    assert str(reply).startswith("CLOCKSKEW")
    scene.skew(1, HOUR_MS)
    scene.run(1.0)
    assert scene.ask(1, "SET a 1") == [b"OK"]


def test_a_node_whose_stamps_nobody_believes_says_so() -> None:
    scene = Scene()
    scene.process(1).kill()
    scene.skew(1, 25 * HOUR_MS)
    scene.process(1).restart()
    scene.run(5.0)
    told = [text for _, text in scene.world.trace.lines if "they refuse all that it sends" in text]
    assert len(told) == 1
    assert told[0].startswith("n1 warning")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_node_whose_clock_is_ahead_drops_no_value_before_its_time(is_restarted: bool) -> None:  # noqa: FBT001
    # Its copies looked the same to anti-entropy, so once its clock was right again nothing brought the values back.
    scene = Scene()
    assert scene.ask(0, "SET a 1 EX 1000", "SET b 1 EX 20") == [b"OK"] * 2
    scene.run(1.0)
    if is_restarted:
        scene.process(1).kill()
    scene.skew(1, HOUR_MS)
    if is_restarted:
        scene.process(1).restart()
    scene.run(BELIEVED_AFTER_S + 15.0)
    scene.skew(1, -HOUR_MS)
    scene.run(BELIEVED_AFTER_S + 1.0)
    assert scene.ask(1, "RESPKV QUORUM R 1", "GET a") == [b"OK", b"1"]
    assert not holds_value(scene.node(1).store.get(b"b"))


@pytest.mark.parametrize("nodes", [3, 4, 5])
@pytest.mark.parametrize("hours", [20.0, 0.01, -1.0])
def test_one_clock_that_is_wrong_keeps_no_other_node_from_writing(nodes: int, hours: float) -> None:
    # Of three nodes all refused: the other two took what lies halfway between their peers' clocks for the time.
    scene = Scene(nodes=nodes)
    scene.skew(1, hours * HOUR_MS)
    scene.run(BELIEVED_AFTER_S + 5.0)
    refusing = [index for index in range(nodes) if str(scene.ask(index, "SET a 1")[0]).startswith("CLOCKSKEW")]
    assert refusing == [1]


def test_siblings_are_written_on_when_a_node_whose_clock_is_ahead_has_taken_all_stamps_along() -> None:
    # What the cluster itself had stamped was refused as a context that somebody has made up.
    scene = Scene(directives={"conflict-resolution": "siblings"})
    scene.process(1).kill()
    scene.skew(1, 20 * HOUR_MS)
    scene.process(1).restart()
    scene.run(5.0)
    assert ahead_ms(scene, 0) > 19 * HOUR_MS
    key = scene.key_of(primary=0)
    lines = [f"SET {key} 1", f"SET {key} 2", f"GET {key}", f"SET {key} 3", f"APPEND {key} 4", f"GET {key}"]
    assert scene.ask(0, *lines) == [b"OK", b"OK", b"2", b"OK", 2, b"34"]
