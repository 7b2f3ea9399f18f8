"""Commands of several rounds: what a step gives, what is thrown into a generator, and what comes too late."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from respkv.config.quorums import Quorums
from respkv.coordinator.operations import INTERNAL_ERROR, REST_PATIENCE_S, Ask, Call, Operations, Read, Rest, Steps, Until, Write
from respkv.errors import NoQuorumError, OverloadedError, PeerProtocolError, QuorumTimeoutError
from respkv.transport import frames
from respkv.versions import records
from tests.coordinator.lab import ACTOR, Lab, node_id, version, wire_key

K = wire_key("k")


class Bench:
    """Operations over a coordinator on the bench."""

    def __init__(self, letters: str = "abcde", **options: str) -> None:
        self.lab = Lab(letters, **options)
        self.served: list[Call] = []
        self.errors: list[Exception] = []
        self.operations = Operations(self.lab.coordinator, serve=self.served.append, internal_error=self.errors.append)
        self.replies: list[bytes] = []

    def start(self, steps: Callable[[], Steps], **options: Any) -> None:
        self.operations.start(steps(), on_done=self.replies.append, **options)
        self.lab.run("wait 0")

    def run(self, line: str, *, is_idle: bool = True) -> None:
        self.lab.run(line)
        self.operations.expire(is_idle=is_idle)
        self.lab.run("wait 0")

    def sent(self) -> list[tuple[str, int, list[bytes]]]:
        """(peer, sequence, [name, argument]) of the calls in this turn's frames."""
        found = []
        for peer, sections in self.lab.turn.sections.items():
            for section in sections:
                for kind, sequence, body in frames.sections(bytes(frames.HEADER_BYTES) + section):
                    assert kind == frames.REQUEST
                    found.append((peer[0], sequence, msgspec.msgpack.decode(body, type=list[bytes])))
        self.lab.turn.sections.clear()
        return found


def string(text: bytes, stamp: int = 500) -> bytes:
    return records.string(text, stamp=stamp, actor=ACTOR)


def test_read_then_write() -> None:
    bench = Bench()

    def append() -> Steps:
        (record,) = yield Read([K])
        yield Write([(K, string((records.value_of(record, 0) or b"") + b"!"))])
        return b"+done\r\n"

    bench.lab.run("hold k v@5")
    bench.start(append)
    assert bench.operations.running_count == 1
    bench.run("b records 1 v@5")
    bench.run("b ack 2")
    assert bench.replies == [b"+done\r\n"]
    assert bench.operations.running_count == 0
    bench.run("held k")
    assert bench.lab.out[-1] == "held k=v!@500"


def test_a_read_at_one_is_answered_in_the_same_turn() -> None:
    bench = Bench(r="1", w="1")

    def both() -> Steps:
        found = yield Read([K, wire_key("m"), K])
        yield Write([(K, string(b"w"))])
        return b"|".join(records.value_of(record, 0) or b"-" for record in found)

    bench.lab.run("hold k v@5")
    bench.start(both)
    assert bench.replies == [b"v|-|v"]


def test_what_is_refused_is_thrown_into_the_generator() -> None:
    bench = Bench(down="bc", sloppy="no")
    seen: list[Exception] = []

    def stubborn() -> Steps:
        try:
            yield Read([K])
        except NoQuorumError as error:
            seen.append(error)
        yield Write([(K, string(b"w"))])
        return b"+unreached\r\n"

    bench.start(stubborn)
    assert len(seen) == 1
    assert bench.replies[0].startswith(b"-NOQUORUM write needs 2 replicas")
    assert bench.operations.running_count == 0


def test_what_is_late_is_thrown_as_well_and_later_parts_are_ignored() -> None:
    bench = Bench(w="3")
    seen: list[Exception] = []

    def patient() -> Steps:
        try:
            yield Write([(K, string(b"w")), (wire_key("k2"), string(b"x"))])
        except QuorumTimeoutError as error:
            seen.append(error)
        found = yield Ask([node_id("b")], "what", b"")
        return b"+" + (found[node_id("b")] or b"nothing")

    bench.start(patient)
    bench.run("wait 1001")
    assert len(seen) == 1
    assert bench.replies == []
    # The acknowledgements of the first step come at last, and mean nothing to the second.
    bench.run("b ack 1")
    bench.run("c ack 1 2")
    assert bench.replies == []


