"""What one connection may rely on, and what commands on one key may rely on, whichever nodes they come through."""

from __future__ import annotations

import gc
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respkv.commands.context import Request
from tests.commands.harness import World, split_replies

NODES = [1, 3, 5]
RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("nodes", NODES)
def test_a_read_before_a_write_reads_the_old_value_and_one_behind_it_the_new(nodes: int) -> None:
    world = World(nodes)
    for index in range(nodes):
        client = world.connect(index)
        for key in ("a", "b", "c", "d", "e", "f"):
            client.ask(f"SET {key} old")
            assert client.ask(f"GET {key}", f"SET {key} new", f"GET {key}") == b"$3\r\nold\r\n+OK\r\n$3\r\nnew\r\n"


@pytest.mark.parametrize("nodes", NODES)
def test_a_command_that_looks_sees_the_blind_writes_before_it(nodes: int) -> None:
    world = World(nodes)
    for index in range(nodes):
        client = world.connect(index)
        for key in ("a", "b", "c", "d", "e", "f"):
            sent = [f"SET {key} 5", f"INCR {key}", f"GET {key}", f"SETEX {key} 100 7", f"APPEND {key} 0", f"TTL {key}", f"DEL {key}"]
            assert client.ask(*sent) == b"+OK\r\n:6\r\n$1\r\n6\r\n+OK\r\n:2\r\n:100\r\n:1\r\n"
            assert client.ask(f"SET {key} 5 NX", f"SET {key} 6 NX", f"GETDEL {key}", f"EXISTS {key}") == b"+OK\r\n$-1\r\n$1\r\n5\r\n:0\r\n"


@RELAXED
@given(data=st.data(), nodes=st.sampled_from([2, 3, 5]), seed=st.integers(0, 2**32))
def test_a_connection_sees_its_own_commands_in_order(data: st.DataObject, nodes: int, seed: int) -> None:
    """A model of one connection on few keys: nobody else writes, so each reply is known."""
    world = World(nodes, seed=seed, delay_s=(0.0001, 0.02))
    client = world.connect(data.draw(st.integers(0, nodes - 1)))
    state: dict[str, int] = {}
    sent: list[str] = []
    expected = b""
    for _ in range(data.draw(st.integers(1, 40))):
        key, number = data.draw(st.sampled_from("abcd")), data.draw(st.integers(0, 99))
        match data.draw(st.sampled_from(["SET", "GET", "INCR", "DEL", "SETNX", "SETEX", "GETSET"])):
            case "SET":
                sent.append(f"SET {key} {number}")
                state[key] = number
                expected += b"+OK\r\n"
            case "GET":
                sent.append(f"GET {key}")
                expected += bulk(state.get(key))
            case "INCR":
                sent.append(f"INCR {key}")
                state[key] = state.get(key, 0) + 1
                expected += b":%d\r\n" % state[key]
            case "DEL":
                sent.append(f"DEL {key} {key}x")
                expected += b":%d\r\n" % (state.pop(key, None) is not None)
            case "SETNX":
                sent.append(f"SETNX {key} {number}")
                expected += b":%d\r\n" % (key not in state)
                state.setdefault(key, number)
            case "SETEX":
                sent.append(f"SETEX {key} 1000 {number}")
                state[key] = number
                expected += b"+OK\r\n"
            case _:
                sent.append(f"GETSET {key} {number}")
                expected += bulk(state.get(key))
                state[key] = number
    client.post(*sent)
    assert client.replies(len(sent)) == expected


def bulk(number: int | None) -> bytes:
    return b"$-1\r\n" if number is None else b"$%d\r\n%d\r\n" % (len(str(number)), number)


@pytest.mark.parametrize("nodes", [3, 5])
def test_increments_through_all_nodes_end_at_the_exact_sum(nodes: int) -> None:
    world = World(nodes, seed=nodes)
    rng = random.Random(7)
    clients = [world.connect(index) for index in range(nodes) for _ in range(4)]
    total = 0
    for _ in range(20):
        for client in clients:
            steps = [rng.randrange(1, 9) for _ in range(rng.randrange(8))]
            total += sum(steps)
            client.post(*[f"INCRBY counter {step}" for step in steps])
        world.run(rng.uniform(0, 0.01))
    world.run(15.0)
    replies = [reply for client in clients for reply in split_replies(client.take())]
    assert clients[0].ask("GET counter") == bulk(total)
    assert len(set(replies)) == len(replies), "no two commands saw the same number"
    assert max(int(reply[1:]) for reply in replies) == total


