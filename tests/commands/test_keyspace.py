from __future__ import annotations

import hiredis
import pytest

from tests.commands.node_alone import Caller, World


def fill(world: World, count: int) -> set[bytes]:
    client = world.client()
    names = {b"key:%d" % number for number in range(count)}
    for name in names:
        assert client("SET", name, "value") == b"OK"
    return names


def scan_all(client: Caller, *options: str | int) -> list[bytes]:
    found: list[bytes] = []
    cursor = b"0"
    for _ in range(10_000):
        cursor, keys = client("SCAN", cursor, *options)
        found += keys
        if cursor == b"0":
            return found
    raise AssertionError("SCAN does not end")


@pytest.mark.parametrize("count", [1, 3, 5])
def test_every_node_tells_all_keys_of_the_cluster(count: int) -> None:
    world = World(count)
    names = fill(world, 300)
    for index in range(count):
        client = world.client(index)
        assert client("DBSIZE") == 300
        assert sorted(client("KEYS", "*")) == sorted(names)
        assert sorted(scan_all(client)) == sorted(names)
        assert client("RANDOMKEY") in names


def test_in_the_scope_of_primaries_the_nodes_add_up_to_the_cluster() -> None:
    world = World(4, scan_scope="primary")
    names = fill(world, 200)
    clients = [world.client(index) for index in range(4)]
    told = [client("KEYS", "*") for client in clients]
    assert sorted(key for keys in told for key in keys) == sorted(names)
    assert [client("DBSIZE") for client in clients] == list(map(len, told))
    assert [sorted(scan_all(client, "COUNT", 7)) for client in clients] == list(map(sorted, told))
    assert clients[0]("RANDOMKEY") in told[0]


def test_a_scan_can_be_begun_on_one_node_and_ended_on_others() -> None:
    world = World(3)
    names = fill(world, 500)
    clients = [world.client(index) for index in range(3)]
    found: list[bytes] = []
    cursor, turn = b"0", 0
    while True:
        cursor, keys = clients[turn % 3]("SCAN", cursor, "COUNT", 20)
        assert int(cursor) < 2**53
        found += keys
        turn += 1
        if cursor == b"0":
            break
    assert turn > 10
    assert sorted(found) == sorted(names)


def test_a_scan_meets_what_was_there_throughout_while_keys_come_and_go() -> None:
    world = World(3)
    names = fill(world, 300)
    client, other = world.client(0), world.client(1)
    found: set[bytes] = set()
    cursor, number = b"0", 0
    while True:
        cursor, keys = client("SCAN", cursor, "COUNT", 10)
        found.update(keys)
        number += 1
        other("SET", f"new:{number}", "value")
        if cursor == b"0":
            break
    assert names <= found
    assert client("DBSIZE") == 300 + number


def test_match_count_and_type() -> None:
    world = World(3)
    fill(world, 100)
    client = world.client()
    assert sorted(scan_all(client, "MATCH", "key:1?", "COUNT", 50)) == [b"key:1%d" % digit for digit in range(10)]
    assert len(scan_all(client, "TYPE", "string")) == 100
    assert scan_all(client, "TYPE", "list") == []
    cursor, keys = client("SCAN", 0, "COUNT", 1_000_000_000)
    assert (cursor, len(keys)) == (b"0", 100)
    assert client("KEYS", "[") == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("SCAN", "x"), "ERR invalid cursor"),
        (("SCAN", "0", "COUNT", "0"), "ERR syntax error"),
        (("SCAN", "0", "COUNT", "x"), "ERR value is not an integer or out of range"),
        (("SCAN", "0", "COUNT"), "ERR syntax error"),
        (("SCAN", "0", "FOO", "1"), "ERR syntax error"),
        (("FLUSHALL", "NOW"), "ERR syntax error"),
        (("KEYS", "x" * 5000), "ERR pattern is longer than 4096 bytes"),
    ],
)
def test_refusals(words: tuple[str, ...], text: str) -> None:
    reply = World(1).client()(*words)
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply) == text


def test_a_cursor_from_nowhere_ends_the_scan() -> None:
    client = World(1).client()
    assert client("SCAN", 2**64 - 1) == [b"0", []]
    assert client("RANDOMKEY") is None


