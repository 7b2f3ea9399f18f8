"""A replica that missed writes of which no hint tells is brought up by comparing hash trees; deletions go everywhere in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from respkv.cli.connection import Address
from respkv.cli.repair import run_repair
from tests.cluster.harness import Cluster, NodeProcess, running_cluster, wait_until

pytestmark = pytest.mark.cluster

COUNT = 300
KEYS = [b"key:%d" % index for index in range(COUNT)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directives = ["--sloppy-quorum", "no", "--max-hints-size", "1", "--read-repair", "off", "--tombstone-grace", "2"]
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=3, directives=directives) as found:
        yield found


def remains(node: NodeProcess) -> int:
    return int(node.info("repair")["respkv_remains"])


def test_a_replica_that_missed_writes_is_brought_up_although_no_hint_tells_of_them(cluster: Cluster) -> None:
    first, second, missing = cluster.nodes
    with first.connect() as wire:
        assert set(wire.ask_all([("SET", key, "before") for key in KEYS])) == {b"OK"}
    missing.kill()
    cluster.wait_seen_down(missing)
    with first.connect() as wire:
        assert set(wire.ask_all([("SET", key, "after") for key in KEYS[::2]])) == {b"OK"}
        assert set(wire.ask_all([("DEL", key) for key in KEYS[1::2]])) == {1}
    wait_until("hints are refused", lambda: sum(int(node.info("hints")["respkv_hints_dropped_space"]) for node in (first, second)) >= COUNT)
    assert [node.info("hints")["respkv_hints_held"] for node in (first, second)] == ["0", "0"]
    wait_until("the pair is marked", lambda: first.info("repair")["respkv_pairs_marked"] == "1")
    # While a node is away no deletion goes, or what it holds would come back with it.
    assert remains(first) == COUNT // 2
    missing.start()
    cluster.wait_ready()

    def is_equal() -> bool:
        held = cluster.holdings(KEYS)
        is_written = all(held[key] == [b"after"] * 3 for key in KEYS[::2])
        return is_written and all(held[key] == [None] * 3 for key in KEYS[1::2])

    wait_until("all replicas hold the same", is_equal)
    assert int(missing.info("repair")["respkv_keys_repaired"]) >= COUNT
    wait_until("the pair is no longer marked", lambda: first.info("repair")["respkv_pairs_marked"] == "0")
    wait_until("deletions have gone", lambda: [remains(node) for node in cluster.nodes] == [0, 0, 0])
    assert [node.ask("DBSIZE") for node in cluster.nodes] == [COUNT // 2] * 3
    assert is_equal()


def test_respkv_repair_compares_all_pairs_and_says_so(cluster: Cluster) -> None:
    before = [int(node.info("repair")["respkv_exchanges"]) for node in cluster.nodes]
    assert run_repair(Address("127.0.0.1", cluster[1].port), partition=None, node=None, as_json=False) == 0
    after = [int(node.info("repair")["respkv_exchanges"]) for node in cluster.nodes]
    assert sum(after) - sum(before) >= 3