@pytest.mark.parametrize("seed", range(8))
def test_two_set_nx_never_both_win(seed: int) -> None:
    world = World(5, seed=seed)
    clients = [world.connect(index) for index in range(5)]
    for number in range(20):
        for index, client in enumerate(clients):
            client.post(f"SET lock:{number} {index} NX" if index % 2 else f"SETNX lock:{number} {index}")
        world.run(0.2)
        wins = [client.take() in {b"+OK\r\n", b":1\r\n"} for client in clients]
        assert wins.count(True) == 1
        assert clients[0].ask(f"GET lock:{number}") == bulk(wins.index(True))


def test_msetnx_with_one_hash_tag_excludes_other_writers_that_look() -> None:
    world = World(3, seed=3)
    clients = [world.connect(index) for index in range(3)]
    for number in range(20):
        for index, client in enumerate(clients):
            client.post(f"MSETNX {{t{number}}}a {index} {{t{number}}}b {index}")
        world.run(0.2)
        assert sorted(client.take() for client in clients) == [b":0\r\n", b":0\r\n", b":1\r\n"]


@pytest.mark.parametrize("seed", range(4))
def test_msetnx_of_the_same_keys_in_any_order_excludes_each_other(seed: int) -> None:
    # It was checked at the first key's primary: two nodes let in one each.
    world = World(5, seed=seed)
    clients = [world.connect(index) for index in range(5)]
    for number in range(20):
        keys = [f"a{number}", f"b{number}", f"c{number}"]
        for index, client in enumerate(clients):
            order = keys[index % 3 :] + keys[: index % 3]
            client.post("MSETNX " + " ".join(f"{key} {index}" for key in order))
        world.run(0.2)
        assert sorted(client.take() for client in clients) == [b":0\r\n"] * 4 + [b":1\r\n"]
        values = clients[0].ask(f"MGET {' '.join(keys)}").split(b"\r\n")[2::2]
        assert len(set(values)) == 1


def test_a_long_queue_on_one_key_is_no_recursion() -> None:
    """Commands that wait for a key and then end at once, one after the other."""
    world = World(3, read_quorum="1", write_quorum="3")
    clients = [world.connect(index % 3) for index in range(3000)]
    for client in clients:
        client.post("SETNX k v")
    world.run(2.0)
    replies = [client.take() for client in clients]
    assert replies.count(b":1\r\n") == 1
    assert replies.count(b":0\r\n") == 2999


def test_a_stopped_key_does_not_stop_the_others() -> None:
    """Commands on other keys run on while one waits for its primary; replies keep their order all the same."""
    world = World(3)
    client = world.connect(0)
    assert client.ask("INCR a", "SET b 1", "GET b", "INCR c", "PING") == b":1\r\n+OK\r\n$1\r\n1\r\n:1\r\n+PONG\r\n"


@pytest.mark.parametrize("seed", range(6))
def test_acknowledged_increments_survive_the_death_of_the_primary(seed: int) -> None:
    world = World(5, seed=seed)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"counter") == node.me)
    clients = [world.connect(index) for index in range(5) if index != primary]
    sent = 0
    for round_number in range(40):
        if round_number == 20:
            world.crash(primary)
        for client in clients:
            client.post("INCR counter")
            sent += 1
        world.run(0.05)
    world.run(5.0)
    replies = [reply for client in clients for reply in split_replies(client.take())]
    numbers = [int(reply[1:]) for reply in replies if reply.startswith(b":")]
    assert len(replies) == sent
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) > sent - 10
    told = clients[0].ask("GET counter")
    assert len(numbers) <= int(told.split(b"\r\n")[1]) <= sent


@pytest.mark.parametrize("count", [1, 3])
def test_a_command_leaves_nothing_for_the_garbage_collector(count: int) -> None:
    """It comes seldom, and what a long MGET held would fill the memory until then."""
    world = World(count)
    client = world.connect(0)
    lines = ["MGET a b c", "DEL a b", "INCR n", "EXPIRE n 100", "SET q 1 NX", "MSET a 1 b 2", "EXISTS a", "SETNX n 1"]
    client.ask(*lines)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            client.ask(*lines)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = sum(isinstance(found, Request) for found in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == 0
