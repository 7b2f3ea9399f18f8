"""redis-benchmark as a client: it ends, counts what it was told to count, and meets no error."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, NodeProcess, running_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.stock("redis-benchmark")]

TESTS = {"PING_INLINE", "PING_MBULK", "SET", "GET", "MSET (10 keys)"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=5) as found:
        yield found


def figures(node: NodeProcess, *arguments: str) -> dict[str, float]:
    """Requests per second of each test. It ends with an error message where a reply is one."""
    command = [
        "redis-benchmark",
        "-p",
        str(node.port),
        "-t",
        "ping,set,get,mset",
        "-d",
        "64",
        "--csv",
        *(arguments if "-r" in arguments else ("-r", "10000", *arguments)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Neither "WARNING: Could not fetch server CONFIG" nor an error among the replies.
    assert done.stderr == ""
    assert "rror" not in done.stdout
    return {row["test"]: float(row["rps"]) for row in csv.DictReader(done.stdout[done.stdout.index('"test"') :].splitlines())}


@pytest.mark.parametrize("pipeline", [1, 16])
@pytest.mark.parametrize("index", range(5))
def test_through_every_node(cluster: Cluster, index: int, pipeline: int) -> None:
    found = figures(cluster[index], "-n", str(400 * pipeline), "-c", "20", "-P", str(pipeline))
    assert set(found) == TESTS
    assert min(found.values()) > 0


@pytest.mark.parametrize("pipeline", [1, 16])
def test_as_a_client_of_a_cluster(cluster: Cluster, pipeline: int) -> None:
    """It reads CLUSTER NODES, and sends each key to the node that holds its slot."""
    found = figures(cluster[0], "--cluster", "-n", str(1000 * pipeline), "-c", "20", "-P", str(pipeline))
    assert set(found) == TESTS
    assert min(found.values()) > 0


def test_what_it_wrote_is_there(cluster: Cluster) -> None:
    assert cluster[0].ask("FLUSHALL") == b"OK"
    figures(cluster[1], "-n", "5000", "-c", "20", "-P", "16", "-r", "100")
    cluster.wait_settled()
    counts = {node.ask("DBSIZE") for node in cluster.nodes}
    assert counts == {100}
    assert cluster[3].ask("GET", "key:000000000042") is not None
