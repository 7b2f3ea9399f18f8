"""Read repair, told by transcripts: who is sent what, and when the reader hears of it."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import expected, play

TRANSCRIPTS = {
    "answers that agree are answered at once": """
        nodes abcde sloppy=no
        hold k v@5
        c1 get k
        b records 1 v@5
        state
        ----
        -> b #1 read k
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "what a minority has is told when N-R+1 have it": """
        nodes abcde sloppy=no
        c1 get k2
        c records 1 v@5
        d records 1 u@4
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        reads=0 writes=0 waiting=1 hints=-

        d ack 2
        state
        ----
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "this node's own copy counts once it is in the log": """
        nodes abcde sloppy=no
        c1 get k
        b records 1 v@5
        held k
        ----
        -> b #1 read k
        c1 $1 v
        log writes k=v@5
        held k=v@5

        nodes abcde sloppy=no
        always
        c1 get k
        b records 1 v@5
        state
        ----
        -> b #1 read k
        log writes k=v@5
        reads=0 writes=0 waiting=1 hints=-

        durable
        ----
        c1 $1 v
        """,
    "the other keys of the batch are answered at once": """
        nodes abcde sloppy=no
        c1 get k2 ; c2 get m2 ; op read q2
        c records 1 v@5 x@6 -
        d records 1 v@5 x@7 -
        c ack 2
        ----
        -> c #1 read k2 m2 q2
        -> d #1 read k2 m2 q2
        c1 $1 v
        op q2=-
        -> c #2 repair m2=x@7
        c2 $1 x
        """,
    "five replicas: two more than the one that has it": """
        nodes abcde sloppy=no n=5 r=3 w=3
        c1 get k
        b records 1 -
        c records 1 v@5
        state
        b ack 2
        ----
        -> b #1 read k
        -> c #1 read k
        log writes k=v@5
        -> b #2 repair k=v@5
        reads=0 writes=0 waiting=1 hints=-
        c1 $1 v
        """,
    "all replicas asked: whoever has it is enough, the others are sent it": """
        nodes abcde sloppy=no r=3
        c1 get k
        b records 1 v@5
        c records 1 u@4
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        log writes k=v@5
        -> c #0 repair k=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a connection's larger R does not weaken what the others rely on": """
        nodes abcde sloppy=no
        op read k2 r=3
        c records 1 v@5
        d records 1 -
        e records 1 -
        d ack 2
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> e #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        op k2=v@5
        """,
    "R of no majority: those that were asked, and no further ones": """
        nodes abcde sloppy=no n=5 r=2
        c1 get k
        b records 1 v@5
        ----
        -> b #1 read k
        c1 $1 v
        log writes k=v@5
        """,
    "a slow replica: a further one is sent it, and is enough": """
        nodes abcde sloppy=no
        c1 get k2
        c records 1 v@5
        d records 1 -
        wait 60
        e ack 2
        d ack 2
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a late answer shows that a further one has it": """
        nodes abcde sloppy=no
        c1 get k2
        wait 60
        c records 1 v@5
        d records 1 -
        e records 1 v@5
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> e #1 read k2
        -> d #2 repair k2=v@5
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "who breaks off or refuses is replaced": """
        nodes abcde sloppy=no
        c1 get k2
        c records 1 v@5
        d records 1 -
        d closes
        e ack 2
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        c1 $1 v

        nodes abcde sloppy=no
        c1 get k2
        c records 1 v@5
        d records 1 -
        d refuse 2
        e refuse 2
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        c1 -TIMEOUT read found a version that has to be on 2 primaries, and 1 have it in time
        reads=0 writes=0 waiting=0 hints=-
        """,
    "nobody acknowledges in time: strict says so, at the deadline of the read": """
        nodes abcde sloppy=no
        c1 get k2 ; op read k2
        c records 1 v@5 v@5
        d records 1 - -
        wait 600
        wait 600
        state
        d ack 2
        ----
        -> c #1 read k2 k2
        -> d #1 read k2 k2
        -> d #2 repair k2=v@5 k2=v@5
        -> e #2 repair k2=v@5 k2=v@5
        c1 -TIMEOUT read found a version that has to be on 2 primaries, and 1 have it in time
        op -TIMEOUT read found a version that has to be on 2 primaries, and 1 have it in time
        reads=0 writes=0 waiting=0 hints=-
        """,
    "nobody acknowledges in time: sloppy answers": """
        nodes abcde
        c1 get k2
        c records 1 v@5
        d records 1 -
        wait 600
        wait 600
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=v@5
        -> e #2 repair k2=v@5
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "what stand-ins alone have is answered when the only primary has it, and they are sent nothing": """
        nodes abcde down=de
        hold k2 v@5
        c1 get k2
        c records 1 -
        c ack 2
        ----
        -> c #1 read k2
        -> c #2 repair k2=v@5
        c1 $1 v
        """,
    "async: nobody waits": """
        nodes abcde sloppy=no
        read-repair async
        c1 get k2
        c records 1 v@5
        d records 1 u@4
        state
        ----
        -> c #1 read k2
        -> d #1 read k2
        c1 $1 v
        -> d #0 repair k2=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "off: nothing is sent": """
        nodes abcde sloppy=no
        read-repair off
        c1 get k
        wait 60
        b records 1 v@5
        c records 1 u@4
        held k
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        held k=-
        """,
    "an answer that comes after a key was given up is compared with what the others were told": """
        nodes abcde down=cde r=2
        c1 get k2 ; c2 get m2
        b records 1 - v@7
        ----
        -> b #1 read-stand-in k2 m2
        c1 -NOQUORUM read needs 1 replicas, 0 can answer (primaries: needs 1, up 0); nothing was done
        c2 $1 v
        """,
    "a tombstone is held back like any other version": """
        nodes abcde sloppy=no
        c1 get k2
        c records 1 ~@6
        d records 1 u@4
        d ack 2
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 repair k2=~@6
        c1 nil
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_read_repair(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])
