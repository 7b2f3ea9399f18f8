"""Far more keys than fit into memory: what the tables hold is never overtaken, hidden or counted twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain

import pytest

from tests.cluster.harness import Cluster, running_cluster, wait_until
from tests.cluster.load import Load
from tests.cluster.wire import errors_in

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KEYS_COUNT = 200_000
MAXMEMORY = "5mb"


def key(index: int) -> bytes:
    return b"cold:%d" % index


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with 200,000 keys each, of which a tenth fits into their memory."""
    directives = ["--maxmemory", MAXMEMORY]
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=3, directives=directives) as found:
        with found[0].connect() as wire:
            words: list[tuple[bytes | str, ...]] = [(key(index), f"first {index}") for index in range(KEYS_COUNT)]
            several: list[tuple[bytes | str, ...]] = [
                ("MSET", *chain.from_iterable(words[start : start + 50])) for start in range(0, KEYS_COUNT, 50)
            ]
            assert set(wire.ask_all(several)) == {b"OK"}
        found.wait_settled()
        yield found


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    cluster.start()
    cluster.wait_settled()


def values(cluster: Cluster, indices: list[int], *, node: int = 0) -> list[object]:
    with cluster[node].connect() as wire:
        return wire.ask_all([("GET", key(index)) for index in indices])


def test_memory_is_bounded_and_every_key_is_readable(cluster: Cluster) -> None:
    for node in cluster.nodes:
        info = node.info()
        assert info["respkv_memory_complete"] == "0"
        assert int(info["respkv_records_dropped_from_memory"]) > 50_000
    rng = random.Random(1)
    for number in range(3):
        indices = [rng.randrange(KEYS_COUNT) for _ in range(5000)]
        assert values(cluster, indices, node=number) == [b"first %d" % index for index in indices]
    assert values(cluster, [KEYS_COUNT, KEYS_COUNT + 1]) == [None, None]


def test_dbsize_and_scan_agree_with_what_was_written(cluster: Cluster) -> None:
    expected = {key(index) for index in range(KEYS_COUNT)}
    for node in cluster.nodes:
        assert node.ask("DBSIZE") == KEYS_COUNT
        with node.client() as client:
            assert set(client.scan_iter(match="cold:*", count=5000)) == expected


def test_each_replica_holds_every_key(cluster: Cluster) -> None:
    indices = random.Random(2).sample(range(KEYS_COUNT), 3000)
    held = cluster.holdings([key(index) for index in indices])
    assert [held[key(index)] for index in indices] == [[b"first %d" % index] * 3 for index in indices]


def test_cold_keys_are_changed_by_what_reads_them_first(cluster: Cluster) -> None:
    """Overwrites, counters, conditions and deletions of keys that are not in memory; then none shows an older version."""
    indices = random.Random(3).sample(range(KEYS_COUNT), 1200)
    first, second, third, fourth = (indices[start::4] for start in range(4))
    with cluster[1].connect() as wire:
        assert set(wire.ask_all([("SET", key(index), "second") for index in first])) == {b"OK"}
        assert set(wire.ask_all([("DEL", key(index)) for index in second])) == {1}
        assert wire.ask_all([("APPEND", key(index), "!") for index in third]) == [len(b"first %d!" % index) for index in third]
        assert set(wire.ask_all([("SET", key(index), "never", "NX") for index in fourth])) == {None}
        assert wire.ask_all([("GETSET", key(index), "second") for index in fourth]) == [b"first %d" % index for index in fourth]
        assert set(wire.ask_all([("EXISTS", key(index)) for index in second])) == {0}
    cluster.wait_settled()
    for number in range(3):
        assert set(values(cluster, first, node=number)) == {b"second"}
        assert set(values(cluster, second, node=number)) == {None}
        assert values(cluster, third, node=number) == [b"first %d!" % index for index in third]
        assert set(values(cluster, fourth, node=number)) == {b"second"}
        assert cluster[number].ask("DBSIZE") == KEYS_COUNT - len(second)
    with cluster[2].connect() as wire:
        assert set(wire.ask_all([("SET", key(index), f"first {index}") for index in indices])) == {b"OK"}
    cluster.wait_settled()
    assert {node.ask("DBSIZE") for node in cluster.nodes} == {KEYS_COUNT}


def test_hints_for_cold_keys_never_bring_an_older_version_back(cluster: Cluster) -> None:
    """A node misses a change and, when it is back, hears of a later one before the hint of the earlier arrives."""
    indices = random.Random(4).sample(range(KEYS_COUNT), 3000)
    away = cluster[2]
    away.kill()
    cluster.wait_seen_down(away)
    with cluster[0].connect() as wire:
        assert set(wire.ask_all([("SET", key(index), "while away") for index in indices])) == {b"OK"}
    away.start()
    with cluster[1].connect() as wire:
        # While hints are under way, and whether or not it is up: half of the keys change again.
        assert set(wire.ask_all([("SET", key(index), "later") for index in indices[::2]])) == {b"OK"}
    cluster.wait_ready()
    cluster.wait_settled()
    held = cluster.holdings([key(index) for index in indices])
    assert {value for index in indices[::2] for value in held[key(index)]} == {b"later"}
    assert {value for index in indices[1::2] for value in held[key(index)]} == {b"while away"}
    assert {node.ask("DBSIZE") for node in cluster.nodes} == {KEYS_COUNT}


def test_load_over_cold_keys_while_nodes_die(cluster: Cluster) -> None:
    with Load(cluster.nodes[:2], name="hot", keys_count=500) as load:
        load.wait_more(300)
        cluster[2].kill()
        load.wait_more(300)
        cluster[2].start()
        with cluster[0].connect() as wire:
            # Reads of everything push what the writers wrote out of memory.
            assert errors_in(wire.ask_all([("GET", key(index)) for index in range(0, KEYS_COUNT, 10)])) == []
        cluster.wait_ready()
        load.wait_more(300)
        load.stop()
    assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
    cluster.wait_settled()
    load.check_replicas(cluster)
    keys = [written for writer in load.writers for written in writer.acknowledged]
    with cluster[0].connect() as wire:
        assert wire.ask("DEL", *keys) == len(keys)
    wait_until("they are gone everywhere", lambda: {node.ask("DBSIZE") for node in cluster.nodes} == {KEYS_COUNT})


def test_all_of_it_is_there_after_a_crash(cluster: Cluster) -> None:
    cluster.kill_all()
    cluster.start()
    cluster.wait_settled()
    assert {node.ask("DBSIZE") for node in cluster.nodes} == {KEYS_COUNT}
    indices = random.Random(5).sample(range(KEYS_COUNT), 2000)
    assert None not in values(cluster, indices)
    for node in cluster.nodes:
        assert node.rss_bytes() < 200 << 20


def test_flushall_leaves_nothing_in_the_tables(cluster: Cluster) -> None:
    assert cluster[1].ask("FLUSHALL") == b"OK"
    for number, node in enumerate(cluster.nodes):
        assert node.ask("DBSIZE") == 0
        assert set(values(cluster, list(range(0, KEYS_COUNT, 100)), node=number)) == {None}
    assert cluster[0].ask("SET", "cold:1", "new") == b"OK"
    cluster.wait_settled()
    cluster.kill_all()
    cluster.start()
    assert {node.ask("DBSIZE") for node in cluster.nodes} == {1}
    assert values(cluster, [1, 2]) == [b"new", None]
