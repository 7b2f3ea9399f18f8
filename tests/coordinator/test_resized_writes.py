"""Reads and writes while N changes, by transcripts: `core` replicas count for W, of those that are `stored` on, `all` have to have it."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import expected, play

TRANSCRIPTS = {
    "N rises from 1 to 3: the old one and one of the added have to have it": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no
        c1 set k1 v
        c ack 1
        d ack 1
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101

        b ack 1
        state
        ----
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "the old one alone is not enough, and does not answer at once although W is 1": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no
        c1 set k v
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=1 waiting=0 hints=-
        """,
    "reads ask the old one alone, also where this node has a copy that is not filled": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no
        hold k4 stale@5
        c1 get k4
        e records 1 v@9
        ----
        -> e #1 read k4
        c1 $1 v
        """,
    "too few of the added are up: refused before any effect": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no down=cd
        c1 set k1 v
        state
        ----
        c1 -NOQUORUM write needs 2 replicas, 1 can answer; nothing was done
        reads=0 writes=0 waiting=0 hints=-
        """,
    "the old one is away: the added do not count in its place": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no down=b
        c1 set k1 v
        c2 get k1
        ----
        c1 -NOQUORUM write needs 1 replicas, 0 can answer; nothing was done
        c2 -NOQUORUM read needs 1 replicas, 0 can answer; nothing was done
        """,
    "who stands in for the old one counts for it": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 down=b
        op write k1=v
        c ack 1
        e ack 1
        ----
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        -> e #1 stand-in for b k1=v@101
        op written
        """,
    "who stands in for an added one counts beside it": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=3 down=c
        op write k1=v
        e ack 1
        b ack 1
        state
        d ack 1
        ----
        -> b #1 write k1=v@101
        -> d #1 write k1=v@101
        -> e #1 stand-in for c k1=v@101
        reads=0 writes=1 waiting=1 hints=-
        op written
        """,
    "a connection that asks for less hears sooner": """
        nodes abcde n=3 r=2 w=2 core=3 stored=5 all=3 sloppy=no
        op write k1=v w=1
        c ack 1
        ----
        log writes k1=v@101
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        -> e #1 write k1=v@101
        op written
        """,
    "too few in time: the truth about both rules": """
        nodes abcde n=1 r=1 w=1 core=1 stored=3 all=2 sloppy=no
        op write k1=v
        b ack 1
        wait 60
        wait 1000
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        op -TIMEOUT write needed 2 acknowledgements, got 1 in time (hinted 2); it may still take effect
        log hints c k1=v@101
        log hints d k1=v@101
        """,
    "blocking read repair keeps to those that are read": """
        nodes abcde n=3 r=2 w=2 core=3 stored=5 all=3 sloppy=no
        c1 get k2
        c records 1 v@5
        d records 1 -
        wait 60
        e ack 2
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        c1 $1 v
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_while_n_changes(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])
