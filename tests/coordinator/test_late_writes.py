"""Writes that are slow, late or lost, told by transcripts."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import Lab, expected, play

TRANSCRIPTS = {
    "slow: after speculative-retry a fallback is asked; a late acknowledgement counts beside it": """
        nodes abcde w=3
        c1 set k v
        c ack 1
        wait 60
        b ack 1
        d ack 2
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "answered already: a late replica still gets its hint": """
        nodes abcde
        c1 set k v
        b ack 1
        wait 1000
        state
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        log hints c k=v@101
        reads=0 writes=0 waiting=0 hints=c:k
        reads=0 writes=0 waiting=0 hints=c:k
        """,
    "too few acknowledge in time": """
        nodes abc w=3
        c1 set k v
        b ack 1
        wait 60
        wait 1000
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 -TIMEOUT write needed 3 acknowledgements, got 2 in time (hinted 1); it may still take effect
        log hints c k=v@101
        reads=0 writes=0 waiting=0 hints=c:k
        """,
    "the routes are drawn anew in mid-turn: what was begun goes out on the old ones": """
        nodes abcde
        c1 set k v ; view down=b ; c1 set k w
        c ack 1 2
        d ack 2
        state
        ----
        log writes k=v@101
        log writes k=w@102
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> c #2 write k=w@102
        -> d #2 stand-in for b k=w@102
        c1 +OK
        c1 +OK
        reads=0 writes=1 waiting=0 hints=-
        """,
    "who rebuilds gets everything and does not count": """
        nodes abcde rebuilding=b
        c1 set k v
        b ack 1
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde rebuilding=a
        c1 set k v
        b ack 1
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "an operation waits for all batches that its writes went into": """
        nodes abcde
        op write k=v,k2=w
        b ack 1
        c ack 2
        d ack 2
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> c #2 write k2=w@102
        -> d #2 write k2=w@102
        -> e #2 write k2=w@102
        op written
        reads=0 writes=2 waiting=0 hints=-
        """,
    "an operation with a quorum of its own": """
        nodes abcde
        op write k=v w=1
        op write k=v w=3
        b ack 2
        c ack 2
        ----
        op written
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@102
        -> b #2 write k=v@102
        -> c #2 write k=v@102
        op written
        """,
    "acknowledgements of what was never sent, or is forgotten, mean nothing": """
        nodes abcde
        b ack 77
        b newer 78 0
        b refuse 79
        state
        ----
        reads=0 writes=0 waiting=0 hints=-
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_write(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])


def test_the_log_is_confirmed_only_when_a_fallback_has_what_began_long_ago() -> None:
    lab = Lab()
    lab.run("c1 set k v")
    began = lab.coordinator.writes.oldest_turn()
    lab.run("b closes")
    lab.run("c ack 1")
    lab.run("c1 set k2 v")
    assert lab.coordinator.writes.oldest_turn() == began
    lab.run("d ack 2")
    newest = lab.coordinator.writes.oldest_turn()
    assert newest is not None
    assert began is not None
    assert newest > began
