"""Real nodes: the number of replicas changes while clients write, a node dies meanwhile, and a directory is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, running_cluster, wait_until
from tests.cluster.load import Load

pytestmark = pytest.mark.cluster


def resize(cluster: Cluster, n: int) -> None:
    with cluster[0].client() as client:
        assert client.config_set("replication-factor", n)


def wait_resized(cluster: Cluster, n: int) -> None:
    for node in cluster.nodes:
        wait_until(
            f"{node.name} counts {n} replicas",
            lambda node=node: (info := node.info("quorum"))["respkv_resize"] == "" and info["respkv_n"] == str(n),  # type: ignore[misc]
        )


def check_copies(cluster: Cluster, load: Load, n: int) -> None:
    """Every node holds its own keys and no others, as it says itself, and every node answers for all of them."""
    cluster.wait_settled()
    load.check_replicas(cluster, n=n)
    keys = cluster[0].ask("KEYS", "*")
    for node in cluster.nodes:
        with node.client() as client:
            assert client.dbsize() == len(keys)
            assert len(list(client.scan_iter(count=100))) == len(keys)
        own = sum(node in cluster.preference_list(key)[:n] for key in keys)
        wait_until(
            f"{node.name} holds its {own} keys alone",
            lambda node=node, own=own: [each["keys"] for each in node.status()["nodes"] if each["id"] == node.id] == [own],  # type: ignore[misc]
        )


def test_n_rises_and_falls_while_clients_write(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=5, directives=["--replication-factor", "1"]) as cluster:
        with Load(cluster.nodes, writers_count=3) as load:
            load.wait_more(500)
            for n in (3, 5, 2):
                resize(cluster, n)
                load.wait_more(200)
                wait_resized(cluster, n)
            load.wait_more(200)
            load.stop()
        assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
        check_copies(cluster, load, 2)
        # It is remembered, whatever the command line says.
        cluster.kill_all()
        cluster.start()
        wait_resized(cluster, 2)
        check_copies(cluster, load, 2)


def test_n_rises_while_nodes_die(tmp_path: Path) -> None:
    """The node that was told is killed, another one is away all the while: nothing is lost, and all comes to its end."""
    with running_cluster(tmp_path, count=5, directives=["--replication-factor", "2", "--write-quorum", "one"]) as cluster:
        with Load(cluster.nodes[1:4], writers_count=3) as load:
            load.wait_more(500)
            cluster[4].kill()
            cluster.wait_seen_down(cluster[4])
            resize(cluster, 4)
            cluster[0].kill()
            load.wait_more(300)
            told = cluster[1].status()["cluster"]["resize"]
            assert (told["from"], told["to"], told["stage"]) == (2, 4, "preparing")
            cluster[0].start()
            cluster.wait_ready()
            cluster[2].kill()
            load.wait_more(100)
            cluster[2].start()
            cluster[4].start()
            cluster.wait_ready()
            wait_resized(cluster, 4)
            load.wait_more(100)
            load.stop()
        assert set(load.outcomes()) <= {"acknowledged", "lost", "TIMEOUT"}, load.outcomes()
        check_copies(cluster, load, 4)


def test_a_deleted_directory_is_filled_again_while_clients_go_on(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=5) as cluster:
        victim = cluster[2]
        others = [node for node in cluster.nodes if node is not victim]
        with Load(others, writers_count=3) as load:
            load.wait_more(1000)
            victim.kill()
            shutil.rmtree(victim.folder)
            victim.start()
            load.wait_more(500)
            cluster.wait_ready()
            load.wait_more(200)
            load.stop()
        assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
        assert "rebuilding from the other replicas" in victim.log()
        check_copies(cluster, load, 3)


def test_a_node_that_was_away_for_too_long_is_rebuilt(tmp_path: Path) -> None:
    """Deleted keys that it still has do not come back, and it holds what the others hold."""
    with running_cluster(tmp_path, count=5, directives=["--max-downtime", "3"]) as cluster:
        victim, others = cluster[1], [cluster[0], *cluster.nodes[2:]]
        keys = [b"old:%d" % number for number in range(100)]
        with cluster[0].connect() as wire:
            assert set(wire.ask_all([("SET", key, "x") for key in keys])) == {b"OK"}
        cluster.wait_settled()
        victim.kill()
        cluster.wait_seen_down(victim)
        with cluster[0].connect() as wire:
            assert wire.ask("DEL", *keys) == len(keys)
        for node in others:
            wait_until(f"{node.name} knows the mark", lambda node=node: node.info("respkv")["respkv_nodes_to_rebuild"] == "1")  # type: ignore[misc]
        with Load(others, writers_count=2) as load:
            load.wait_more(300)
            victim.start()
            cluster.wait_ready()
            load.wait_more(200)
            load.stop()
        assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
        for node in cluster.nodes:
            wait_until(f"{node.name} knows the end", lambda node=node: node.info("respkv")["respkv_nodes_to_rebuild"] == "0")  # type: ignore[misc]
        assert (victim.folder / "tables.set-aside").exists()
        assert victim.log().count("serves clients on port") == 3
        check_copies(cluster, load, 3)
        with victim.connect() as wire:
            assert set(wire.ask_all([("GET", key) for key in keys])) == {None}


def test_an_operator_has_a_node_rebuilt(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=4) as cluster:
        victim = cluster[2]
        with Load([cluster[0], cluster[1]], writers_count=2) as load:
            load.wait_more(300)
            with cluster[0].client() as client:
                assert client.execute_command("RESPKV", "REBUILD", victim.id) == b"OK"
            wait_until("it is rebuilt", lambda: "complete: " in victim.log().rpartition("serves clients")[2])
            load.wait_more(100)
            load.stop()
        assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
        check_copies(cluster, load, 3)
