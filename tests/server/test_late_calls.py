"""A command that was passed on and arrives when its client was told long ago that it timed out has no effect."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import hiredis
import msgspec
import pytest

from respkv.commands.context import NodeStatistics
from respkv.coordinator.operations import Call, Operations
from respkv.server.late_calls import TOO_LATE, WAITS, WAITS_NO_MORE, LateCalls
from respkv.transport import frames
from tests.commands.node_alone import Caller, Process, World
from tests.coordinator.lab import Lab, node_id

LEFT, PRIMARY, RIGHT, OTHER = 0, 1, 2, 3


class FaultyWorld(World):
    """A world in which links stand still, and hand over later what was put into them; and so do processes."""

    def __init__(self, **directives: str) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.held: list[tuple[str, str, bytes]] = []
        self.hushed: set[tuple[str, str]] = set()
        """Between whom no gossip passes."""
        self.still: list[Process] = []
        self.questions = 0
        super().__init__(5, ring_size=64, **directives)

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        sections = list(frames.sections(frame))
        self.questions += sum(kind == frames.REQUEST and b"waits" in body for kind, _, body in sections)
        if (source, target) in self.hushed and all(kind == frames.GOSSIP for kind, _, _ in sections):
            return
        if (source, target) in self.cut:
            self.held.append((source, target, frame))
        else:
            super().deliver(source, target, frame)

    def part(self, sources: list[int], targets: list[int]) -> None:
        """From now on frames from these to those wait."""
        self.cut |= {(self.addresses[source].node, self.addresses[target].node) for source in sources for target in targets}

    def heal(self) -> None:
        self.cut.clear()
        held, self.held = self.held, []
        for each in held:
            self.deliver(*each)

    def stop(self, index: int) -> None:
        """SIGSTOP: what comes for it lies in its mail."""
        self.processes[index].wake_at = math.inf
        self.still.append(self.processes[index])

    def go_on(self, index: int) -> None:
        self.still.remove(self.processes[index])
        self.processes[index].wake_at = self.now

    def step(self) -> bool:
        ready = [each for each in self.processes if each not in self.still and (each.arrivals or each.wake_at <= self.now)]
        for process in ready:
            process.turn()
            if process in self.still:
                process.wake_at = math.inf
        return bool(ready)

    def keys(self, prefix: str, count: int = 1) -> list[str]:
        """Keys whose first live primary is the node of that name."""
        node, me = self.processes[LEFT].node, self.addresses[PRIMARY].node
        names = (f"{prefix}{number}" for number in range(10_000))
        found = (name for name in names if node.coordinator.primary_of(name.encode()) == me)
        return [next(found) for _ in range(count)]

    def refused(self) -> str:
        """How many calls the primary refused because they came too late."""
        told: bytes = self.client(PRIMARY)("INFO", "respkv")
        return next(line.partition(":")[2] for line in told.decode().splitlines() if line.startswith("respkv_late_commands_refused:"))


def is_timeout(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("TIMEOUT")


def siblings(client: Caller, key: str) -> set[bytes]:
    return set(client("RESPKV", "SIBLINGS", key)[1])


def write_two_siblings(world: FaultyWorld, key: str, first: bytes, second: bytes) -> None:
    clients = world.client(RIGHT), world.client(OTHER)
    for client in clients:
        client("GET", key)
    assert [client("SET", key, value) for client, value in zip(clients, (first, second), strict=True)] == [b"OK", b"OK"]


@pytest.fixture
def world() -> FaultyWorld:
    return FaultyWorld(conflict_resolution_prefix="cart: siblings")


OTHERS = [PRIMARY, RIGHT, OTHER, 4]


@pytest.mark.parametrize("command", ["SET", "MSET"])
def test_a_write_that_a_cut_held_up_replaces_no_siblings_that_were_acknowledged_meanwhile(world: FaultyWorld, command: str) -> None:
    keys = world.keys("cart:", 2 if command == "MSET" else 1)
    left, right = world.client(LEFT), world.client(RIGHT)
    assert [right("SET", key, "before") for key in keys] == [b"OK"] * len(keys)
    world.part([LEFT], OTHERS)
    world.part(OTHERS, [LEFT])
    left.send(command, *(word for key in keys for word in (key, "late")))
    for key in keys:
        write_two_siblings(world, key, b"one", b"two")
    world.advance(4.0)
    assert is_timeout(left.receive())
    world.heal()
    world.advance(1.0)
    assert [siblings(right, key) for key in keys] == [{b"one", b"two"}] * len(keys)
    assert world.refused() == "1"


def test_nor_is_anything_counted_that_a_cut_held_up(world: FaultyWorld) -> None:
    (key,) = world.keys("number:")
    left, right = world.client(LEFT), world.client(RIGHT)
    assert right("INCR", key) == 1
    world.part([LEFT], OTHERS)
    left.send("INCR", key)
    assert right("INCR", key) == 2
    world.advance(4.0)
    assert is_timeout(left.receive())
    world.heal()
    world.advance(1.0)
    assert right("GET", key) == b"2"
    # And what comes now is not late.
    assert left("INCR", key) == 3


@pytest.mark.parametrize(
    ("prefix", "words", "left_over"), [("cart:", ["SET", "late"], b"1"), ("cart:", ["MSET", "late"], b"1"), ("number:", ["INCR"], b"1")]
)
def test_a_process_that_stood_still_does_not_do_what_it_finds_in_its_mail(
    world: FaultyWorld, prefix: str, words: list[str], left_over: bytes
) -> None:
    (key,) = world.keys(prefix)
    left, right = world.client(LEFT), world.client(RIGHT)
    assert right("SET", key, "1") == b"OK"
    world.stop(PRIMARY)
    left.send(words[0], key, *words[1:])
    world.advance(4.0)
    assert is_timeout(left.receive())
    world.go_on(PRIMARY)
    world.advance(1.0)
    assert right("GET", key) == left_over
    assert siblings(right, key) == {left_over}
    assert world.refused() == "1"


def test_nor_does_it_go_on_with_what_it_had_begun(world: FaultyWorld) -> None:
    (key,) = world.keys("number:")
    left, right = world.client(LEFT), world.client(RIGHT)
    assert right("INCR", key) == 1
    world.part([LEFT, RIGHT, OTHER, 4], [PRIMARY])
    world.cut.discard((world.addresses[LEFT].node, world.addresses[PRIMARY].node))
    left.send("INCR", key)
    world.advance(0.01)
    assert any(kind == frames.RECORDS for _, _, frame in world.held for kind, _, _ in frames.sections(frame))
    world.stop(PRIMARY)
    world.advance(4.0)
    assert is_timeout(left.receive())
    # What its reads have found is in its mail, and it reads that before it looks at the time.
    world.heal()
    world.go_on(PRIMARY)
    world.advance(1.0)
    assert right("GET", key) == b"1"


def test_a_node_that_stood_still_itself_has_given_up_what_its_client_has(world: FaultyWorld) -> None:
    """It reads its mail first, and says no although it has not told the client yet."""
    (key,) = world.keys("number:")
    left, right = world.client(LEFT), world.client(RIGHT)
    assert right("INCR", key) == 1
    world.part([LEFT], [PRIMARY])
    left.send("INCR", key)
    world.advance(1.7)
    world.questions = 0
    world.stop(LEFT)
    world.heal()
    world.advance(0.5)
    assert world.questions == 1
    world.go_on(LEFT)
    assert is_timeout(left.receive())
    world.advance(1.0)
    assert right("GET", key) == b"1"


def test_after_a_quiet_second_commands_are_carried_out_in_their_order(world: FaultyWorld) -> None:
    (key,) = world.keys("word:")
    numbers = world.keys("number:", 3)
    client, another = world.client(LEFT), world.client(LEFT)
    assert client("APPEND", key, "a") == 1
    world.hushed = {(world.addresses[LEFT].node, world.addresses[PRIMARY].node)}
    for round_number in range(2):
        world.advance(1.5)
        world.questions = 0
        for letter in "bc":
            client.send("APPEND", key, letter)
            another.send("APPEND", key, letter.upper())
        for number in numbers:
            client.send("INCR", number)
        assert [client.receive() for _ in range(5)] == [len("abB") - 1 + 4 * round_number, 4 + 4 * round_number, *[round_number + 1] * 3]
        assert [another.receive() for _ in range(2)] == [3 + 4 * round_number, 5 + 4 * round_number]
        assert 0 < world.questions <= 5
    assert client("GET", key) == b"a" + b"bBcC" * 2
    # Whoever was just heard is not asked.
    world.questions = 0
    assert client("INCR", numbers[0]) == 3
    assert world.questions == 0
    assert world.refused() == "0"


class Bench:
    """Calls of one node, kept back or not, and the questions that go to it."""

    def __init__(self) -> None:
        self.lab = Lab("abc")
        self.operations = Operations(self.lab.coordinator, serve=self._serve, internal_error=print)
        self.done: list[int] = []
        self.answers: list[tuple[int, bytes]] = []
        self.statistics = NodeStatistics()
        context: Any = SimpleNamespace(
            turn=self.lab.turn, coordinator=self.lab.coordinator, operations=self.operations, statistics=self.statistics
        )
        self.late = LateCalls(context, carry_out=lambda call: self.done.append(call.sequence))
        self.asked: dict[int, int] = {}
        """By the call that is asked about, the sequence of the question."""

    def _serve(self, call: Call) -> None:
        raise AssertionError(call)

    def call(self, sequence: int, name: str = "command") -> None:
        """A call of node b comes."""
        call = Call(
            node_id("b"), name, b"", lambda answer: self.answers.append((sequence, answer)), came_at=self.lab.turn.now, sequence=sequence
        )
        if not self.late.keeps(call):
            self.done.append(sequence)
        for section in self.lab.turn.sections.pop(node_id("b"), []):
            for kind, question, body in frames.sections(bytes(frames.HEADER_BYTES) + section):
                assert kind == frames.REQUEST
                asks, argument = msgspec.msgpack.decode(body, type=tuple[bytes, bytes])
                assert asks == b"waits"
                self.asked[msgspec.msgpack.decode(argument)] = question

    def doubt(self) -> None:
        self.late.doubt(node_id("b"))

    def answer(self, sequence: int, *, waits: bool = True) -> None:
        self.operations.on_result(node_id("b"), self.asked.pop(sequence), WAITS if waits else WAITS_NO_MORE)

    def wait(self, seconds: float) -> None:
        self.lab.turn.now += seconds
        self.operations.expire(is_idle=True)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_who_is_not_doubted_is_not_asked(bench: Bench) -> None:
    bench.call(1)
    assert (bench.done, bench.asked) == ([1], {})


def test_other_calls_pass(bench: Bench) -> None:
    bench.doubt()
    bench.call(1, "scan")
    assert (bench.done, bench.asked) == ([1], {})


def test_what_comes_behind_an_answer_is_not_asked_about_and_does_not_overtake(bench: Bench) -> None:
    bench.doubt()
    bench.call(1)
    bench.call(2)
    assert (bench.done, list(bench.asked)) == ([], [1, 2])
    bench.answer(1)
    bench.call(3)
    assert (bench.done, list(bench.asked)) == ([1], [2])
    bench.answer(2, waits=False)
    assert bench.done == [1, 3]
    assert bench.answers == [(2, TOO_LATE)]
    bench.call(4)
    assert (bench.done, bench.asked) == ([1, 3, 4], {})


def test_who_does_not_answer_is_doubted_further(bench: Bench) -> None:
    bench.doubt()
    bench.call(1)
    bench.wait(bench.lab.coordinator.request_timeout_s)
    assert (bench.done, bench.answers) == ([], [(1, TOO_LATE)])
    bench.call(2)
    assert list(bench.asked) == [1, 2]
    bench.answer(2)
    assert bench.done == [2]
    assert bench.statistics.late_calls_total == 1


def test_a_link_that_breaks_takes_the_questions_along(bench: Bench) -> None:
    bench.doubt()
    bench.call(1)
    bench.call(2)
    bench.operations.on_peer_closed(node_id("b"))
    assert (bench.done, bench.answers) == ([], [(1, TOO_LATE), (2, TOO_LATE)])
    bench.call(3)
    bench.answer(3)
    assert bench.done == [3]


def test_an_answer_from_before_a_silence_proves_nothing_of_what_comes_after_it(bench: Bench) -> None:
    bench.doubt()
    bench.call(1)
    bench.lab.turn.now += 0.5
    bench.doubt()
    bench.answer(1)
    assert bench.done == [1]
    bench.call(2)
    assert list(bench.asked) == [2]


def test_an_answer_that_comes_too_late_counts_for_nothing_and_so_does_what_waited_behind_it(bench: Bench) -> None:
    """The process stood still meanwhile: it finds the answer before it looks at the time."""
    bench.doubt()
    bench.call(1)
    bench.call(2)
    bench.answer(1)
    bench.call(3)
    bench.lab.turn.now += 4.0
    bench.doubt()
    bench.answer(2)
    assert bench.done == [1]
    assert bench.answers == [(2, TOO_LATE), (3, TOO_LATE)]
    bench.call(4)
    assert list(bench.asked) == [4]
