from __future__ import annotations

import msgspec
import pytest

from respkv.cli.key import Replica, Whereabouts, absence, exit_code, headline, show_ttl, table, vectors
from respkv.cli.output import print_parts

REPLY = b"""{"key":"user:42","slot":10778,"partition":673,"preference_list":["aaaaaaaaaa","bbbbbbbbbb","cccccccccc"],"replicas":[
{"id":"aaaaaaaaaa","host":"127.0.0.1","port":7001,"role":"primary","state":"in step",
 "version":"18f3.a1","type":"string","ttl_ms":58000,"size":16},
{"id":"bbbbbbbbbb","host":"127.0.0.1","port":7002,"role":"fallback","state":"unreachable",
 "version":null,"type":null,"ttl_ms":null,"size":null}]}"""


def test_each_replica_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    whereabouts = msgspec.json.decode(REPLY, type=Whereabouts)
    print_parts(headline(whereabouts), table(whereabouts))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "user:42: slot 10778 partition 673 preference list: 127.0.0.1:7001, 127.0.0.1:7002, cccccccc",
        "Node Address Role State Version Type Size TTL",
        "aaaaaaaa 127.0.0.1:7001 primary in step 18f3.a1 string 16 B 58s",
        "bbbbbbbb 127.0.0.1:7002 fallback unreachable - - - -",
    ]
    assert exit_code(whereabouts) == 1
    assert exit_code(msgspec.structs.replace(whereabouts, replicas=whereabouts.replicas[:1])) == 0


def test_that_there_is_no_such_key_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    empty, away = Replica("a", "::1", 7001, "primary", "in step"), Replica("b", "::1", 7002, "primary", "unreachable")
    deleted, held = Replica("c", "::1", 7003, "primary", "stale", "7.0@aa"), Replica("d", "::1", 7004, "primary", "stale", type="string")
    for replicas in ([empty, empty], [empty, deleted], [empty, away], [empty, deleted, held]):
        print_parts(*absence(Whereabouts("k", 1, 0, [], replicas)))
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        "There is no such key.",
        "There is no such key: it was deleted, or has expired.",
        "No replica that answers holds a value of this key.",
    ]


def test_the_time_to_live() -> None:
    assert [show_ttl(ttl_ms) for ttl_ms in (None, -1, 0, 999, 61_000)] == ["none", "none", "0ms", "999ms", "1m01s"]


def test_who_has_seen_what_is_told_where_there_is_more_than_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    replica = Replica("a" * 40, "127.0.0.1", 7001, "primary", "in step", "7.0@aa", ["7.0@aa", "5.1@bb"], 2, "string", -1, 3)
    print_parts(vectors(Whereabouts("k", 1, 0, ["a" * 40], [replica])))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "Node Values Has seen",
        "aaaaaaaa 2 7.0@aa",
        "5.1@bb",
    ]
