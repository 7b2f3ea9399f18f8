from __future__ import annotations

import socket

import pytest

from respkv.cli.connection import Address
from respkv.cli.readiness import disagreement, pairs_of, problem_at


@pytest.mark.parametrize(
    ("state", "known", "seen_up", "problem"),
    [
        ("ok", "5", "4", ""),
        ("ok", "1", "1", "knows 1 of 5 nodes"),
        ("ok", "5", "3", "sees 3 of 4 nodes up and complete"),
        ("fail", "5", "4", "says cluster_state:fail"),
    ],
)
def test_all_nodes_must_be_known_and_the_running_ones_seen(state: str, known: str, seen_up: str, problem: str) -> None:
    cluster_info = {"cluster_state": state, "cluster_known_nodes": known}
    assert disagreement(cluster_info, {"respkv_nodes_counting": seen_up}, node_count=5, up_count=4) == problem


def test_a_node_that_says_nothing_is_not_ready() -> None:
    assert disagreement({}, {}, node_count=5, up_count=5)


def test_info_is_read_parsed_or_not() -> None:
    assert pairs_of(b"# respkv\r\nrespkv_nodes_counting:5\r\n") == {"respkv_nodes_counting": "5"}
    assert pairs_of({"respkv_nodes_counting": 5}) == {"respkv_nodes_counting": "5"}


def test_nobody_listens() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", unheard.getsockname()[1])
        assert problem_at(address, node_count=1, up_count=1) == "does not answer yet"