def test_a_bug_in_a_handler_is_one_command_s_error() -> None:
    bench = Bench()

    def broken() -> Steps:
        yield Read([K])
        raise ZeroDivisionError

    bench.lab.run("hold k v@5")
    bench.start(broken)
    bench.run("b records 1 v@5")
    assert bench.replies == [INTERNAL_ERROR]
    assert isinstance(bench.errors[0], ZeroDivisionError)


def test_a_command_on_a_key_waits_for_the_one_before_it_and_a_failure_lets_the_next_one_go_on() -> None:
    bench = Bench()
    order: list[str] = []

    def command(name: str, *, fails: bool = False) -> Steps:
        order.append(f"{name} begins")
        yield Read([K])
        order.append(f"{name} has read")
        if fails:
            raise ZeroDivisionError
        return name.encode()

    for name, fails in (("one", True), ("two", False), ("three", False)):
        bench.start(partial(command, name, fails=fails), exclusive=[K])
    assert order == ["one begins"]
    bench.run("b records 1 v@5")
    bench.run("c records 3 v@5")
    bench.run("b records 4 v@5")
    assert order == ["one begins", "one has read", "two begins", "two has read", "three begins", "three has read"]
    assert bench.replies == [INTERNAL_ERROR, b"two", b"three"]
    assert len(bench.operations.queue) == 0


def test_too_many_wait_for_a_key() -> None:
    bench = Bench()
    bench.operations.queue.length_max = 1

    def wait() -> Steps:
        yield Until(lambda: False, 10.0)
        return b""

    bench.start(wait, exclusive=[K])
    with pytest.raises(OverloadedError):
        bench.start(wait, exclusive=[K])
    assert bench.operations.running_count == 1


def test_a_quorum_of_its_own() -> None:
    bench = Bench(w="1")

    def write() -> Steps:
        yield Write([(K, string(b"w"))])
        return b"+OK"

    bench.start(write, quorum=Quorums(3, 1, 3, 0, 0))
    bench.run("b ack 1")
    assert bench.replies == []
    bench.run("c ack 1")
    assert bench.replies == [b"+OK"]


def test_calls_are_answered_by_peers_by_this_node_or_by_time() -> None:
    bench = Bench()
    nodes = [node_id(letter) for letter in "abcd"]

    def ask() -> Steps:
        answers = yield Ask(nodes, "count", b"?", timeout_s=2.0)
        return b" ".join(answers[node] or b"none" for node in nodes)

    bench.operations.start(ask(), on_done=bench.replies.append)
    assert [call.name for call in bench.served] == ["count"]
    sent = bench.sent()
    assert [(peer, body) for peer, _, body in sent] == [(peer, [b"count", b"?"]) for peer in "bcd"]
    numbers = {peer: number for peer, number, _ in sent}
    bench.operations.on_result(node_id("b"), numbers["b"], b"2")
    # An answer in another's name is none.
    bench.operations.on_result(node_id("b"), numbers["c"], b"9")
    bench.served[0].answer(b"1")
    bench.operations.on_peer_closed(node_id("c"))
    assert bench.replies == []
    assert bench.operations.next_due() == 2.0
    bench.run("wait 2001")
    assert bench.replies == [b"1 2 none none"]
    assert bench.operations.next_due() is None
    bench.operations.on_result(node_id("d"), numbers["d"], b"4")


def test_an_argument_for_each() -> None:
    bench = Bench()

    def ask() -> Steps:
        yield Ask([node_id("b"), node_id("c")], "count", {node_id("b"): b"x", node_id("c"): b"y"})
        return b""

    bench.operations.start(ask(), on_done=bench.replies.append)
    assert [(peer, body[1]) for peer, _, body in bench.sent()] == [("b", b"x"), ("c", b"y")]
    assert bench.operations.next_due() == bench.lab.coordinator.request_timeout_s


def test_nobody_to_ask_is_answered_at_once() -> None:
    bench = Bench()

    def ask() -> Steps:
        answers = yield Ask([], "count", b"")
        return b"%d" % len(answers)

    bench.start(ask)
    assert bench.replies == [b"0"]


