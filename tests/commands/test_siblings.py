"""Keys that keep siblings, as clients meet them: several nodes, plain GET and SET."""

from __future__ import annotations

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter

import pytest

from respkv.commands.causality import CONTEXT_BYTES_MAX
from respkv.server import turns
from respkv.versions.records import siblings_in
from respkv.versions.vectors import context_of, take_apart
from tests.commands.harness import Connection, World, packed, split_replies


def bulks(reply: bytes) -> list[bytes]:
    """The strings in an array of strings."""
    parts = reply.split(b"\r\n")
    return [parts[index + 1] for index in range(len(parts) - 1) if parts[index].startswith(b"$")]


def siblings_and_context(client: Connection, key: str) -> tuple[bytes, set[bytes]]:
    reply = client.ask(f"RESPKV SIBLINGS {key}")
    head = reply.removeprefix(b"*2\r\n$")
    size, _, rest = head.partition(b"\r\n")
    return rest[: int(size)], set(bulks(rest[int(size) + 2 :]))


@pytest.fixture(params=[3, 5])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param, conflict_resolution="siblings", read_quorum="2", write_quorum="2")


def primary_index(world: World, key: bytes) -> int:
    """Which node is the first live primary of a key."""
    return next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(key) == node.me)


def values(client: Connection, key: str) -> set[bytes]:
    return siblings_and_context(client, key)[1]


def test_a_single_writer_never_makes_siblings(world: World) -> None:
    rng = random.Random(1)
    readers = [world.connect(index) for index in range(len(world.nodes))]
    writer = world.connect(1)
    for number in range(60):
        if rng.random() < 0.3:
            writer.ask("GET k")
        assert writer.ask(f"SET k {number}") == b"+OK\r\n"
        assert values(rng.choice(readers), "k") == {b"%d" % number}


def test_two_who_have_read_the_same_leave_both_values_and_who_reads_them_replaces_them(world: World) -> None:
    first, second, third = world.connect(0), world.connect(1), world.connect(2)
    first.ask("SET k old")
    assert first.ask("GET k") == second.ask("GET k") == b"$3\r\nold\r\n"
    assert first.ask("SET k left") == second.ask("SET k right") == b"+OK\r\n"
    assert values(third, "k") == {b"left", b"right"}
    assert {client.ask("GET k") for client in (first, second, third)} == {b"$5\r\nright\r\n"}
    assert third.ask("SET k both") == b"+OK\r\n"
    assert values(first, "k") == {b"both"}


def test_what_was_read_is_used_up_by_the_first_set_that_is_answered(world: World) -> None:
    reader, other = world.connect(0), world.connect(1)
    reader.ask("SET k old")
    reader.ask("GET k")
    other.ask("SET k other")
    reader.ask("SET k first")
    assert values(other, "k") == {b"other", b"first"}
    reader.ask("SET k second")
    assert values(other, "k") == {b"second"}


def test_a_set_that_was_refused_can_be_repeated_and_replaces_no_more_than_was_read() -> None:
    world = World(3, conflict_resolution="siblings", max_siblings="2")
    clients = [world.connect(index % 3) for index in range(4)]
    clients[0].ask("SET k old")
    for client in clients:
        client.ask("GET k")
    answers = [client.ask(f"SET k {number}")[:4] for number, client in enumerate(clients)]
    assert answers == [b"+OK\r", b"+OK\r", b"-TOO", b"-TOO"]
    assert clients[3].ask("SET k 3").startswith(b"-TOOMANYSIBLINGS")
    assert values(clients[0], "k") == {b"0", b"1"}
    # Who reads first may.
    clients[3].ask("GET k")
    assert clients[3].ask("SET k 3") == b"+OK\r\n"
    assert values(clients[0], "k") == {b"3"}


@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize("line", ["SET k retried", "MSET k retried {k}2 v"])
def test_a_set_that_had_no_quorum_can_be_repeated_and_replaces_no_more_than_was_read(line: str, hops: int) -> None:
    world = World(3, conflict_resolution="siblings", read_quorum="2", write_quorum="2")
    primary = primary_index(world, b"k")
    client, other = world.connect((primary + hops) % 3), world.connect((primary + 1) % 3)
    client.ask("SET k old", "GET k")
    other.ask("GET k", "SET k unseen")
    other.ask("CONFIG SET sloppy-quorum no write-quorum all")
    world.crash((primary + 2) % 3)
    world.run(1.0)
    assert client.ask(line).startswith(b"-NOQUORUM")
    assert other.ask("CONFIG SET write-quorum 2") == b"+OK\r\n"
    assert client.ask(line) == b"+OK\r\n"
    assert values(other, "k") == {b"unseen", b"retried"}
    # Then it is used up.
    assert client.ask("SET k last") == b"+OK\r\n"
    assert values(other, "k") == {b"last"}


