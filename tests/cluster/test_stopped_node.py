"""A node that is stopped (a long pause, a hung disk, a suspended machine) says nothing and keeps its connections open."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, running_cluster, wait_until
from tests.cluster.load import Load

pytestmark = pytest.mark.cluster

REQUEST_TIMEOUT_S = 1.0
# Beyond the node's own timeout: two cores are shared by five nodes, the writers and pytest.
SLACK_S = 1.0
STOP_S = 6.0
"""Longer than a silent node takes to be called down."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=5) as found:
        yield found


def let_time_pass(seconds: float) -> None:
    """The pause is the scenario, not a guess at how long something takes."""
    end = time.monotonic() + seconds
    wait_until("time passes", lambda: time.monotonic() >= end, within_s=2 * seconds)


def test_a_stopped_node_holds_nobody_up_and_declares_nobody_dead(cluster: Cluster) -> None:
    *others, stopped = cluster.nodes
    before = {node.name: int(node.info("ring")["respkv_downs"]) for node in cluster.nodes}
    log_length = len(stopped.log())
    with Load(others, pause_s=0.005, name="stop") as load:
        load.wait_more(300)
        stopped.signal(signal.SIGSTOP)
        let_time_pass(STOP_S)
        assert all(node.info("respkv")["respkv_nodes_up"] == "4" for node in others), "a silent node is called down"
        load.wait_more(300)
        stopped.signal(signal.SIGCONT)
        cluster.wait_ready()
        load.wait_more(300)
        load.stop()
    assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
    assert load.slowest_s() < REQUEST_TIMEOUT_S + SLACK_S
    cluster.wait_settled()
    load.check_replicas(cluster)
    # It reads its mail before it suspects anyone, and nobody else was suspected on its account.
    assert " is down " not in stopped.log()[log_length:]
    assert int(stopped.info("ring")["respkv_downs"]) == before[stopped.name]
    for node in others:
        assert int(node.info("ring")["respkv_downs"]) == before[node.name] + 1


def test_a_short_stall_costs_no_node_its_good_name(cluster: Cluster) -> None:
    """Two seconds: a full garbage collection, a slow disk. Writes go on with stand-ins; nobody is declared down."""
    *others, stalled = cluster.nodes
    before = {node.name: int(node.info("ring")["respkv_downs"]) for node in cluster.nodes}
    with Load(others, pause_s=0.005, name="stall") as load:
        load.wait_more(100)
        stalled.signal(signal.SIGSTOP)
        let_time_pass(2.0)
        stalled.signal(signal.SIGCONT)
        load.wait_more(300)
        cluster.wait_ready()
        load.stop()
    assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
    assert load.slowest_s() < REQUEST_TIMEOUT_S + SLACK_S
    cluster.wait_settled()
    load.check_replicas(cluster)
    assert {node.name: int(node.info("ring")["respkv_downs"]) for node in cluster.nodes} == before


def test_a_client_of_the_stopped_node_is_answered_when_it_goes_on(cluster: Cluster) -> None:
    """What waits in its sockets is not lost, and what it coordinates then is up to date with what happened meanwhile."""
    stopped = cluster[4]
    with stopped.connect() as wire:
        assert wire.ask("SET", "k", "before") == b"OK"
        stopped.signal(signal.SIGSTOP)
        assert cluster[0].ask("SET", "k", "meanwhile") == b"OK"
        wire.send(b"GET k\r\n")
        let_time_pass(1.5)
        stopped.signal(signal.SIGCONT)
        # One of two answers is its own old copy; the other, or the timeout, is not.
        reply = wire.reply()
        assert reply == b"meanwhile"
    cluster.wait_ready()