def test_many_calls_cost_nothing_until_one_is_late() -> None:
    bench = Bench()

    def ask(timeout_s: float) -> Steps:
        answers = yield Ask([node_id("b")], "count", b"", timeout_s=timeout_s)
        return b"%d" % (answers[node_id("b")] is None)

    for timeout_s in (5.0, 1.0, 3.0):
        bench.operations.start(ask(timeout_s), on_done=bench.replies.append)
    bench.sent()
    for expected, milliseconds in ((0, 900), (1, 200), (1, 1800), (2, 200), (3, 3000)):
        bench.run(f"wait {milliseconds}")
        assert len(bench.replies) == expected
    assert bench.operations.next_due() is None


def test_waiting_for_a_condition() -> None:
    bench = Bench()
    state = {"ready": False}

    def wait(deadline: float) -> Steps:
        true = yield Until(lambda: state["ready"], deadline)
        return b"%d" % true

    for deadline in (1.0, 9.0):
        bench.operations.start(wait(deadline), on_done=bench.replies.append)
    bench.run("wait 10")
    assert bench.replies == []
    assert bench.operations.next_due() == 1.0
    bench.run("wait 1000")
    assert bench.replies == [b"0"]
    assert bench.operations.next_due() == 9.0
    state["ready"] = True
    assert bench.operations.next_due() == bench.lab.turn.now
    bench.run("wait 1")
    assert bench.replies == [b"0", b"1"]


def test_calls_of_other_nodes() -> None:
    bench = Bench()
    bench.operations.on_request(node_id("c"), 9, msgspec.msgpack.encode([b"count", b"argument"]))
    (call,) = bench.served
    assert (call.source, call.name, call.argument) == (node_id("c"), "count", b"argument")
    call.answer(b"7")
    (section,) = bench.lab.turn.sections[node_id("c")]
    assert list(frames.sections(bytes(frames.HEADER_BYTES) + section)) == [(frames.RESULT, 9, b"7")]


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x92\xa1x", msgspec.msgpack.encode([b"one"]), msgspec.msgpack.encode([1, 2])])
def test_what_is_no_call_closes_the_link(body: bytes) -> None:
    bench = Bench()
    with pytest.raises(PeerProtocolError):
        bench.operations.on_request(node_id("c"), 9, body)


def test_cold_keys_are_loaded_before_they_are_read_or_written() -> None:
    bench = Bench(r="1", w="1")
    store = bench.lab.store
    store.resident = False
    store.bound(1)

    def append() -> Steps:
        (record,) = yield Read([K])
        yield Write([(K, string((records.value_of(record, 0) or b"") + b"!"))])
        return b"+done\r\n"

    bench.start(append, exclusive=[K])
    assert bench.lab.out == ["load 1 k"]
    assert bench.replies == []
    bench.lab.parking.loaded(1, [version("v@5")])
    bench.run("held k")
    assert bench.replies == [b"+done\r\n"]
    assert "held k=v!@500" in bench.lab.out


def test_one_rest_ends_in_each_turn_in_which_nothing_arrives() -> None:
    bench = Bench()
    ended: list[int] = []

    def worker(number: int, until: float) -> Steps:
        yield Rest(until)
        ended.append(number)
        return b""

    for number, until in enumerate((2.0, 0.0, 0.0)):
        bench.start(lambda number=number, until=until: worker(number, until))  # type: ignore[misc]
    assert bench.operations.next_due() == 0.0
    bench.run("wait 0", is_idle=False)
    assert ended == []
    bench.run("wait 0")
    bench.run("wait 0")
    bench.run("wait 0")
    assert ended == [1, 2]
    assert bench.operations.next_due() == 2.0
    bench.run("wait 2000")
    assert ended == [1, 2, 0]
    assert bench.operations.next_due() is None


def test_a_busy_node_lets_a_rest_end_in_time() -> None:
    bench = Bench()
    ended: list[float] = []

    def worker() -> Steps:
        yield Rest(0.0)
        ended.append(bench.lab.turn.now)
        return b""

    bench.start(worker)
    while not ended:
        bench.run("wait 3", is_idle=False)
    assert REST_PATIENCE_S <= ended[0] < 2 * REST_PATIENCE_S
