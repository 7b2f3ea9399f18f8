"""Writes that lose to a newer version somewhere, told by transcripts: which are sent again, and which are not."""

from __future__ import annotations

import pytest

from respkv.errors import PeerProtocolError
from tests.coordinator.lab import Lab, expected, play

TRANSCRIPTS = {
    "a replica held a newer version: the write is stamped above it and sent again before it is answered": """
        nodes abcde
        c1 set k v
        b newer 1 0
        state
        c ack 1
        b ack 2
        c ack 2
        state
        held k
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        reads=0 writes=2 waiting=2 hints=-
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        held k=v@112
        """,
    "a newer version that came after the write was sent may be by somebody who has read it: it stays the winner": """
        nodes abcde w=3
        c1 set k v
        wait 20
        b newer 1 0:19
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde w=3
        c1 set k v
        wait 20
        b newer 1 0:19+21
        b newer 1 0
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101

        # Its way takes so long as a rule, so there was no time to read it: this one was there before.
        nodes abcde w=3
        c1 set j u
        wait 20
        b ack 1
        c ack 1
        c1 set k v
        wait 20
        b newer 2 0:19
        ----
        log writes j=u@101
        -> b #1 write j=u@101
        -> c #1 write j=u@101
        c1 +OK
        log writes k=v@102
        -> b #2 write k=v@102
        -> c #2 write k=v@102
        log writes k=v@113
        -> b #3 write k=v@113
        -> c #3 write k=v@113

        # Only a clock that is ahead explains this.
        nodes abcde w=3
        c1 set k v
        wait 20
        b newer 1 0:19+22
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112

        nodes abcde
        c1 set k v
        wait 20
        b newer 1 0:21
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        """,
    "too late for a replica that dropped deletions since: a plain write is sent again, what cannot be is not taken": """
        nodes abc
        c1 set k v
        b late 1 0
        c ack 1
        b ack 2
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@102
        -> b #2 write k=v@102
        -> c #2 write k=v@102
        c1 +OK

        nodes abc
        op write k=v@50!9999
        b late 1 0
        state
        c ack 1
        ----
        log writes k=v@50!9999
        -> b #1 write k=v@50!9999
        -> c #1 write k=v@50!9999
        log hints b k=v@50!9999
        reads=0 writes=1 waiting=1 hints=b:k
        op written
        """,
    "a fallback that was asked later holds a newer version: the write is sent again above it": """
        nodes abcde
        c1 set k v
        b closes
        d newer 2 0
        state
        c ack 1
        c ack 3
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        log writes k=v@112
        -> b #3 write k=v@112
        -> c #3 write k=v@112
        reads=0 writes=2 waiting=2 hints=-
        c1 +OK
        """,
    "what is sent again goes to fallbacks, too": """
        nodes abcde
        c1 set k v
        b newer 1 0
        c closes
        b closes
        d ack 3 4
        e ack 5
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        -> d #3 stand-in for c k=v@101
        -> d #4 stand-in for c k=v@112
        -> e #5 stand-in for b k=v@112
        c1 +OK
        """,
    "only what lost is sent again": """
        nodes abcde
        c1 set k v ; c2 set m w
        b newer 1 1
        b ack 2
        c ack 1 2
        state
        ----
        log writes k=v@101 m=w@102
        -> b #1 write k=v@101 m=w@102
        -> c #1 write k=v@101 m=w@102
        log writes m=w@113
        -> b #2 write m=w@113
        -> c #2 write m=w@113
        c1 +OK
        c2 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "answered already: what is newer elsewhere is concurrent": """
        nodes abcde
        c1 set k v
        b ack 1
        c newer 1 0
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "it does not overtake its successor in the same turn": """
        nodes abcde
        c1 set k v ; c1 set k w
        b newer 1 0
        held k
        state
        ----
        log writes k=v@101 k=w@102
        -> b #1 write k=v@101 k=w@102
        -> c #1 write k=v@101 k=w@102
        c1 +OK
        c1 +OK
        held k=w@102
        reads=0 writes=1 waiting=0 hints=-

        nodes abcde
        c1 set k v ; c1 set k w
        b newer 1 0 1
        ----
        log writes k=v@101 k=w@102
        -> b #1 write k=v@101 k=w@102
        -> c #1 write k=v@101 k=w@102
        log writes k=w@113
        -> b #2 write k=w@113
        -> c #2 write k=w@113
        """,
    "nor in a later one, on a node that has no copy either": """
        nodes abcde
        c1 set k v
        c1 set k w
        b newer 1 0
        held k
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=w@102
        -> b #2 write k=w@102
        -> c #2 write k=w@102
        held k=w@102

        nodes abcde
        c1 set k1 v
        c1 set k1 w
        b newer 1 0
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        -> b #2 write k1=w@102
        -> c #2 write k1=w@102
        -> d #2 write k1=w@102
        """,
    "it is answered when its successor has a quorum: before, what follows might read what b holds": """
        nodes abcde
        c1 set k v
        c1 set k w
        b newer 1 0
        c ack 1
        state
        c ack 2
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=w@102
        -> b #2 write k=w@102
        -> c #2 write k=w@102
        reads=0 writes=2 waiting=2 hints=-
        c1 +OK
        c1 +OK
        reads=0 writes=1 waiting=0 hints=-
        """,
    "or when its successor had one before": """
        nodes abcde w=2
        c1 set k v
        c1 set k w
        c ack 2
        b newer 1 0
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=w@102
        -> b #2 write k=w@102
        -> c #2 write k=w@102
        c1 +OK
        c1 +OK
        """,
    "or when its successor had one before, and only a fallback is still to take that": """
        nodes abcde
        op write k=v w=3
        c1 set k w
        b closes
        c ack 1 2
        d newer 3 0
        d closes
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=w@102
        -> b #2 write k=w@102
        -> c #2 write k=w@102
        -> d #3 stand-in for b k=v@101
        -> d #4 stand-in for b k=w@102
        c1 +OK
        op written
        -> e #5 stand-in for b k=w@102
        reads=0 writes=1 waiting=0 hints=-
        """,
    "each replica with a newer version has it sent above its own": """
        nodes abcde w=3
        c1 set k v
        b newer 1 0
        c newer 1 0
        b ack 2 3
        c ack 2
        state
        c ack 3
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        log writes k=v@123
        -> b #3 write k=v@123
        -> c #3 write k=v@123
        reads=0 writes=2 waiting=2 hints=-
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "what was sent again is newer nowhere, or concurrent: once is enough": """
        nodes abcde
        c1 set k v
        b newer 1 0
        b newer 2 0
        c ack 1 2
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "what was sent again is late: the client hears so, and hints are kept": """
        nodes abcde w=3
        c1 set k v
        b newer 1 0
        c ack 1
        b ack 2
        wait 1000
        wait 1000
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log writes k=v@112
        -> b #2 write k=v@112
        -> c #2 write k=v@112
        c1 -TIMEOUT write needed 3 acknowledgements, got 2 in time (hinted 0); it may still take effect
        -> d #3 stand-in for c k=v@112
        log hints c k=v@112
        reads=0 writes=0 waiting=0 hints=c:k
        """,
    "an expiry that lost to another version does not revive its own": """
        nodes abcde
        op write k=v@50!9999
        b newer 1 0
        state
        ----
        log writes k=v@50!9999
        -> b #1 write k=v@50!9999
        -> c #1 write k=v@50!9999
        op written
        reads=0 writes=1 waiting=0 hints=-

        nodes abcde
        op write k=v!9999
        b newer 1 0
        ----
        log writes k=v@101!9999
        -> b #1 write k=v@101!9999
        -> c #1 write k=v@101!9999
        log writes k=v@112!9999
        -> b #2 write k=v@112!9999
        -> c #2 write k=v@112!9999
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_write(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])


def test_a_peer_that_acknowledges_what_was_not_sent_is_no_node() -> None:
    lab = Lab()
    lab.run("c1 set k v")
    with pytest.raises(PeerProtocolError):
        lab.run("b newer 1 7")


def test_a_write_that_waited_for_its_turn_was_not_sent_meanwhile() -> None:
    """Nobody can have read it before: what a replica took in then was there earlier."""
    lab = Lab()
    lab.turn.late_s = 0.05
    lab.run("c1 set k v")
    lab.run("wait 1")
    lab.out.clear()
    lab.run("b newer 1 0:20")
    assert lab.out == ["log writes k=v@112", "-> b #2 write k=v@112", "-> c #2 write k=v@112"]
