"""Several coordinators and replicas: whatever arrives when, nobody waits for ever, copies agree, and order is kept."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from respkv.config.quorums import Quorums
from respkv.versions.records import value_of
from tests.coordinator.network import Connection, Network, Set

KEYS = [b"a", b"b", b"{a}c"]
KINDS = ["set", "set", "set", "exchange", "exchange", "deliver", "deliver", "leap", "wait", "cut", "heal"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**16 - 1)), min_size=5, max_size=80)


def play(network: Network, steps: list[tuple[str, int]], *, faults: bool) -> list[Set]:
    machines = list(network.machines.values())
    connections = [Connection(machines[number % len(machines)], number) for number in range(2 * len(machines))]
    pairs = list(network.links)
    for step, number in steps:
        match step:
            case "set":
                connection = connections[number % len(connections)]
                connection.set(KEYS[number // 64 % len(KEYS)])
                if number & 1024:
                    connection.machine.end()
            case "exchange":
                network.exchange(machines[number % len(machines)].name, late=pairs[number // 8 % len(pairs)] if pairs else None)
            case "deliver":
                waiting = [pair for pair in pairs if network.links[pair]]
                if waiting:
                    network.deliver(*waiting[number % len(waiting)])
                else:
                    machines[number % len(machines)].end()
            case "leap":
                clock = machines[number % len(machines)].clock
                clock.absorb(clock.last + number // 8)
            case "wait":
                network.pass_time((0.01, 0.06, 0.4)[number % 3])
            case "cut" if faults:
                network.cut(*pairs[number % len(pairs)])
            case "heal" if faults:
                network.heal(*pairs[number % len(pairs)])
            case _:
                pass
    network.settle()
    return [command for connection in connections for command in connection.said]


def check(network: Network, said: list[Set], *, real_time: bool) -> None:
    # Nobody waits for ever, and nothing is left behind.
    assert all(command.reply is not None for command in said)
    for machine in network.machines.values():
        coordinator = machine.coordinator
        assert len(coordinator.writes) == len(coordinator.reads) == coordinator.waiting_count == 0
        assert coordinator.writes.oldest_turn() is None
        assert coordinator.next_due() is None
        assert machine.hints.count() == 0
        assert machine.hints.bytes == 0
    for key in KEYS:
        table = next(iter(network.machines.values())).coordinator.table
        assert table is not None
        owners = table.primaries(next(iter(network.machines.values())).store.partition(key))
        held = {name: machine.store.get(key) for name, machine in network.machines.items()}
        assert len({held[owner] for owner in owners}) == 1
        assert not any(record for name, record in held.items() if name not in owners)
        of_key = [command for command in said if command.key == key]
        winner = value_of(held[owners[0]], 0)
        done = [command for command in of_key if command.reply == b"+OK\r\n"]
        if winner is None:
            assert not done
            continue
        (won,) = [command for command in of_key if command.value == winner]
        later = [command for command in done if command.connection is won.connection and command.number > won.number]
        assert not later, "an earlier write of a connection won over a later one"
        if real_time and won.reply == b"+OK\r\n":
            assert not [command for command in done if command.said_at > won.replied_at], "a later write lost to an earlier one"


@settings(max_examples=150)
@given(steps=STEPS, count=st.integers(1, 5), skew=st.lists(st.integers(0, 5) | st.integers(0, 2000), min_size=1, max_size=5))
def test_without_faults(steps: list[tuple[str, int]], count: int, skew: list[int]) -> None:
    n = min(count, 3)
    network = Network(count, Quorums(n, n // 2 + 1, n // 2 + 1, 0, 0), skew=skew)
    check(network, play(network, steps, faults=False), real_time=False)


@settings(max_examples=150)
@given(
    steps=STEPS,
    count=st.integers(2, 5),
    w=st.integers(1, 3),
    sloppy=st.booleans(),
    skew=st.lists(st.integers(0, 5) | st.integers(0, 2000), min_size=1, max_size=5),
)
def test_with_links_that_break(steps: list[tuple[str, int]], count: int, w: int, sloppy: bool, skew: list[int]) -> None:  # noqa: FBT001
    n = min(count, 3)
    network = Network(count, Quorums(n, n // 2 + 1, min(w, n), 0, 0), sloppy=sloppy, skew=skew)
    check(network, play(network, steps, faults=True), real_time=False)


@settings(max_examples=150)
@given(steps=STEPS, count=st.integers(3, 5), skew=st.lists(st.integers(0, 2000), min_size=2, max_size=5))
def test_a_later_write_does_not_lose_to_an_earlier_one_because_of_a_clock(
    steps: list[tuple[str, int]], count: int, skew: list[int]
) -> None:
    network = Network(count, Quorums(3, 2, 2, 0, 0), skew=skew)
    # Time stands still: nobody stands in for anybody.
    steps = [(step, number) for step, number in steps if step != "wait"]
    check(network, play(network, steps, faults=False), real_time=True)
