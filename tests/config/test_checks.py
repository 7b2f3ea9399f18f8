from __future__ import annotations

import pytest

from respkv.config.changes import apply
from respkv.config.checks import is_loopback, quorum_problem, start_problem
from respkv.config.quorums import Quorums, configured_quorums, resolve_quorum
from respkv.config.settings import Settings

SECRET = "0123456789abcdef"


def problem_of(**directives: str) -> str:
    settings = Settings()
    apply(settings, {name.replace("_", "-"): text for name, text in directives.items()})
    problem = start_problem(settings)
    return problem.reason if problem else ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "-::1", "::1", "localhost"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)
    assert problem_of(bind=address) == ""


@pytest.mark.parametrize("address", ["*", "0.0.0.0", "::", "10.0.0.1", "127.evil.example.com", "127.0.0.1.example", "localhost.example"])
def test_a_node_without_a_secret_does_not_open_to_other_machines(address: str) -> None:
    assert not is_loopback(address)
    assert problem_of(bind=f"127.0.0.1 {address}").startswith(f"bind {address} is open to other machines")
    assert problem_of(bind=f"127.0.0.1 {address}", cluster_secret=SECRET) == ""


def test_ports() -> None:
    assert problem_of(port="60000").startswith("port 60000 is too high")
    assert problem_of(port="60000", cluster_port="60001") == ""
    assert problem_of(port="7001", cluster_port="7001") == "port and cluster-port are both 7001"


def test_a_wildcard_cannot_be_announced() -> None:
    nodes = "10.0.0.1:7001 10.0.0.2:7001"
    assert "set cluster-announce-ip" in problem_of(bind="*", cluster_nodes=nodes, cluster_secret=SECRET)
    assert problem_of(bind="*", cluster_nodes=nodes, cluster_secret=SECRET, cluster_announce_ip="10.0.0.1") == ""
    assert problem_of(bind="*", cluster_secret=SECRET) == ""


@pytest.mark.parametrize(
    ("kind", "counts"),
    [("one", [1, 1, 1, 1, 1]), ("quorum", [1, 2, 2, 3, 3]), ("all", [1, 2, 3, 4, 5]), ("2", [2, 2, 2, 2, 2]), ("0", [0] * 5)],
)
def test_words_for_quorums(kind: str, counts: list[int]) -> None:
    assert [resolve_quorum(kind, n) for n in range(1, 6)] == counts


def test_configured_quorums_in_a_small_ring() -> None:
    assert configured_quorums(Settings()) == Quorums(3, 2, 2, 0, 0)
    assert configured_quorums(Settings(), members=1) == Quorums(1, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("quorums", "reason"),
    [
        (Quorums(3, 3, 3, 3, 3), None),
        (Quorums(3, 4, 1, 0, 0), "read-quorum 4 is more than replication-factor 3"),
        (Quorums(3, 1, 4, 0, 0), "write-quorum 4 is more than replication-factor 3"),
        (Quorums(3, 1, 3, 2, 0), "primary-read-quorum 2 is more than read-quorum 1"),
        (Quorums(3, 3, 1, 0, 2), "primary-write-quorum 2 is more than write-quorum 1"),
    ],
)
def test_impossible_quorums(quorums: Quorums, reason: str | None) -> None:
    problem = quorum_problem(quorums)
    assert (problem and problem.reason) == reason
