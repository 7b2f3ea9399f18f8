"""Commands on one key run one after the other, in the order in which they came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.coordinator.key_queue import KeyQueue, Ticket

KEYS = [b"a", b"b", b"c", b"d"]


def test_a_command_waits_for_all_its_keys() -> None:
    queue, started = KeyQueue(), []
    tickets = {}
    for name, keys in (("ab", KEYS[:2]), ("bc", KEYS[1:3]), ("a", KEYS[:1]), ("d", KEYS[3:])):
        tickets[name] = Ticket(keys, lambda name=name: started.append(name))  # type: ignore[misc]
        assert queue.enter(tickets[name])
    assert started == ["ab", "d"]
    queue.leave(tickets["ab"])
    assert started == ["ab", "d", "a", "bc"]
    for name in ("bc", "a", "d"):
        queue.leave(tickets[name])
    assert len(queue) == 0


def test_a_key_that_is_named_twice_is_one() -> None:
    queue, started = KeyQueue(), []
    ticket = Ticket([b"a", b"a"], lambda: started.append(1))
    queue.enter(ticket)
    assert started == [1]
    queue.leave(ticket)
    assert len(queue) == 0


def test_a_full_queue_refuses_and_does_nothing() -> None:
    queue = KeyQueue(length_max=2)
    first, second = (Ticket([b"a"], lambda: None) for _ in range(2))
    assert queue.enter(first)
    assert queue.enter(second)
    refused = Ticket([b"b", b"a"], lambda: None)
    assert not queue.enter(refused)
    free = Ticket([b"b"], lambda: None)
    assert queue.enter(free)
    assert free.ahead == 0


def test_a_million_commands_that_end_at_once_do_not_pile_up_on_the_stack() -> None:
    queue, order = KeyQueue(), []
    tickets: list[Ticket] = []

    def start(number: int) -> None:
        order.append(number)
        if number:
            queue.leave(tickets[number])

    for number in range(5000):
        tickets.append(Ticket([b"a"], lambda number=number: start(number)))  # type: ignore[misc]
        queue.enter(tickets[-1])
    assert order == [0]
    queue.leave(tickets[0])
    assert order == list(range(5000))
    assert len(queue) == 0


@given(st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3), max_size=12), st.randoms(use_true_random=False))
def test_nobody_overtakes_on_a_key_and_everybody_runs(wanted: list[list[bytes]], rng: object) -> None:
    queue = KeyQueue()
    running: list[int] = []
    finished: list[int] = []
    tickets = [Ticket(keys, lambda number=number: running.append(number)) for number, keys in enumerate(wanted)]  # type: ignore[misc]
    pending = list(range(len(tickets)))
    while pending or running:
        if pending and (not running or rng.random() < 0.5):  # type: ignore[attr-defined]
            queue.enter(tickets[pending.pop(0)])
        else:
            number = running.pop(rng.randrange(len(running)))  # type: ignore[attr-defined]
            keys = set(tickets[number].keys)
            assert all(keys.isdisjoint(tickets[other].keys) for other in running)
            finished.append(number)
            queue.leave(tickets[number])
    assert sorted(finished) == list(range(len(tickets)))
    for key in KEYS:
        of_key = [number for number in finished if key in tickets[number].keys]
        assert of_key == sorted(of_key)
    assert len(queue) == 0
