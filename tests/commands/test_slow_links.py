"""A slow write and one by somebody who had read it already; clocks that are apart: the later one stays."""

from __future__ import annotations

import pytest

from tests.commands.harness import World

TRIES = range(8)


@pytest.mark.parametrize("seed", TRIES)
@pytest.mark.parametrize(("last", "left"), [("SET k v2", b"v2"), ("SET k 6", b"6"), ("INCR k", b"6"), ("DEL k", None)])
def test_a_write_by_somebody_who_had_read_a_slow_one_is_not_lost_to_it(seed: int, last: str, left: bytes | None) -> None:
    world = World(3, seed=seed, read_quorum="2", write_quorum="2", sloppy_quorum="no", speculative_retry="0")
    slow, fast = world.connect(0), world.connect(2)
    slow.ask("SET k 0")
    world.run(0.5)
    for _ in range(seed % 2):
        # Reads are spread: whom the next one asks depends on how many there were.
        fast.ask("GET k")
    world.slow_s = {(0, 1): 0.3, (2, 0): 0.4}
    slow.post("SET k 5")
    world.run(0.01)
    assert fast.ask("GET k") == b"$1\r\n5\r\n"
    assert fast.ask(last).startswith((b"+OK", b":"))
    world.run(1.0)
    assert slow.take() == b"+OK\r\n"
    world.slow_s = {}
    world.run(2.0)
    expected = b"$-1\r\n" if left is None else b"$%d\r\n%b\r\n" % (len(left), left)
    assert [world.connect(index).ask("GET k") for index in range(3)] == [expected] * 3


def test_nor_is_it_with_one_slow_link_where_all_have_to_acknowledge() -> None:
    world = World(3, read_quorum="1", write_quorum="3", sloppy_quorum="no", speculative_retry="0")
    slow, fast = world.connect(0), world.connect(2)
    slow.ask("SET k 0")
    world.run(0.5)
    world.slow_s = {(0, 1): 0.2}
    slow.post("SET k 5")
    world.run(0.01)
    assert fast.ask("GET k") == b"$1\r\n5\r\n"
    assert fast.ask("SET k 6") == b"+OK\r\n"
    world.run(1.0)
    assert slow.take() == b"+OK\r\n"
    assert [world.connect(index).ask("GET k") for index in range(3)] == [b"$1\r\n6\r\n"] * 3


@pytest.mark.parametrize("seed", TRIES)
def test_a_later_write_does_not_lose_to_a_clock_that_is_ahead(seed: int) -> None:
    world = World(3, seed=seed, read_quorum="2", write_quorum="2", sloppy_quorum="no", speculative_retry="0")
    world.skew_ms[2] = 400
    world.slow_s = {(2, 0): 0.3}
    world.run(1.0)
    ahead, behind = world.connect(2), world.connect(0)
    assert ahead.ask("SET k earlier") == b"+OK\r\n"
    # No client is quicker than the links.
    world.run(0.004)
    assert behind.ask("SET k later") == b"+OK\r\n"
    assert ahead.ask("GET k") == b"$5\r\nlater\r\n"