@pytest.mark.parametrize("line", ["SET k retried", "MSET k retried {k}2 v"])
def test_a_set_whose_link_broke_can_be_repeated_and_replaces_no_more_than_was_read(line: str) -> None:
    world = World(3, conflict_resolution="siblings", read_quorum="2", write_quorum="2")
    primary = primary_index(world, b"k")
    asked = (primary + 1) % 3
    client, other = world.connect(asked), world.connect((primary + 2) % 3)
    client.ask("SET k old", "GET k")
    other.ask("GET k", "SET k unseen")
    client.post(line)
    world.arrive(asked, (turns.PEER_CLOSED, world.nodes[primary].me, "reset"), (turns.PEER_OPENED, world.nodes[primary].me))
    assert client.replies(1).startswith(b"-TIMEOUT")
    assert client.ask(line) == b"+OK\r\n"
    assert values(other, "k") == {b"unseen", b"retried"}


@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize("line", ["EXPIRE k 1000", "PERSIST k", "GETEX k EX 1000", "SET k mine NX", "SETNX k mine"])
def test_what_replaces_no_value_does_not_use_up_what_was_read(line: str, hops: int) -> None:
    world = World(3, conflict_resolution="siblings")
    primary = primary_index(world, b"k")
    client, other = world.connect((primary + hops) % 3), world.connect((primary + 2) % 3)
    client.ask("SET k old", "GET k")
    other.ask("GET k", "SET k unseen")
    client.ask(line)
    assert client.ask("SET k mine") == b"+OK\r\n"
    assert values(other, "k") == {b"unseen", b"mine"}


@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize(
    "line", ["INCR k", "APPEND k 5", "GETSET k 7", "SETRANGE k 0 9", "SET k 7 XX", "SET k 7 GET", "DEL k", "MSETNX {k}2 1 {k}3 1"]
)
def test_one_writer_makes_no_siblings_whatever_it_writes_with(line: str, hops: int) -> None:
    world = World(3, conflict_resolution="siblings")
    primary = primary_index(world, b"k")
    client = world.connect((primary + hops) % 3)
    client.ask("SET k 1", "GET k", line)
    assert client.ask("SET k mine") == b"+OK\r\n"
    assert values(client, "k") == {b"mine"}


@pytest.mark.parametrize("hops", [0, 1])
def test_a_set_behind_resolve_replaces_what_was_resolved(hops: int) -> None:
    world = World(3, conflict_resolution="siblings")
    primary = primary_index(world, b"k")
    client = world.connect((primary + hops) % 3)
    client.ask("SET k 1")
    context = client.ask("RESPKV SIBLINGS k").split(b"\r\n")[2]
    assert client.ask([b"RESPKV", b"RESOLVE", b"k", context, b"resolved"]) == b"+OK\r\n"
    assert client.ask("SET k mine") == b"+OK\r\n"
    assert values(client, "k") == {b"mine"}


def test_what_was_read_ages_out_and_is_bounded() -> None:
    world = World(3, conflict_resolution="siblings", causal_context_ttl="5", causal_context_keys="2")
    reader, other = world.connect(0), world.connect(1)
    for key in ("a", "b", "c"):
        reader.ask(f"SET {key} old", f"GET {key}")
        other.ask(f"SET {key} other")
    assert len(world.nodes[0].clients[reader.client_id].contexts) == 2
    reader.ask("SET a mine")
    assert values(other, "a") == {b"mine"}
    reader.ask("SET b mine")
    assert values(other, "b") == {b"other", b"mine"}
    world.run(6.0)
    reader.ask("SET c mine")
    assert values(other, "c") == {b"mine"}