def test_deleted_and_flushed_keys_are_gone() -> None:
    world = World(3)
    fill(world, 50)
    client = world.client(1)
    assert client("FLUSHALL") == b"OK"
    assert [world.client(index)("DBSIZE") for index in range(3)] == [0, 0, 0]
    assert client("KEYS", "*") == []
    client("SET", "a", "1")
    assert client("KEYS", "*") == [b"a"]
    assert client("FLUSHDB", "ASYNC") == b"OK"
    assert scan_all(client) == []


def test_flushing_in_the_scope_of_primaries_leaves_the_keys_of_others() -> None:
    world = World(3, scan_scope="primary")
    fill(world, 120)
    clients = [world.client(index) for index in range(3)]
    sizes = [client("DBSIZE") for client in clients]
    assert clients[0]("FLUSHALL") == b"OK"
    assert [client("DBSIZE") for client in clients] == [0, *sizes[1:]]
    assert [clients[1]("FLUSHALL"), clients[2]("FLUSHALL")] == [b"OK", b"OK"]
    assert [client("DBSIZE") for client in clients] == [0, 0, 0]


def test_when_a_node_dies_the_others_speak_for_its_partitions() -> None:
    world = World(5)
    names = fill(world, 200)
    world.kill(2)
    world.advance(2.0)
    client = world.client(0)
    assert client("DBSIZE") == 200
    assert sorted(scan_all(client)) == sorted(names)


def test_without_any_replica_of_some_partitions_the_answer_is_refused() -> None:
    world = World(3, replication_factor="1")
    fill(world, 10)
    world.kill(2)
    world.advance(2.0)
    reply = world.client(0)("DBSIZE")
    assert str(reply).startswith("NOQUORUM no replica of ")


def test_keys_that_are_in_tables_alone_are_told_as_well() -> None:
    world = World(3)
    names = fill(world, 300)
    for process in world.processes:
        process.flush_to_tables()
        assert not process.node.store.resident
    client = world.client(1)
    fresh = {b"fresh:%d" % number for number in range(100)}
    for name in fresh:
        client("SET", name, "value")
    for number in range(10):
        # Overwritten in memory while the tables hold an older version.
        client("SET", f"key:{number}", "other")
    assert client("DBSIZE") == 400
    assert sorted(scan_all(client, "COUNT", 9)) == sorted(names | fresh)
    assert sorted(client("KEYS", "key:*")) == sorted(names)
    assert client("RANDOMKEY") in names | fresh


def test_keys_of_one_hash_tag_are_walked_in_portions() -> None:
    world = World(1)
    client = world.client()
    for number in range(9000):
        client.send("SET", b"{tag}%d" % number, "value")
    world.settle()
    world.processes[0].replies.clear()
    assert len(client("KEYS", "*")) == 9000
    assert len(set(scan_all(client, "COUNT", 500))) == 9000


def test_a_reply_that_no_client_may_have_is_refused() -> None:
    world = World(1, client_output_buffer_limit="normal 1000 0 0")
    fill(world, 100)
    assert str(world.client()("KEYS", "*")).startswith("BUSY the reply would be longer")


def test_a_node_that_is_silent_costs_one_timeout_and_others_are_asked() -> None:
    world = World(5, request_timeout="300")
    names = fill(world, 100)
    client = world.client(0)
    # Stopped, and nobody has noticed.
    world.processes[3].is_alive = False
    before = world.now
    assert client("DBSIZE") == 100
    assert 0.29 < world.now - before < 0.7
    assert sorted(client("KEYS", "*")) == sorted(names)
    assert client("RANDOMKEY") in names


def test_a_node_that_does_not_hold_what_it_is_asked_for_is_asked_again_later() -> None:
    world = World(3, replication_factor="3")
    fill(world, 50)
    victim = world.processes[1].node
    victim.topology.rebuilding = True
    assert world.client(0)("DBSIZE") == 50
    only = World(1)
    fill(only, 5)
    only.processes[0].node.replica.holds = [False] * 64
    client = only.client()
    reply = client("KEYS", "*")
    assert str(reply) == f"TIMEOUT node {only.addresses[0].node[:8]} said ERR it holds not all of these partitions"
