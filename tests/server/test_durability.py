"""`appendfsync always`: what waits for the log is told when it is durable, whether or not its own turn has logged anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from respkv.coordinator.operations import Ask
from tests.commands.harness import World

if TYPE_CHECKING:
    from respkv.coordinator.operations import Steps


@pytest.fixture(params=["everysec", "always"])
def world(request: pytest.FixtureRequest) -> World:
    return World(3, appendfsync=request.param, write_quorum="3", read_quorum="1")


def test_a_write_that_comes_later_than_a_reaped_deletion_is_answered(world: World) -> None:
    """Its replicas keep nothing of it, and say so: it is stamped again."""
    client = world.connect(0)
    client.ask("SET other 1")
    world.run(3.0)
    reaped_below = world.nodes[0].clock.last + (5 << 16)
    for node in world.nodes[1:]:
        node.store.reaped_below = reaped_below.to_bytes(8)
        node.clock.absorb(reaped_below)
    began = world.now
    assert client.ask("SET k v") == b"+OK\r\n"
    assert world.now - began < 0.1
    assert world.connect(1).ask("GET k") == b"$1\r\nv\r\n"


def test_a_node_that_is_told_nothing_new_in_a_comparison_answers(world: World) -> None:
    world.run(3.0)
    asking, asked = world.nodes[:2]
    answers: list[bytes] = []

    def ask() -> Steps:
        told = yield Ask([asked.me], "tree-meet", msgspec.msgpack.encode([]))
        return bytes(told[asked.me] or b"")

    began = world.now
    asking.operations.start(ask(), on_done=answers.append)
    assert world.run_until(lambda: bool(answers))
    assert answers == [msgspec.msgpack.encode([[], 0, 0])]
    assert world.now - began < 0.5
