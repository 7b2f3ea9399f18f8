"""Writes whose replicas cannot be reached any more, told by transcripts: who stands in, and who keeps the hints."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import expected, play

TRANSCRIPTS = {
    "a link breaks: a fallback is asked at once, and counts": """
        nodes abcde w=3
        c1 set k v
        b closes
        c ack 1
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
    "two links break: each owner has a fallback of its own, none counts twice": """
        nodes abcd w=3
        c1 set k v
        b closes
        c closes
        d ack 2
        state
        wait 1000
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        log hints c k=v@101
        reads=0 writes=1 waiting=1 hints=c:k
        c1 -TIMEOUT write needed 3 acknowledgements, got 2 in time (hinted 1); it may still take effect
        reads=0 writes=0 waiting=0 hints=c:k

        nodes abcde w=3
        c1 set k v
        b closes
        c closes
        d ack 2
        state
        e ack 3
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for c k=v@101
        reads=0 writes=2 waiting=1 hints=-
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a share goes to the first fallback of each key; together they count as one": """
        nodes abcde ring=abcdeabced w=3
        c1 set k v ; c2 set k5 w
        b closes
        c ack 1
        d ack 2
        state
        e ack 3
        state
        ----
        log writes k=v@101 k5=w@102
        -> b #1 write k=v@101 k5=w@102
        -> c #1 write k=v@101 k5=w@102
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for b k5=w@102
        reads=0 writes=2 waiting=2 hints=-
        c1 +OK
        c2 +OK
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde ring=abcdeabced w=3
        c1 set k v ; c2 set k5 w
        b closes
        c closes
        d ack 2 4
        e ack 3 5
        state
        ----
        log writes k=v@101 k5=w@102
        -> b #1 write k=v@101 k5=w@102
        -> c #1 write k=v@101 k5=w@102
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for b k5=w@102
        -> d #4 stand-in for c k5=w@102
        -> e #5 stand-in for c k=v@101
        c1 +OK
        c2 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "strict: a link breaks, the client waits for the others, and this node keeps a hint": """
        nodes abcde sloppy=no
        c1 set k v
        b closes
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        log hints b k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=b:k
        """,
    "the fallback's link breaks as well: the next one is asked; behind the last, this node keeps the hint": """
        nodes abcde w=3
        c1 set k v
        c ack 1
        b closes
        d closes
        e ack 3
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for b k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde
        c1 set k v
        b closes
        d closes
        e closes
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for b k=v@101
        log hints b k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=b:k
        """,
    "the fallback refuses: the next one is asked": """
        nodes abcde
        c1 set k v
        b closes
        d refuse 2
        e refuse 3
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        -> d #2 stand-in for b k=v@101
        -> e #3 stand-in for b k=v@101
        log hints b k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=b:k
        """,
    "the next fallback is this node: its copy counts": """
        nodes abcde w=3
        c1 set k1 v
        c ack 1
        d ack 1
        b closes
        e closes
        state
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        -> e #2 stand-in for b k1=v@101
        c1 +OK
        log hints b k1=v@101
        reads=0 writes=0 waiting=0 hints=b:k1
        """,
    "a fallback of one write is a primary of another, and its link breaks": """
        nodes abcdef n=2 w=2
        c1 set k v ; c2 set k1 w
        b closes
        c closes
        d ack 4
        e ack 5
        d ack 6
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> b #2 write k1=w@102
        -> c #2 write k1=w@102
        -> c #3 stand-in for b k=v@101
        -> d #4 stand-in for b k1=w@102
        -> e #5 stand-in for c k1=w@102
        -> d #6 stand-in for b k=v@101
        c2 +OK
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a share of some keys is passed on, beside those that went elsewhere": """
        nodes abcdef ring=abcdefabcedf w=3
        c1 set k v ; c2 set m w ; c3 set k6 x
        b closes
        c ack 1
        d closes
        e ack 3
        state
        e ack 4
        state
        ----
        log writes k=v@101 m=w@102 k6=x@103
        -> b #1 write k=v@101 m=w@102 k6=x@103
        -> c #1 write k=v@101 m=w@102 k6=x@103
        -> d #2 stand-in for b k=v@101 m=w@102
        -> e #3 stand-in for b k6=x@103
        -> e #4 stand-in for b k=v@101 m=w@102
        reads=0 writes=2 waiting=3 hints=-
        c1 +OK
        c2 +OK
        c3 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "this node is the fallback and has no room for hints: it does not count": """
        nodes abcde
        window-closed c
        c1 set k1 v
        b closes
        c closes
        d ack 1
        wait 1000
        state
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        -> e #2 stand-in for b k1=v@101
        c1 -TIMEOUT write needed 2 acknowledgements, got 1 in time (hinted 0); it may still take effect
        log hints b k1=v@101
        reads=0 writes=0 waiting=0 hints=b:k1
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_write(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])
