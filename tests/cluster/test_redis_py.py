"""redis-py: both protocols, threads of asyncio, pipelines and transactions, through every node of a cluster of five."""

from __future__ import annotations

import asyncio  # noqa: TID251 - a client of respkv may run under it
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio

from tests.cluster.harness import HOST, Cluster, NodeProcess, running_cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=5) as found:
        yield found


@pytest.fixture(params=range(5), ids=lambda index: f"n{index + 1}")
def node(cluster: Cluster, request: pytest.FixtureRequest) -> NodeProcess:
    return cluster[request.param]


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(node: NodeProcess, request: pytest.FixtureRequest) -> Iterator[Any]:
    with node.client(protocol=request.param) as found:
        yield found


def test_as_it_comes(cluster: Cluster) -> None:
    """With no options at all, whatever this version of redis-py sends when it connects."""
    client: Any
    with redis.Redis(port=cluster[0].port) as client:
        assert client.set("k", "v")
        assert client.get("k") == b"v"
        assert client.client_info()["lib-name"].startswith("redis-py")


def test_strings_and_expiry(client: Any) -> None:
    assert client.set("s", "x", ex=100)
    assert 0 < int(client.ttl("s")) <= 100
    assert client.set("s", "y", nx=True) is None
    assert client.set("s", "y", xx=True, get=True) == b"x"
    assert client.ttl("s") == -1
    assert client.append("s", "z") == 2
    assert client.getrange("s", 0, -1) == b"yz"
    assert client.getex("s", px=60_000) == b"yz"
    assert client.persist("s")
    assert client.getdel("s") == b"yz"
    assert client.get("s") is None
    assert client.delete("s") == 0


def test_numbers(client: Any) -> None:
    assert client.delete("n", "f") in {0, 1, 2}
    assert [client.incr("n"), client.incr("n", 10), client.decr("n", 4)] == [1, 11, 7]
    assert client.incrbyfloat("f", 1.5) == 1.5
    client.set("n", "words")
    with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
        client.incr("n")


def test_many_keys(cluster: Cluster, client: Any) -> None:
    """Of any slots, with one command."""
    pairs = {f"many:{index}": f"{index}" for index in range(100)}
    assert client.mset(pairs)
    assert client.mget(list(pairs)) == [value.encode() for value in pairs.values()]
    assert client.exists(*pairs) == 100
    cluster.wait_settled()
    assert sorted(client.scan_iter("many:*", count=7)) == sorted(key.encode() for key in pairs)
    assert sorted(client.keys("many:*")) == sorted(key.encode() for key in pairs)
    assert client.delete(*pairs) == 100
    assert client.exists(*pairs) == 0


def test_pipelines_and_transactions(client: Any) -> None:
    for transaction in (True, False):
        client.delete("p", "q")
        with client.pipeline(transaction=transaction) as pipe:
            pipe.set("p", 1)
            pipe.incr("p")
            pipe.get("p")
            pipe.get("q")
            pipe.mset({"q": "x"})
            pipe.get("q")
            assert pipe.execute() == [True, 2, b"2", None, True, b"x"]
    with client.pipeline() as pipe:
        pipe.set("p", "words")
        pipe.incr("p")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            pipe.execute()


def test_watched_transactions(cluster: Cluster, client: Any) -> None:
    client.set("w", 1)
    with client.pipeline() as pipe:
        pipe.watch("w")
        number = int(pipe.get("w"))
        pipe.multi()
        pipe.set("w", number + 1)
        assert pipe.execute() == [True]
        pipe.watch("w")
        cluster[2].ask("SET", "w", "changed")
        pipe.multi()
        pipe.set("w", "mine")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert cluster[1].ask("GET", "w") == b"changed"
    assert client.transaction(lambda pipe: pipe.multi() or pipe.incr("w2"), "w2") == [1]
    client.delete("w2")


def test_no_watched_increment_is_lost(cluster: Cluster) -> None:
    def add(pipe: Any) -> None:
        number = int(pipe.get("watched") or 0)
        pipe.multi()
        pipe.set("watched", number + 1)

    def work(node: NodeProcess) -> None:
        with node.client() as client:
            for _ in range(10):
                client.transaction(add, "watched")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, cluster.nodes[:4]))
    assert cluster[4].ask("GET", "watched") == b"40"
    cluster[4].ask("DEL", "watched")


def test_replies_of_the_server(cluster: Cluster, client: Any) -> None:
    info = client.info()
    assert info["cluster_enabled"] == 1
    assert client.config_get("maxmemory") == {"maxmemory": "0"}
    assert client.dbsize() >= 0
    assert len(client.time()) == 2
    assert client.client_setname("tester")
    assert client.client_getname() in {"tester", b"tester"}
    assert len(client.cluster("SLOTS")) > 0
    assert len(client.cluster("NODES")) == len(cluster.nodes)
    assert client.command_count() > 60
    assert client.slowlog_get() is not None
    assert client.memory_usage("none") is None
    assert client.echo("x" * 100_000) == b"x" * 100_000


def test_lock(client: Any) -> None:
    """SET NX PX is all that taking a lock needs; giving it back is a script, which respkv has none of."""
    assert client.set("lock", "token", nx=True, px=10_000)
    assert client.set("lock", "other", nx=True, px=10_000) is None
    assert client.delete("lock") == 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_asyncio(cluster: Cluster, protocol: int) -> None:
    """Fifty tasks on five nodes."""

    async def count(number: int) -> None:
        client: Any
        async with redis.asyncio.Redis(port=cluster[number % 5].port, protocol=protocol) as client:
            assert await client.set(f"task:{number}", number)
            for _ in range(10):
                await client.incr(f"all:{protocol}")
            assert await client.get(f"task:{number}") == str(number).encode()
            pipe: Any
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(f"task:{number}", "x")
                pipe.get(f"task:{number}")
                assert await pipe.execute() == [True, b"x"]

    async def count_all() -> None:
        await asyncio.gather(*(count(number) for number in range(50)))

    asyncio.run(count_all())
    assert cluster[0].ask("GET", f"all:{protocol}") == b"500"


def test_big_values_and_long_pipelines(cluster: Cluster) -> None:
    """A pipeline that is sent whole before its replies are read: 100,000 GETs of a kilobyte."""
    value = bytes(range(256)) * 4
    with cluster[0].client() as client:
        big = value * 8192
        assert client.set("big", big)
        assert client.get("big") == big
        for index in range(100):
            client.set(f"kb:{index}", value)
        with client.pipeline(transaction=False) as pipe:
            for index in range(100_000):
                pipe.get(f"kb:{index % 100}")
            replies = pipe.execute()
    assert len(replies) == 100_000
    assert set(replies) == {value}


def test_a_cluster_client_that_asks_one_node_for_all(cluster: Cluster) -> None:
    """RedisCluster finds its way from any node; more of it in test_redis_cluster_client.py."""
    for each in cluster.nodes:
        client: Any
        with redis.RedisCluster(host=HOST, port=each.port) as client:
            assert len(client.get_primaries()) == 5
            assert client.set(f"rc:{each.name}", "x")
            assert client.get(f"rc:{each.name}") == b"x"
