"""What a replica does for other nodes' coordinators, told by transcripts."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.coordinator.replica import decode_keys, decode_pairs
from respkv.errors import PeerProtocolError
from tests.coordinator.lab import Lab, expected, node_id, play, version, wire_key

TRANSCRIPTS = {
    "what is acknowledged is in the log; one acknowledgement a turn": """
        nodes abcde
        b write 7 k=v@5 ; b write 8 k4=w@6 m=x@7 ; e write 3 k3=y@8
        ----
        log writes k=v@5
        log writes k4=w@6 m=x@7
        log writes k3=y@8
        -> b #0 ack 7 8
        -> e #0 ack 3
        """,
    "appendfsync always: acknowledged once it is durable": """
        nodes abcde
        always
        b write 7 k=v@5
        b write 8 k=u@4
        durable
        ----
        log writes k=v@5
        log writes k=u@4
        -> b #8 newer 0:0
        -> b #0 ack 7
        """,
    "what comes a second time, as a repair or a hint, has been held since the first time": """
        nodes abc
        b repair 7 k=v@9
        wait 30
        b repair 8 k=v@9
        wait 10
        c write 9 k=u@4
        ----
        log writes k=v@9
        -> b #0 ack 7
        log writes k=v@9
        -> b #0 ack 8
        log writes k=u@4
        -> c #9 newer 0:40

        nodes abc
        c1 set k v
        wait 30
        c closes
        wait 10
        b write 9 k=u@4
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log hints c k=v@101
        log writes k=u@4
        -> b #9 newer 0:40
        """,
    "a newer version that is held is said so, and stays": """
        nodes abcde
        hold k w@9
        b write 7 k=v@5 m=x@6
        b write 8 k=w@9
        held k m
        ----
        log writes k=v@5 m=x@6
        -> b #7 newer 0
        log writes k=w@9
        -> b #0 ack 8
        held k=w@9
        held m=x@6
        """,
    "an older write than deletions that were dropped comes too late, unless its key is there": """
        nodes abcde
        reaped 9
        hold k w@3
        b write 7 k=v@5 m=x@9 n=y@12
        b write 8 m=x@10
        held k m n
        ----
        log writes k=v@5 n=y@12
        -> b #7 newer 1:late
        log writes m=x@10
        -> b #0 ack 8
        held k=v@5
        held m=x@10
        held n=y@12
        """,
    "a stand-in keeps no write that comes too late; a repair is merged whatever its stamp": """
        nodes abcde
        reaped 9
        b stand-in 7 c k1=v@5 k2=w@12
        b stand-in 8 c k3=v@5
        b repair 9 k=v@5
        held k1 k2 k3 k
        state
        ----
        log hints c k2=w@12
        -> b #7 newer 0:late
        -> b #8 newer 0:late
        log writes k=v@5
        -> b #0 ack 9
        held k1=-
        held k2=w@12
        held k3=-
        held k=v@5
        reads=0 writes=0 waiting=0 hints=c:k2
        """,
    "partitions that this node does not hold are refused, all or nothing": """
        nodes abcde
        b write 7 k=v@5 k1=w@6
        held k k1
        b read 8 k1
        b read-stand-in 9 k1
        ----
        -> b #7 refused not a replica of this partition
        held k=-
        held k1=-
        -> b #8 refused not a replica of this partition
        -> b #9 records -
        """,
    "a stand-in stores with a hint row": """
        nodes abcde
        b stand-in 7 c k1=v@5
        held k1
        state
        ----
        log hints c k1=v@5
        -> b #0 ack 7
        held k1=v@5
        reads=0 writes=0 waiting=0 hints=c:k1
        """,
    "a stand-in that has no room keeps only what has a row": """
        nodes abcde
        hints 110
        b stand-in 7 c k1=v@5 k2=w@6
        held k1 k2
        state
        ----
        log hints c k1=v@5
        -> b #7 refused no room for hints (max-hints-size), or the owner was away for too long (max-hint-window)
        held k1=v@5
        held k2=-
        reads=0 writes=0 waiting=0 hints=c:k1

        window-closed d
        b stand-in 8 d m1=v@5
        held m1
        state
        ----
        -> b #8 refused no room for hints (max-hints-size), or the owner was away for too long (max-hint-window)
        held m1=-
        reads=0 writes=0 waiting=0 hints=c:k1
        """,
    "a primary that keeps rows for lack of fallbacks counts for its own copy, room or not": """
        nodes abcde
        window-closed bc
        d stand-in 7 bc k=v@5
        held k
        state
        ----
        log writes k=v@5
        -> d #0 ack 7
        held k=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "repairs are merged whatever their stamps, and answered if that is asked": """
        nodes abcde
        hold k w@9
        b repair 0 k=v@5 m=x@6
        b repair 7 k=z@10 m3=y@2
        held k m m3
        ----
        log writes k=v@5 m=x@6
        log writes k=z@10 m3=y@2
        -> b #0 ack 7
        held k=z@10
        held m=x@6
        held m3=y@2
        """,
    "repairs of partitions that this node does not hold are not taken: nobody would ever take the copies back": """
        nodes abcde
        b repair 0 k=v@5 k1=x@6
        b repair 7 k1=y@2
        held k k1
        ----
        -> b #7 refused not a replica of this partition
        held k=-
        held k1=-
        """,
    "the disk is nearly full: nothing more is taken": """
        nodes abcde
        disk-full
        b write 7 k=v@5
        b stand-in 8 c k1=v@5
        b repair 9 k=v@5
        b repair 0 k=v@5
        held k k1
        b read 10 k
        ----
        -> b #7 refused the disk is nearly full (min-free-disk)
        -> b #8 refused the disk is nearly full (min-free-disk)
        -> b #9 refused the disk is nearly full (min-free-disk)
        held k=-
        held k1=-
        -> b #10 records -
        """,
    "a node that rebuilds stores, and answers no reads": """
        nodes abcde rebuilding=a
        b write 7 k=v@5
        b read 8 k
        b read-stand-in 9 k2
        held k
        ----
        log writes k=v@5
        -> b #0 ack 7
        -> b #8 refused rebuilding: what is not here may exist
        -> b #9 refused rebuilding: what is not here may exist
        held k=v@5
        """,
    "what is absent or deleted is an answer": """
        nodes abcde
        hold k v@5
        hold m ~@6
        b read 7 k m n
        ----
        -> b #7 records v@5 ~@6 -
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_replica(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])


def cold_lab() -> Lab:
    """A node whose memory holds nothing of what its tables have."""
    lab = Lab()
    lab.store.resident = False
    lab.store.bound(1)
    return lab


def test_requests_on_a_cold_key_run_in_their_order_once_it_is_loaded() -> None:
    lab = cold_lab()
    lab.run("b read 1 k ; b write 2 k=w@9 ; b read 3 k ; b write 4 k=u@7")
    assert lab.out == ["load 1 k", "load 2 k", "load 3 k", "load 4 k"]
    lab.out.clear()
    for token in (1, 2, 3, 4):
        lab.parking.loaded(token, [version("v@5")])
    lab.run("held k")
    assert lab.out == [
        "held k=w@9",
        "log writes k=w@9",
        "log writes k=u@7",
        "-> b #1 records v@5",
        "-> b #3 records w@9",
        "-> b #4 newer 0:0",
        "-> b #0 ack 2",
    ]


def test_an_older_frame_does_not_hide_what_only_the_tables_have() -> None:
    lab = cold_lab()
    lab.run("b write 1 k=u@4")
    lab.parking.loaded(1, [version("v@5")])
    lab.run("held k")
    assert "held k=v@5" in lab.out
    assert "-> b #1 newer 0" in lab.out


def test_a_read_repair_of_a_key_that_left_memory_meanwhile_asks_the_tables_first() -> None:
    lab = Lab()
    lab.run("hold k v@5")
    lab.run("c1 get k")
    lab.store.bound(1)
    freeze = lab.store.freeze(1, [])
    list(freeze.batches())
    lab.store.flushed(1)
    # Written, brought to the tables and dropped from memory while the read was on its way.
    lab.store.merge_pairs([wire_key("k"), version("x@9")])
    list(lab.store.freeze(2, []).batches())
    lab.store.flushed(2)
    assert lab.store.evict(0, keep={}, partitions_max=16)
    lab.run("b records 1 w@6")
    assert "load 1 k" in lab.out
    lab.parking.loaded(1, [version("x@9")])
    lab.run("held k")
    assert lab.out[-3:] == ["c1 $1 w", "held k=x@9", "log writes k=w@6"]


@given(st.binary(max_size=100))
def test_bytes_that_are_no_pairs_are_refused(body: bytes) -> None:
    for decode in (partial(decode_pairs, wall_ms=0), decode_keys):
        try:
            found = decode(body)
        except PeerProtocolError:
            continue
        assert all(isinstance(each, bytes) for each in found)


@pytest.mark.parametrize("body", [[b"k"], [b"k", b"short"], [b"k", b"x" * 18, b"m"]])
def test_pairs_that_are_no_pairs_are_refused(body: list[bytes]) -> None:
    with pytest.raises(PeerProtocolError):
        decode_pairs(msgspec.msgpack.encode(body), wall_ms=0)


def test_a_stand_in_for_nobody_keeps_nothing() -> None:
    lab = Lab()
    body = b"\x00" + msgspec.msgpack.encode([wire_key("k1"), version("v@5")])
    lab.replica.stand_in(node_id("b"), 7, body)
    assert not lab.store.get(wire_key("k1"))
    assert lab.replica.records_refused_total == 1
