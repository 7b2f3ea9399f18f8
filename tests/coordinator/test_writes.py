"""Writes, told by transcripts: who gets them, what counts, what is sent again, who hears what."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import expected, play

TRANSCRIPTS = {
    "all N get it, W answer, the last one may take its time": """
        nodes abcde
        c1 set k v
        b ack 1
        state
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=1 waiting=0 hints=-
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a node that has no copy coordinates as well": """
        nodes abcde
        c1 set k1 v
        b ack 1
        d ack 1
        c ack 1
        state
        ----
        -> b #1 write k1=v@101
        -> c #1 write k1=v@101
        -> d #1 write k1=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
    "an acknowledgement counts once": """
        nodes abcde w=3
        c1 set k v
        b ack 1
        b ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        reads=0 writes=1 waiting=1 hints=-
        """,
    "W=1 on a primary: the client need not wait": """
        nodes abcde w=1
        c1 set k v
        b ack 1
        c ack 1
        state
        ----
        c1 +OK
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        reads=0 writes=0 waiting=0 hints=-
        """,
    "writes of a turn to the same replicas are one batch": """
        nodes abcde
        c1 set k v ; c2 set m w ; c1 set k x
        b ack 1
        ----
        log writes k=v@101 m=w@102 k=x@103
        -> b #1 write k=v@101 m=w@102 k=x@103
        -> c #1 write k=v@101 m=w@102 k=x@103
        c1 +OK
        c1 +OK
        c2 +OK
        """,
    "appendfsync always: this node's own copy counts once it is durable": """
        nodes abcde
        always
        c1 set k v
        b ack 1
        durable
        c ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> c #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-

        view w=1
        c1 set k w
        durable
        ----
        log writes k=w@102
        -> b #2 write k=w@102
        -> c #2 write k=w@102
        c1 +OK
        """,
    "too few are up, or a clock is off, or the disk is full: refused before any effect": """
        nodes abcde down=bc sloppy=no
        c1 set k v
        held k
        ----
        c1 -NOQUORUM write needs 2 replicas, 1 can answer; nothing was done
        held k=-

        nodes abcde pw=2 down=bc
        c1 set k v
        held k
        ----
        c1 -NOQUORUM write needs 2 replicas, 3 can answer (primaries: needs 2, up 1); nothing was done
        held k=-

        nodes abcde
        clock-off 700
        c1 set k v
        held k
        ----
        c1 -CLOCKSKEW this node's clock is 700 ms off the median of its peers': it stamps no writes
        held k=-

        nodes abcde
        disk-full
        c1 set k v
        op write k1=v,k=v
        held k
        state
        ----
        c1 -BUSY the disk is nearly full (min-free-disk); nothing was done
        op -BUSY the disk is nearly full (min-free-disk); nothing was done
        held k=-
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a fallback of an owner that is away counts for W": """
        nodes abcde down=c
        c1 set k v
        d ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> d #1 stand-in for c k=v@101
        c1 +OK
        reads=0 writes=1 waiting=0 hints=-
        """,
    "but never for PW": """
        nodes abcde down=c pw=2
        c1 set k v
        d ack 1
        b ack 1
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        -> d #1 stand-in for c k=v@101
        c1 +OK
        """,
    "this node stands in, with a hint row": """
        nodes abcde down=c
        c1 set k2 v
        d ack 1
        e ack 1
        state
        ----
        log writes k2=v@101
        log hints c k2=v@101
        -> d #1 write k2=v@101
        -> e #1 write k2=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=c:k2
        """,
    "W=1 on a stand-in: only with its hint row": """
        nodes abcde down=c w=1
        c1 set k2 v
        state
        ----
        c1 +OK
        log writes k2=v@101
        log hints c k2=v@101
        -> d #1 write k2=v@101
        -> e #1 write k2=v@101
        reads=0 writes=1 waiting=0 hints=c:k2

        hints 100
        c1 set m2 v
        held m2
        d ack 2
        state
        ----
        log writes m2=v@102
        log dropped m2
        -> d #2 write m2=v@102
        -> e #2 write m2=v@102
        held m2=-
        c1 +OK
        reads=0 writes=2 waiting=0 hints=c:k2
        """,
    "with all primaries and all but one fallback away, that one keeps hints for all of them, and counts once": """
        nodes abcde down=cdeb w=1
        c1 set k2 v
        state
        ----
        c1 +OK
        log writes k2=v@101
        log hints c k2=v@101
        log hints d k2=v@101
        log hints e k2=v@101
        reads=0 writes=0 waiting=0 hints=c:k2 d:k2 e:k2

        nodes abcde down=cdeb w=2
        c1 set k2 v
        ----
        c1 -NOQUORUM write needs 2 replicas, 1 can answer; nothing was done
        """,
    "a stand-in without room for hints keeps nothing, and does not count": """
        nodes abcde down=c
        hints 1
        c1 set k2 v
        held k2
        d ack 1
        e ack 1
        state
        ----
        log writes k2=v@101
        log dropped k2
        -> d #1 write k2=v@101
        -> e #1 write k2=v@101
        held k2=-
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde down=cde w=1
        window-closed c
        c1 set k2 v
        wait 60
        wait 1000
        state
        ----
        log writes k2=v@101
        log hints e k2=v@101
        -> b #1 stand-in for d k2=v@101
        c1 -TIMEOUT write needed 1 acknowledgements, got 0 in time (hinted 2); it may still take effect
        log hints d k2=v@101
        reads=0 writes=0 waiting=0 hints=d:k2 e:k2
        """,
    "what it holds for another owner stays": """
        nodes abcde down=cd
        window-closed d
        d stand-in 7 c k2=u@5
        c1 set k2 v
        held k2
        state
        ----
        log hints c k2=u@5
        -> d #0 ack 7
        log writes k2=v@101
        log hints c k2=v@101
        -> e #1 write k2=v@101
        -> b #1 stand-in for d k2=v@101
        held k2=v@101
        reads=0 writes=1 waiting=1 hints=c:k2
        """,
    "no fallback is left: this node keeps the rows beside its own copy, which counts once": """
        nodes abc down=bc w=1
        c1 set k v
        state
        ----
        c1 +OK
        log writes k=v@101
        log hints b k=v@101
        log hints c k=v@101
        reads=0 writes=0 waiting=0 hints=b:k c:k

        view w=2
        c1 set k w
        ----
        c1 -NOQUORUM write needs 2 replicas, 1 can answer; nothing was done
        """,
    "no fallback is left and this node has no copy: a primary keeps the rows": """
        nodes abcde down=cde w=1
        c1 set k1 v
        b ack 1
        state
        ----
        c1 +OK
        log writes k1=v@101
        log hints c k1=v@101
        -> b #1 stand-in for d k1=v@101
        reads=0 writes=0 waiting=0 hints=c:k1
        """,
    "strict: hints are kept and do not count; without handoff they are not kept": """
        nodes abcde down=c sloppy=no
        c1 set k v
        b ack 1
        state
        ----
        log writes k=v@101
        log hints c k=v@101
        -> b #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=c:k

        nodes abcde down=c sloppy=no handoff=no
        c1 set k v
        b ack 1
        state
        ----
        log writes k=v@101
        -> b #1 write k=v@101
        c1 +OK
        reads=0 writes=0 waiting=0 hints=-
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_write(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])
