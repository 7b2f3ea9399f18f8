from __future__ import annotations

import msgspec
import pytest

from respkv.cli.output import print_parts
from respkv.cli.status import Cluster, Node, Status, exit_code, headline, table, warnings

REPLY = b"""{"cluster": {"n":3,"r":2,"w":2,"sloppy":"yes","epoch":1,"agreed":"2/2","short_ratio":0.75}, "nodes":[
{"id":"a1","name":"n1","host":"127.0.0.1","port":7001,"cluster_port":17001,"state":"up","owns_ratio":0.5,"keys":12345,"bytes":1300000000,
 "hints_held_for":0,"phi":0.31,"uptime_s":131,"zone":"","rebuilding":false},
{"id":"b2","name":"n2","host":"127.0.0.1","port":7002,"cluster_port":17002,"state":"down","owns_ratio":0.25,"keys":null,"bytes":null,
 "hints_held_for":12400,"phi":14.1,"uptime_s":null,"zone":"","rebuilding":false}]}"""


def status_of(*states: str, zone: str = "", rebuilding: bool = False) -> Status:
    nodes = [
        Node(id=str(index), name=f"n{index}", host="::1", port=7001, cluster_port=17001, state=state, zone=zone, rebuilding=rebuilding)
        for index, state in enumerate(states)
    ]
    return Status(Cluster(n=3, r=2, w=2, sloppy="no", epoch=1, agreed="1/1"), nodes)


def test_the_table_shows_what_the_node_said(capsys: pytest.CaptureFixture[str]) -> None:
    status = msgspec.json.decode(REPLY, type=Status)
    print_parts(headline(status), table(status), *warnings(status))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "Cluster respkv (N=3 R=2 W=2 sloppy=yes) 1 up, 1 down ring of epoch 1 agreed by 2/2",
        "State Node Address Owns Load Keys Hints phi Uptime",
        "up n1 127.0.0.1:7001 50.0% 1.21 GiB 12.3k 0 0.3 2m11s",
        "down n2 127.0.0.1:7002 25.0% ? ? 12.4k 14.1 -",
        "[WARN] 1 node down: writes for 75.0% of the ring reach fewer replicas, which keep hints (12.4k hints)",
    ]


@pytest.mark.parametrize(
    ("n", "sloppy", "said"),
    [
        (3, "yes", "are handed to fallback nodes"),
        (4, "yes", "reach fewer replicas, which keep hints"),
        (3, "no", "reach fewer replicas"),
    ],
)
def test_what_becomes_of_writes_is_told_where_there_are_fallbacks_and_where_not(n: int, sloppy: str, said: str) -> None:
    status = status_of("up", "up", "up", "down")
    cluster = msgspec.structs.replace(status.cluster, n=n, sloppy=sloppy, short_ratio=1.0)
    (line,) = warnings(msgspec.structs.replace(status, cluster=cluster))
    assert line.plain == f"[WARN] 1 node down: writes for 100.0% of the ring {said} (0 hints)"  # type: ignore[union-attr]


def test_the_exit_code_says_whether_all_are_up() -> None:
    assert exit_code(status_of("up", "up")) == 0
    assert exit_code(status_of("up", "suspect")) == 1
    assert exit_code(status_of("down", "up")) == 1


def test_zones_and_rebuilding_are_shown_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    status = status_of("up", zone="rack1", rebuilding=True)
    print_parts(table(status), *warnings(status))
    shown = capsys.readouterr().out
    assert "Zone" in shown
    assert "rack1" in shown
    assert "rebuilding" in shown
    assert "[::1]:7001" in shown
    assert "[WARN] n0 lost data" in shown


def test_who_stores_no_writes_is_told_and_why() -> None:
    full = b'"rebuilding":false,"refuses_writes":"the disk is nearly full (min-free-disk)"'
    status = msgspec.json.decode(REPLY.replace(b'"rebuilding":false', full, 1), type=Status)
    told = "[WARN] no writes are stored by n1: the disk is nearly full (min-free-disk); there is nobody to stand in: clients are refused"
    assert warnings(status)[-1].plain == told  # type: ignore[union-attr]
    others = [*status.nodes, msgspec.structs.replace(status.nodes[0], name="n3", refuses_writes="")]
    told = "[WARN] no writes are stored by n1: the disk is nearly full (min-free-disk); others stand in while they have room"
    assert warnings(msgspec.structs.replace(status, nodes=others))[-1].plain == told  # type: ignore[union-attr]


def test_a_change_of_n_tells_how_far_it_is_and_who_holds_it_up() -> None:
    told = b'"n":3,"resize":{"from":3,"to":5,"stage":"preparing","done":"0/2"}'
    status = msgspec.json.decode(REPLY.replace(b'"n":3', told).replace(b'"zone":""', b'"zone":"","resize":"40"', 1), type=Status)
    assert warnings(status)[-1].plain == (  # type: ignore[union-attr]
        "[INFO] N changes from 3 to 5, done by 0/2 nodes: copies go to where the new N wants them; reads ask the old one "
        "(waiting for n1 40%, n2 down)"
    )


def test_fields_of_later_versions_do_no_harm() -> None:
    assert msgspec.json.decode(REPLY.replace(b'"n":3', b'"n":3,"tokens":7'), type=Status).cluster.n == 3
