from __future__ import annotations

import pytest

from respkv.config.changes import apply
from respkv.config.founders import Founder, announced, founder_problem, founders, parse_founder
from respkv.config.settings import Settings
from respkv.ids import node_id_of_address


@pytest.mark.parametrize(
    ("text", "founder"),
    [
        ("127.0.0.1:7001", Founder("127.0.0.1", 7001, 17001)),
        ("127.0.0.1:7001@9", Founder("127.0.0.1", 7001, 9)),
        ("node-1.example:7001/eu-1a", Founder("node-1.example", 7001, 17001, "eu-1a")),
        ("[::1]:7001@17001/b", Founder("::1", 7001, 17001, "b")),
        ("a:65535@1", Founder("a", 65535, 1)),
    ],
)
def test_reads_an_address(text: str, founder: Founder) -> None:
    assert parse_founder(text) == founder
    assert parse_founder(str(founder)) == founder


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:0", "a:65536@1", "a:1@", "a:1/", "::1:7001", "a:1,b:2", "a b:1", "a:1_0", "a:60000", "a:1@x", "a:٣"]
)
def test_refuses_what_is_no_address(text: str) -> None:
    assert founder_problem(text)


def test_a_port_that_leaves_no_room_names_the_remedy() -> None:
    assert founder_problem("a:60000") == "port 60000 is too high to add 10000 for the cluster port: write HOST:PORT@CLUSTER-PORT"


def test_everybody_computes_the_id_alike() -> None:
    settings = Settings()
    apply(settings, {"cluster-nodes": "10.0.0.1:7001 10.0.0.2:7001@8", "cluster-announce-ip": "10.0.0.2", "availability-zone": "z"})
    ids = [founder.node_id for founder in founders(settings)]
    assert ids == [node_id_of_address("10.0.0.1", 17001), node_id_of_address("10.0.0.2", 8)]
    me = announced(settings, port=7001, cluster_port=8)
    assert me == Founder("10.0.0.2", 7001, 8, "z")
    assert me.node_id in ids


def test_announced_ports_replace_those_that_are_bound() -> None:
    settings = Settings()
    apply(settings, {"bind": "-127.0.0.2 127.0.0.1", "cluster-announce-port": "1", "cluster-announce-bus-port": "2"})
    assert announced(settings, port=7001, cluster_port=17001) == Founder("127.0.0.2", 1, 2)