def test_what_was_read_of_long_keys_is_bounded_by_bytes() -> None:
    # Whoever asked for a thousand long keys that do not exist filled the memory of the node.
    world = World(1, conflict_resolution="siblings")
    reader = world.connect(0)
    contexts = world.nodes[0].clients[reader.client_id].contexts
    for number in range(40):
        reader.ask([b"GET", b"%d" % number + bytes(CONTEXT_BYTES_MAX // 10)])
        reader.ask([b"GET", b"short:%d" % number])
    assert 10 < len(contexts) < 20
    reader.ask([b"GET", bytes(CONTEXT_BYTES_MAX + 1)])
    assert len(contexts) == 0
    reader.ask([b"GET", b"short"])
    reader.ask([b"SET", b"short", b"v"])
    assert len(contexts) == 0


def test_who_read_that_there_was_nothing_replaces_nothing(world: World) -> None:
    first, second = world.connect(0), world.connect(1)
    assert first.ask("GET k") == second.ask("GET k") == b"$-1\r\n"
    first.ask("SET k left")
    second.ask("SET k right")
    assert values(first, "k") == {b"left", b"right"}


def test_resolve_replaces_exactly_what_its_context_has_seen(world: World) -> None:
    first, second, third = world.connect(0), world.connect(1), world.connect(2)
    first.ask("GET k")
    second.ask("GET k")
    first.ask("SET k left")
    second.ask("SET k right")
    context, seen = siblings_and_context(third, "k")
    assert seen == {b"left", b"right"}
    third.ask("GET k")
    first.ask("GET k")
    first.ask("SET k later")
    assert values(second, "k") == {b"later"}
    assert third.ask([b"RESPKV", b"RESOLVE", b"k", context, b"resolved"]) == b"+OK\r\n"
    assert values(second, "k") == {b"later", b"resolved"}
    context, _ = siblings_and_context(second, "k")
    assert second.ask([b"RESPKV", b"RESOLVE", b"k", context, b"all"]) == b"+OK\r\n"
    assert values(first, "k") == {b"all"}


def test_a_context_of_another_key_is_refused_and_hides_nothing_that_nobody_has_seen(world: World) -> None:
    first, second = world.connect(0), world.connect(1)
    first.ask("SET k old", "GET k")
    second.ask("GET k")
    first.ask("SET k left")
    second.ask("SET k right")
    first.ask("SET other v")
    context, _ = siblings_and_context(first, "other")
    reply = first.ask([b"RESPKV", b"RESOLVE", b"k", context, b"lost"])
    assert reply == b"-ERR invalid context: it was given for another key\r\n"
    assert values(first, "k") == {b"left", b"right"}


def test_a_context_that_was_made_up_is_refused(world: World) -> None:
    client = world.connect(0)
    assert client.ask("RESPKV RESOLVE k nonsense v").startswith(b"-ERR invalid context")
    first, last = bytes(7) + b"\x01" + b"actor-aa", b"\xff" * 16
    later = last + b"\0\0"
    hidden = first + b"\x03\0" + last + b"\0\x01\0\0" + first
    header = urlsafe_b64decode(context_of(b"k", b""))
    for context in map(urlsafe_b64encode, (header + later, header + hidden)):
        assert client.ask([b"RESPKV", b"RESOLVE", b"k", context, b"v"]).startswith(b"-ERR invalid context")
    assert client.ask("GET k") == b"$-1\r\n"
    assert client.ask("SET k v", "GET k") == b"+OK\r\n$1\r\nv\r\n"


def test_reading_commands_and_deletions_under_siblings(world: World) -> None:
    client, other = world.connect(0), world.connect(1)
    assert client.ask("INCR n", "INCRBY n 5", "APPEND s ab", "SETRANGE s 2 c", "GETSET s x", "SETNX s y", "GET s", "STRLEN s") == (
        b":1\r\n:6\r\n:2\r\n:3\r\n$3\r\nabc\r\n:0\r\n$1\r\nx\r\n:1\r\n"
    )
    assert client.ask("MSET a 1 b 2 c 3", "MGET a b c") == b"+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"
    assert client.ask("MSETNX a 9 z 9", "MSETNX {y}1 9 {y}2 9", "DEL a b nosuch", "EXISTS a b c") == b":0\r\n:1\r\n:2\r\n:1\r\n"
    assert client.ask("SET t v PX 5000", "PERSIST t", "PTTL t", "GETDEL t", "GET t") == b"+OK\r\n:1\r\n:-1\r\n$1\r\nv\r\n$-1\r\n"
    assert other.ask("DBSIZE", "GET a") == b":5\r\n$-1\r\n"
    assert client.ask("MULTI", "SET q 1", "INCR q", "GET q", "EXEC").endswith(b"*3\r\n+OK\r\n:2\r\n$1\r\n2\r\n")
    assert values(other, "q") == {b"2"}


def test_mset_replaces_what_the_connection_has_read_of_each_key(world: World) -> None:
    first, second = world.connect(0), world.connect(1)
    keys = [f"k{number}" for number in range(12)]
    assert first.ask("MGET " + " ".join(keys)) == second.ask("MGET " + " ".join(keys))
    assert first.ask("MSET " + " ".join(f"{key} left" for key in keys)) == b"+OK\r\n"
    assert second.ask("MSET " + " ".join(f"{key} right" for key in keys)) == b"+OK\r\n"
    assert all(values(first, key) == {b"left", b"right"} for key in keys)


def test_expiry_of_siblings_is_that_of_each(world: World) -> None:
    first, second = world.connect(0), world.connect(1)
    first.ask("GET k")
    second.ask("GET k")
    first.ask("SET k long")
    second.ask("SET k short PX 1000")
    assert first.ask("GET k") == b"$5\r\nshort\r\n"
    world.run(2.0)
    assert first.ask("GET k", "PTTL k") == b"$4\r\nlong\r\n:-1\r\n"
    assert values(second, "k") == {b"long"}
    first.ask("PEXPIRE k 500")
    world.run(1.0)
    assert first.ask("GET k", "EXISTS k") == b"$-1\r\n:0\r\n"
    world.run(1.0)
    assert second.ask("DBSIZE") == b":0\r\n"


def test_too_many_siblings_are_refused_loudly() -> None:
    world = World(3, conflict_resolution="siblings", max_siblings="3")
    clients = [world.connect(index % 3) for index in range(5)]
    for client in clients:
        client.ask("GET k")
    replies = Counter(client.ask(f"SET k {index}").partition(b" ")[0] for index, client in enumerate(clients))
    assert replies == {b"+OK\r\n": 3, b"-TOOMANYSIBLINGS": 2}
    assert len(values(clients[0], "k")) == 3
    assert b"respkv_keys_with_siblings:1\r\n" in clients[0].ask("INFO respkv")
    assert sum(node.coordinator.succession.refused_total for node in world.nodes) == 2
    assert clients[4].ask("GET k", "SET k all").endswith(b"+OK\r\n")
    assert values(clients[0], "k") == {b"all"}
    assert b"respkv_keys_with_siblings:0\r\n" in clients[0].ask("INFO respkv")


def test_siblings_that_have_expired_count_as_well_until_somebody_has_read_them() -> None:
    # Else they were without bound, and in the end more than a record can hold.
    world = World(3, conflict_resolution="siblings", max_siblings="3")
    client, blind = world.connect(0), context_of(b"k", b"")
    replies = []
    for number in range(5):
        replies.append(client.ask([b"RESPKV", b"RESOLVE", b"k", blind, b"%d" % number])[:4])
        client.ask("PEXPIRE k 10")
        world.run(0.3)
    assert replies == [b"+OK\r"] * 3 + [b"-TOO"] * 2
    assert values(client, "k") == set()
    assert client.ask("SET k v") == b"+OK\r\n"
    assert values(client, "k") == {b"v"}
    assert all(len(siblings_in(node.store.get(b"k"))) == 1 for node in world.nodes)


def test_the_policy_of_a_prefix_and_its_change_while_the_cluster_runs() -> None:
    world = World(3)
    first, second = world.connect(0), world.connect(1)
    assert first.ask([b"CONFIG", b"SET", b"conflict-resolution-prefix", b"cart: siblings cart:old: lww"]) == b"+OK\r\n"
    for key in ("cart:1", "cart:old:1", "user:1"):
        for client in (first, second):
            client.ask(f"GET {key}")
        first.ask(f"SET {key} left")
        second.ask(f"SET {key} right")
    assert values(first, "cart:1") == {b"left", b"right"}
    assert values(first, "cart:old:1") == values(first, "user:1") == {b"right"}
    assert first.ask([b"CONFIG", b"SET", b"conflict-resolution-prefix", b"cart: nonsense"]).startswith(b"-ERR CONFIG SET failed")
    assert first.ask("CONFIG SET conflict-resolution siblings") == b"+OK\r\n"
    second.ask("GET user:1")
    first.ask("GET user:1", "SET user:1 a")
    second.ask("SET user:1 b")
    assert values(first, "user:1") == {b"a", b"b"}
    assert first.ask([b"CONFIG", b"SET", b"conflict-resolution", b"lww", b"conflict-resolution-prefix", b""]) == b"+OK\r\n"
    assert first.ask("SET cart:1 last", "GET cart:1") == b"+OK\r\n$4\r\nlast\r\n"
    assert values(second, "cart:1") == {b"last"}


def test_what_was_written_while_the_last_write_won_is_replaced_by_who_has_read_it() -> None:
    world = World(3)
    client, other = world.connect(0), world.connect(1)
    client.ask("SET k plain")
    client.ask("CONFIG SET conflict-resolution siblings")
    assert client.ask("GET k", "SET k dotted") == b"$5\r\nplain\r\n+OK\r\n"
    assert values(other, "k") == {b"dotted"}


def test_the_version_in_words() -> None:
    world = World(3, conflict_resolution="siblings")
    first, second = world.connect(0), world.connect(1)
    first.ask("GET k")
    second.ask("GET k")
    first.ask("SET k left")
    second.ask("SET k right")
    told = bulks(first.ask("RESPKV VERSION k"))
    assert told[0] == b"vector"
    assert sum(b"@" in word for word in told) >= 3
    assert first.ask("RESPKV VERSION nosuch") == b"*4\r\n$6\r\nvector\r\n*0\r\n$8\r\nsiblings\r\n*0\r\n"


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_that_nobody_had_seen(seed: int) -> None:
    """Many clients read and write one key through all nodes; at the end, what is there was written after all that its writer had read."""
    rng = random.Random(seed)
    world = World(5, seed=seed, conflict_resolution="siblings", max_siblings="1000")
    clients = [world.connect(index % 5) for index in range(10)]
    read: dict[int, set[bytes]] = {}
    replaced: set[bytes] = set()
    written: set[bytes] = set()
    for number in range(150):
        client = rng.choice(clients)
        if rng.random() < 0.5:
            read[client.client_id] = values(client, "k")
        elif client.client_id in read:
            value = b"%d" % number
            assert client.ask(f"SET k {number}") == b"+OK\r\n"
            replaced |= read.pop(client.client_id)
            written.add(value)
    assert values(clients[0], "k") == written - replaced


def test_pipelines_keep_their_order_per_key(world: World) -> None:
    client = world.connect(0)
    client.send(b"".join(packed(each) for each in ("SET k 1", "GET k", "SET k 2", "GET k", "DEL k", "GET k", "SET k 3", "GET k")))
    replies = split_replies(client.replies(8))
    assert replies == [b"+OK\r\n", b"$1\r\n1\r\n", b"+OK\r\n", b"$1\r\n2\r\n", b":1\r\n", b"$-1\r\n", b"+OK\r\n", b"$1\r\n3\r\n"]


def test_a_replica_that_gave_up_its_copy_goes_on_as_another_actor_and_nothing_is_covered_unseen() -> None:
    """The oldest Dynamo bug. As the old actor, its next write would hide its earlier one, which it remembers no more."""
    world = World(3, conflict_resolution="siblings", read_quorum="2", write_quorum="3")
    client = world.connect(0)
    assert client.ask("SET k remembered by others").startswith(b"-ERR syntax")
    assert client.ask("SET k remembered") == b"+OK\r\n"
    primary = next(node for node in world.nodes if node.coordinator.primary_of(b"k") == node.me)
    actor = primary.coordinator.actor
    primary.store.forget(primary.store.partition(b"k"), b"k")
    assert client.ask("SET k new") == b"+OK\r\n"
    assert primary.coordinator.actor != actor
    assert client.ask("GET k") == b"$3\r\nnew\r\n"
    assert values(client, "k") == {b"remembered", b"new"}
    assert client.ask("SET k after") == b"+OK\r\n"
    assert values(client, "k") == {b"after"}
    assert len({node.store.get(b"k") for node in world.nodes}) == 1


def test_a_vector_does_not_grow_with_what_happens_to_other_keys(world: World) -> None:
    """Actors would gather in the vector of a key that is written without a pause: it is shortened only when it rests."""
    client = world.connect(0)
    partition = world.nodes[0].store.partition
    keys = {partition(key): key for key in (b"k%d" % number for number in range(60))}
    others = [key for number, key in keys.items() if number != partition(b"hot")]
    for key in others:
        assert client.ask([b"SET", key, b"v"], "INCR hot").startswith(b"+OK\r\n")
        for node in world.nodes:
            node.store.forget(partition(key), key)
    for key in others:
        assert client.ask([b"SET", b"{hot}" + key, b"v"], [b"DEL", b"{hot}" + key], "INCR hot").startswith(b"+OK\r\n:1\r\n")
        for node in world.nodes:
            # What all replicas drop is a loss for nobody.
            node.store.forget(partition(b"hot"), b"{hot}" + key, by_all=True)
    assert int(client.ask("INCR hot")[1:]) == 2 * len(others) + 1 > 20
    assert {len(take_apart(node.store.get(b"hot")).vector) for node in world.nodes if node.store.get(b"hot")} == {1}
