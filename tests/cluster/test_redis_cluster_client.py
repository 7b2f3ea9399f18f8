"""redis-py's RedisCluster: it computes slots, talks straight to replicas, and goes on when nodes die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from tests.cluster.harness import HOST, Cluster, running_cluster, wait_until

pytestmark = pytest.mark.cluster

PRIMARIES = redis.RedisCluster.PRIMARIES
KEYS = [f"key:{index}" for index in range(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=5) as found:
        yield found


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(cluster: Cluster, request: pytest.FixtureRequest) -> int:
    """Every test begins with an empty cluster, all of it up."""
    cluster.start()
    cluster.wait_settled()
    set_scope(cluster, "cluster")
    assert cluster[0].ask("FLUSHALL") == b"OK"
    return int(request.param)


def client_of(cluster: Cluster, protocol: int) -> redis.RedisCluster:
    """It tries again by itself; how often is its user's affair."""
    nodes: list[Any] = [ClusterNode(HOST, node.port) for node in cluster.running]  # type: ignore[no-untyped-call]
    return redis.RedisCluster(startup_nodes=nodes, protocol=protocol, retry=Retry(ConstantBackoff(0.2), 20))


@pytest.fixture
def client(cluster: Cluster, protocol: int) -> Iterator[Any]:
    # Much of RedisCluster has no types.
    with client_of(cluster, protocol) as found:
        yield found


def set_scope(cluster: Cluster, scope: str) -> None:
    for node in cluster.running:
        assert node.ask("CONFIG", "SET", "scan-scope", scope) == b"OK"


def write_all(client: Any, value: str) -> None:
    for key in KEYS:
        assert client.set(key, value)


def test_every_node_is_a_primary_and_all_slots_are_covered(client: Any) -> None:
    assert len(client.get_primaries()) == 5
    slots = client.nodes_manager.slots_cache
    assert len(slots) == 16384
    owners = {slots[slot][0].name for slot in slots}
    assert len(owners) == 5


def test_commands_reach_their_slots(client: Any) -> None:
    write_all(client, "x")
    assert {client.get(key) for key in KEYS} == {b"x"}
    assert client.mset_nonatomic(dict.fromkeys(KEYS, "y"))
    assert set(client.mget_nonatomic(KEYS)) == {b"y"}
    assert client.incr("{tag}n") == 1
    with client.pipeline() as pipe:
        for key in KEYS:
            pipe.get(key)
        assert set(pipe.execute()) == {b"y"}
    assert client.delete(*KEYS) == len(KEYS)
    with client.pipeline(transaction=True) as pipe:
        pipe.set("{tag}a", 1).incr("{tag}a")
        assert pipe.execute() == [b"OK", 2]


def test_each_node_speaks_for_the_cluster_unless_it_is_told_otherwise(cluster: Cluster, client: Any) -> None:
    """A client of one node wants to hear of all keys; asked once, DBSIZE and SCAN tell of each once."""
    write_all(client, "x")
    cluster.wait_settled()
    # Of several nodes, each of which tells all.
    assert set(client.scan_iter(count=50)) == {key.encode() for key in KEYS}
    # redis-py asks one node, unless it is told to ask all.
    assert client.dbsize() == len(KEYS)
    for node in cluster.nodes:
        with node.client() as plain:
            assert plain.dbsize() == len(KEYS)
            assert sorted(plain.scan_iter(count=50)) == sorted(key.encode() for key in KEYS)


def test_in_the_scope_of_primaries_the_sum_over_nodes_is_right(cluster: Cluster, protocol: int) -> None:
    """This client asks all primaries, and adds up."""
    set_scope(cluster, "primary")
    with client_of(cluster, protocol) as client:
        write_all(client, "x")
        cluster.wait_settled()
        assert client.dbsize(target_nodes=PRIMARIES) == len(KEYS)
        assert sorted(client.scan_iter(count=50)) == sorted(key.encode() for key in KEYS)
        assert sorted(client.keys("key:*", target_nodes=PRIMARIES)) == sorted(key.encode() for key in KEYS)


@pytest.mark.parametrize("protocol", [3], indirect=True)
def test_a_dead_node_stops_nobody(cluster: Cluster, client: Any, protocol: int) -> None:
    """Reading and writing go on for all slots; in both scopes DBSIZE and SCAN tell of every key once."""
    write_all(client, "before")
    dead = cluster[1]
    dead.kill()
    write_all(client, "while")
    assert {client.get(key) for key in KEYS} == {b"while"}
    cluster.wait_seen_down(dead)
    for scope in ("cluster", "primary"):
        set_scope(cluster, scope)
        with client_of(cluster, protocol) as fresh:
            wait_until("the slots are shown under those who live", lambda fresh=fresh: knows_none_of(fresh, dead.port))  # type: ignore[misc]
            write_all(fresh, "after")
            assert {fresh.get(key) for key in KEYS} == {b"after"}
            wait_until("the writes are everywhere", lambda: {node.info()["respkv_batches_in_flight"] for node in cluster.running} == {"0"})
            assert fresh.dbsize(**({"target_nodes": PRIMARIES} if scope == "primary" else {})) == len(KEYS)
            found = list(fresh.scan_iter())
            assert set(found) == {key.encode() for key in KEYS}
            assert scope == "cluster" or len(found) == len(KEYS)
    set_scope(cluster, "cluster")
    for node in cluster.running:
        with node.client() as plain:
            assert plain.dbsize() == len(KEYS)
            assert len(set(plain.scan_iter())) == len(KEYS)
    cluster.start()
    cluster.wait_settled()
    assert {client.get(key) for key in KEYS} == {b"after"}
    assert {value for held in cluster.holdings([key.encode() for key in KEYS]).values() for value in held} == {b"after"}


def knows_none_of(client: Any, port: int) -> bool:
    """Whether a client, after asking again, sends nothing to a port."""
    client.nodes_manager.initialize()
    return all(node.port != port for nodes in client.nodes_manager.slots_cache.values() for node in nodes[:1])


def test_a_pipeline_of_a_hundred_thousand_gets_ends(cluster: Cluster) -> None:
    cluster.start()
    value = b"v" * 1024
    with client_of(cluster, 3) as client:
        for key in KEYS[:100]:
            client.set(key, value)
        pipe: Any
        with client.pipeline() as pipe:
            for index in range(100_000):
                pipe.get(KEYS[index % 100])
            replies = pipe.execute()
    assert len(replies) == 100_000
    assert set(replies) == {value}
