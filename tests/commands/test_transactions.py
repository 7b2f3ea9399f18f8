"""MULTI and EXEC on one node and on clusters: order, errors inside, size, and quorums that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from respkv.commands.table import COMMANDS
from respkv.commands.transactions import Hold
from respkv.coordinator.operations import Ask
from respkv.server import turns
from respkv.storage.parking import KEYS_MAX
from tests.commands.harness import World, split_replies

if TYPE_CHECKING:
    from respkv.coordinator.operations import Steps

NODES = [1, 3, 5]


@pytest.mark.parametrize("nodes", NODES)
def test_commands_of_a_transaction_keep_their_order_per_key(nodes: int) -> None:
    world = World(nodes)
    for index in range(nodes):
        client = world.connect(index)
        client.ask("DEL a b s")
        inside = [
            "SET a 1",
            "INCR a",
            "GET a",
            "SET a x",
            "INCR a",
            "APPEND a y",
            "GET a",
            "DEL a b",
            "EXISTS a",
            "MSET a 1 b 2",
            "MGET a b",
        ]
        replies = split_replies(client.ask("MULTI", *inside, "EXEC"))
        assert replies[-1] == (
            b"*11\r\n+OK\r\n:2\r\n$1\r\n2\r\n+OK\r\n-ERR value is not an integer or out of range\r\n:2\r\n$2\r\nxy\r\n:1\r\n:0\r\n+OK\r\n"
            b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
        )


@pytest.mark.parametrize("nodes", NODES)
def test_what_comes_behind_exec_runs_behind_it(nodes: int) -> None:
    client = World(nodes).connect()
    sent = ["SET a 1", "MULTI", "INCR a", "EXEC", "GET a", "MULTI", "SET a 9", "EXEC", "GET a", "PING"]
    assert client.ask(*sent) == (b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n$1\r\n2\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n$1\r\n9\r\n+PONG\r\n")


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_transaction_is_one_round_not_one_for_each_command(nodes: int) -> None:
    world = World(nodes, delay_s=(0.01, 0.01))
    client = world.connect()
    began = world.now
    replies = client.ask("MULTI", *[f"SET k{number} v" for number in range(500)], *[f"GET q{number}" for number in range(500)], "EXEC")
    assert replies.endswith(b"*1000\r\n" + b"+OK\r\n" * 500 + b"$-1\r\n" * 500)
    assert world.now - began < 0.05


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("line", ["SET k{} v", "INCR k{}", "INCR one", "SET one {}", "PING"])
def test_a_transaction_may_be_long(nodes: int, line: str) -> None:
    world = World(nodes)
    client = world.connect()
    client.post("MULTI", *[line.format(number) for number in range(2500)], "EXEC", "ECHO end")
    world.run_until(lambda: world.output[client.client_id].endswith(b"$3\r\nend\r\n"), within_s=60.0)
    replies = split_replies(client.take())
    assert len(replies) == 2503
    inside = split_replies(replies[-2].split(b"\r\n", 1)[1])
    assert len(inside) == 2500
    if line == "INCR one":
        assert inside == [b":%d\r\n" % number for number in range(1, 2501)]


def test_a_transaction_beyond_the_limit_of_input_closes_the_client() -> None:
    world = World(client_query_buffer_limit="1mb")
    client = world.connect()
    client.post("MULTI")
    for _ in range(30):
        client.post([b"SET", b"k", b"x" * 40000])
    assert client.is_closed
    assert "client-query-buffer-limit" in world.events[-1][1]
    assert world.connect().ask("GET k") == b"$-1\r\n"


def test_without_its_quorums_nothing_of_a_transaction_is_done() -> None:
    world = World(3, write_quorum="all", sloppy_quorum="no")
    client = world.connect()
    world.crash(2)
    replies = split_replies(client.ask("MULTI", "GET a", "SET a 1", "EXEC", "GET a", "PING"))
    assert replies[3] == b"-NOQUORUM write needs 3 replicas, 2 can answer; nothing was done\r\n"
    assert replies[4:] == [b"$-1\r\n", b"+PONG\r\n"]
    assert client.ask("MULTI", "GET a", "EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n"


def test_a_read_inside_a_writing_command_needs_its_quorum_too() -> None:
    world = World(3, read_quorum="all", write_quorum="one", sloppy_quorum="no")
    client = world.connect()
    world.crash(2)
    replies = split_replies(client.ask("MULTI", "SET a 1", "INCR b", "EXEC", "MULTI", "SET a 1", "EXEC"))
    assert replies[3].startswith(b"-NOQUORUM read needs 3")
    assert replies[-1] == b"*1\r\n+OK\r\n"


def test_an_overloaded_node_refuses_a_transaction_as_a_whole_or_not_at_all() -> None:
    world = World(3, coordinator_in_flight_max="100")
    crowd, client = world.connect(0), world.connect(0)
    client.ask("MULTI", *[f"SET k{number} v" for number in range(5)])
    crowd.ask("MULTI", *[f"INCR c{number}" for number in range(500)])
    crowd.post("EXEC")
    assert client.ask("EXEC").startswith(b"-BUSY too many requests wait")
    replies = split_replies(crowd.replies(1)[len(b"*500\r\n") :])
    assert replies == [b":1\r\n"] * 500
    assert client.ask("GET k1", "MULTI", "SET k1 v", "EXEC").endswith(b"*1\r\n+OK\r\n")


def test_an_abandoned_transaction_does_not_reach_into_the_next() -> None:
    client = World().connect()
    assert client.ask("MULTI", "NOSUCH", "DISCARD", "MULTI", "PING", "EXEC").endswith(b"*1\r\n+PONG\r\n")
    assert client.ask("MULTI", "NOSUCH", "EXEC x", "MULTI", "PING", "EXEC").endswith(b"*1\r\n+PONG\r\n")
    assert client.ask("MULTI", "NOSUCH", "RESET", "MULTI", "PING", "EXEC").endswith(b"*1\r\n+PONG\r\n")


def test_commands_inside_speak_of_the_client_outside() -> None:
    client = World().connect()
    inside = ["CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT ID", "HELLO 3", "GET nosuch", "READONLY", "NOSUCHKEY"]
    client.ask("MULTI", *inside[:-1])
    reply = client.ask("EXEC")
    assert reply.startswith(b"*6\r\n+OK\r\n$2\r\nme\r\n:%d\r\n%%7\r\n" % client.client_id)
    assert reply.endswith(b"*0\r\n_\r\n+OK\r\n")
    assert client.ask("CLIENT GETNAME", "GET nosuch") == b"$2\r\nme\r\n_\r\n"


@pytest.mark.parametrize("policy", ["lww", "siblings"])
def test_watch_makes_exec_fail_if_a_key_has_changed(policy: str) -> None:
    world = World(3, conflict_resolution=policy)
    client, other = world.connect(0), world.connect(1)
    assert client.ask("SET a 1", "WATCH a b", "MULTI", "SET a 2", "EXEC") == b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"
    for change in ("SET a 2", "SET b x", "DEL a", "SET a 1 PX 100000", "PEXPIRE a 50000", "DEL b"):
        client.ask("WATCH a b", "MULTI", "SET a 3")
        other.ask(change)
        assert client.ask("EXEC", "GET a") != b"*1\r\n+OK\r\n$1\r\n3\r\n", change
    client.ask("HELLO 3", "WATCH a")
    other.ask("SET a 9")
    assert client.ask("MULTI", "GET a", "EXEC", "GET a") == b"+OK\r\n+QUEUED\r\n_\r\n$1\r\n9\r\n"


@pytest.mark.parametrize("seed", range(4))
def test_of_transactions_that_watch_one_key_no_two_succeed_on_what_both_have_read(seed: int) -> None:
    """Clients of all nodes add one to a number at once, again and again: each success counts."""
    world = World(5, seed=seed)
    clients = [world.connect(index % 5) for index in range(8)]
    clients[0].ask("SET n 0", "SET m 0")
    successes = 0
    for _ in range(12):
        for client in clients:
            client.post("WATCH n m", "GET n")
        world.run(0.5)
        for client in clients:
            number = int(client.take().split(b"\r\n")[2])
            client.post("MULTI", f"SET n {number + 1}", "EXEC")
            world.run(world.rng.choice((0, 0.0005, 0.002)))
        world.run(0.5)
        won = [client.take().endswith(b"*1\r\n+OK\r\n") for client in clients]
        assert sum(won) == 1
        successes += sum(won)
    assert clients[0].ask("GET n") == b"$2\r\n12\r\n"
    assert successes == 12


def test_a_place_whose_holder_died_is_free_again() -> None:
    world = World(3)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    first, second = (world.connect((primary + step) % 3) for step in (1, 2))
    first.ask("WATCH k", "MULTI", "SET k 1")
    second.ask("WATCH k", "MULTI", "SET k 2")
    first.post("EXEC")
    world.run_until(lambda: len(world.nodes[primary].operations.queue) > 0)
    world.crash(first.index)
    assert second.ask("EXEC").startswith((b"-BUSY", b"-TIMEOUT"))
    world.run(5.0)
    assert len(world.nodes[primary].operations.queue) == 0
    assert second.ask("WATCH k", "MULTI", "SET k 3", "EXEC").endswith(b"*1\r\n+OK\r\n")


def test_a_place_that_was_granted_too_late_is_free_again() -> None:
    """The primary stands still for a while; then it reads what was asked of it meanwhile, and that nobody waits for it any more."""
    world = World(3)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    client = world.connect((primary + 1) % 3)
    client.ask("WATCH k", "MULTI", "SET k 1")
    world.down.add(primary)
    assert client.ask("EXEC").startswith(b"-TIMEOUT the primary of a watched key")
    world.run(0.1)
    world.down.remove(primary)
    world.arrive(primary)
    world.run(0.1)
    assert len(world.nodes[primary].operations.queue) == 0


@pytest.mark.parametrize(("is_back_at_once", "free_after_s"), [(True, 0.1), (False, 1.1)])
def test_a_place_whose_asker_heard_nothing_because_the_link_broke_is_free_again(free_after_s: float, *, is_back_at_once: bool) -> None:
    world = World(3)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    client, name = world.connect((primary + 1) % 3), world.nodes[primary].me
    client.ask("WATCH k", "MULTI", "SET k 1")
    client.post("EXEC")
    closed, opened = (turns.PEER_CLOSED, name, "reset"), (turns.PEER_OPENED, name)
    for arrivals in [(closed, opened)] if is_back_at_once else [(closed,), (opened,)]:
        world.arrive(client.index, *arrivals)
    assert client.replies(1).startswith(b"-TIMEOUT the primary of a watched key")
    world.run(free_after_s)
    assert len(world.nodes[primary].operations.queue) == 0


def test_a_place_that_is_given_back_before_it_is_granted_is_held_for_nobody() -> None:
    world = World(3)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    operations, name = world.nodes[primary].operations, world.nodes[primary].me

    def ask(call: str, argument: bytes) -> Steps:
        yield Ask([name], call, argument)
        return b""

    operations.start(ask("hold", msgspec.msgpack.encode(Hold(b"k", b"another"))), on_done=lambda _: None)
    client = world.connect((primary + 1) % 3)
    client.ask("WATCH k", "MULTI", "SET k 1")
    client.post("EXEC")
    world.run(0.01)
    assert len(operations.queue) == 1
    world.arrive(client.index, (turns.PEER_CLOSED, name, "reset"), (turns.PEER_OPENED, name))
    world.run(0.1)
    operations.start(ask("release", b"another"), on_done=lambda _: None)
    world.run(0.2)
    assert len(operations.queue) == 0


def test_a_place_is_given_back_while_too_much_waits_for_the_disk() -> None:
    world = World(3)
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    client, node = world.connect((primary + 1) % 3), world.nodes[primary]
    client.ask("WATCH k", "MULTI", "SET k 1")
    client.post("EXEC")
    world.run_until(lambda: len(node.operations.queue) > 0)
    node.parking.keys_waiting += KEYS_MAX
    world.run(0.5)
    node.parking.keys_waiting -= KEYS_MAX
    assert client.replies(1) == b"*1\r\n+OK\r\n"
    assert len(node.operations.queue) == 0


@pytest.mark.parametrize("nodes", [1, 3])
def test_exec_after_watch_waits_for_no_timer(nodes: int) -> None:
    world = World(nodes)
    client = world.connect()
    for number in range(1, 50):
        began = world.now
        assert client.ask("WATCH a", "MULTI", "INCR a", "EXEC").endswith(b"*1\r\n:%d\r\n" % number)
        assert world.now - began < (0.001 if nodes == 1 else 0.03)
        world.run(0.001)


def test_what_ends_a_watch() -> None:
    world = World(3)
    client, other = world.connect(0), world.connect(1)
    for end in ("UNWATCH", "DISCARD", "EXEC", "EXEC x", "RESET"):
        client.ask("SET a 1", "WATCH a")
        if end.startswith(("DISCARD", "EXEC")):
            client.ask("MULTI", end)
        else:
            client.ask(end)
        other.ask("SET a 2")
        assert client.ask("MULTI", "GET a", "EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n$1\r\n2\r\n", end


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("end", [["UNWATCH"], ["MULTI", "DISCARD"], ["RESET"], ["MULTI", "EXEC"], ["MULTI", "EXEC x"]])
def test_what_ends_a_watch_ends_it_in_one_packet_too(end: list[str], nodes: int) -> None:
    world = World(nodes)
    client, other = world.connect(0), world.connect(0)
    client.ask("SET a 1")
    client.ask("WATCH a", *end)
    other.ask("SET a 2")
    assert client.ask("MULTI", "GET a", "EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n$1\r\n2\r\n"


def test_a_watched_key_that_expires_has_changed() -> None:
    world = World(3)
    client = world.connect(0)
    client.ask("SET a 1 PX 500", "WATCH a")
    world.run(1.0)
    assert client.ask("MULTI", "PING", "EXEC") == b"+OK\r\n+QUEUED\r\n*-1\r\n"


def test_a_deletion_whose_remains_go_is_no_change() -> None:
    world = World(3)
    client = world.connect(0)
    client.ask("SET a 1", "DEL a", "WATCH a")
    for node in world.nodes:
        node.store.forget(node.store.partition(b"a"), b"a")
    assert client.ask("MULTI", "SET a 2", "EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"


def test_watch_inside_a_transaction_and_an_empty_one() -> None:
    client = World().connect()
    assert client.ask("WATCH a", "MULTI", "WATCH a", "PING", "EXEC") == (
        b"+OK\r\n+OK\r\n-ERR WATCH inside MULTI is not allowed\r\n+QUEUED\r\n*1\r\n+PONG\r\n"
    )
    assert client.ask("WATCH a", "MULTI", "EXEC", "EXEC") == b"+OK\r\n+OK\r\n*0\r\n-ERR EXEC without MULTI\r\n"


def test_exec_counts_once_and_so_does_what_it_runs() -> None:
    world = World(3)
    before = {name: COMMANDS[name].statistics.calls for name in ("MULTI", "EXEC", "INCR", "PING")}
    world.connect().ask("MULTI", "INCR a", "INCR b", "PING", "EXEC")
    counted = {name: COMMANDS[name].statistics.calls - calls for name, calls in before.items()}
    assert counted == {"MULTI": 1, "EXEC": 1, "INCR": 2, "PING": 1}
