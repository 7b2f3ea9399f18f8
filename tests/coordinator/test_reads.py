"""Reads, told by transcripts: who is asked, when it is enough, who hears what."""

from __future__ import annotations

import pytest

from tests.coordinator.lab import expected, play

TRANSCRIPTS = {
    "enough is enough: R=2 is this node's copy and one other": """
        nodes abcde
        hold k v@5
        c1 get k
        b records 1 v@5
        state
        ----
        -> b #1 read k
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "reads are spread over the other replicas": """
        nodes abcde
        c1 get k2
        c1 get k2
        c1 get k2
        ----
        -> c #1 read k2
        -> d #1 read k2
        -> d #2 read k2
        -> e #2 read k2
        -> e #3 read k2
        -> c #3 read k2
        """,
    "a replica for which hints are outstanding is not asked while others are enough": """
        nodes abcde stale=d
        c1 get k2
        c1 get k2
        ----
        -> c #1 read k2
        -> e #1 read k2
        -> c #2 read k2
        -> e #2 read k2

        view r=3
        c1 get k2
        ----
        -> c #3 read k2
        -> e #3 read k2
        -> d #3 read k2
        """,
    "the newest of the answers wins, and who had an older one gets it": """
        nodes abcde
        hold k v@5
        c1 get k
        b records 1 w@6
        ----
        -> b #1 read k
        c1 $1 w
        log writes k=w@6

        c1 get k
        c records 3 -
        c ack 4
        ----
        -> c #3 read k
        -> c #4 repair k=w@6
        c1 $1 w
        """,
    "an answer that comes late is compared too, and what is newer there is left alone": """
        nodes abcde r=2
        hold k v@5
        c1 get k
        wait 60
        c records 1 v@5
        b records 1 u@4
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        -> b #0 repair k=v@5
        reads=0 writes=0 waiting=0 hints=-

        c1 get k
        wait 60
        b records 2 v@5
        c records 2 w@9
        state
        ----
        -> c #2 read k
        -> b #2 read k
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a tombstone is an answer, and repairs": """
        nodes abcde
        hold k v@5
        c1 get k
        b records 1 ~@6
        ----
        -> b #1 read k
        c1 nil
        log writes k=~@6
        """,
    "too few are up: refused before anything is asked": """
        nodes abcde down=bc sloppy=no
        c1 get k
        op read k,k2
        state
        ----
        c1 -NOQUORUM read needs 2 replicas, 1 can answer; nothing was done
        op -NOQUORUM read needs 2 replicas, 1 can answer; nothing was done
        reads=0 writes=0 waiting=0 hints=-
        """,
    "too few answer in time": """
        nodes abcde
        c1 get k
        wait 60
        wait 1000
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 -TIMEOUT read needed 2 answers, got 1 in time
        reads=0 writes=0 waiting=0 hints=-

        b records 1 v@5
        state
        ----
        reads=0 writes=0 waiting=0 hints=-
        """,
    "who cannot answer any more is replaced at once": """
        nodes abcde
        c1 get k
        b closes
        c records 1 v@5
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        log writes k=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a node that refuses is replaced; when nobody is left, the client hears so at once": """
        nodes abcde sloppy=no
        c1 get k
        b refuse 1
        c refuse 1
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 -TIMEOUT read needed 2 answers, got 1 in time
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a refusal of somebody who has answered already asks nobody": """
        nodes abcde r=3
        c1 get k
        b records 1 v@5
        b refuse 1
        c records 1 v@5
        state
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        log writes k=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "an answer counts once": """
        nodes abcde
        c1 get k2
        c records 1 v@5
        c records 1 v@5
        d records 1 v@5
        ----
        -> c #1 read k2
        -> d #1 read k2
        c1 $1 v
        """,
    "a stand-in that knows the key answers for it": """
        nodes abcde down=c
        c1 get k1
        d records 1 v@5
        ----
        -> b #1 read k1
        -> d #1 read k1

        b records 1 v@5
        ----
        c1 $1 v
        """,
    "an ignorant stand-in proves nothing: this node asks a primary even at R=1": """
        nodes abcde down=c r=1
        c1 get k2
        d records 1 v@5
        state
        ----
        -> d #1 read k2
        c1 $1 v
        reads=0 writes=0 waiting=0 hints=-

        view r=2
        op read k2 r=1
        d records 2 -
        ----
        -> d #2 read k2
        op k2=-
        """,
    "a stand-in does not count itself while enough primaries are up; what it knows is not forgotten": """
        nodes abcde down=c
        hold k2 w@9
        c1 get k2
        d records 1 v@5
        e records 1 v@5
        d ack 2
        state
        ----
        -> d #1 read k2
        -> e #1 read k2
        -> d #2 repair k2=w@9
        -> e #2 repair k2=w@9
        c1 $1 w
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde down=cd
        hold k2 w@9
        c1 get k2
        e records 1 v@5
        e ack 2
        state
        ----
        -> e #1 read k2
        -> e #2 repair k2=w@9
        c1 $1 w
        reads=0 writes=0 waiting=0 hints=-
        """,
    "at R=1 a stand-in that knows the key is enough where no primary lacks nothing": """
        nodes abcde down=c r=1 stale=de
        hold k2 v@5
        c1 get k2
        ----
        c1 $1 v
        """,
    "not found without any primary is no answer; who reads what is found is not concerned": """
        nodes abcde down=cde r=1
        hold k2 v@5
        op read k2
        ----
        op k2=v@5

        nodes abcde down=cde r=2
        c1 get k2
        b records 1 -
        state
        ----
        -> b #1 read-stand-in k2
        c1 -NOQUORUM read needs 1 replicas, 0 can answer (primaries: needs 1, up 0); nothing was done
        reads=0 writes=0 waiting=0 hints=-

        nodes abcde down=cde r=1
        op read k2
        state
        ----
        op -NOQUORUM read needs 1 replicas, 0 can answer (primaries: needs 1, up 0); nothing was done
        reads=0 writes=0 waiting=0 hints=-
        """,
    "one key that nobody can vouch for does not spoil the others of the batch": """
        nodes abcde down=cde r=2
        c1 get k2 ; c2 get m2
        b records 1 - v@7
        state
        ----
        -> b #1 read-stand-in k2 m2
        c1 -NOQUORUM read needs 1 replicas, 0 can answer (primaries: needs 1, up 0); nothing was done
        c2 $1 v
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a primary that is to prove an absence and is silent: the others are answered at the deadline": """
        nodes abcde down=c r=1
        c1 get k2 ; c2 get k2
        hold k2 v@5
        wait 60
        wait 1000
        state
        ----
        -> d #1 read k2 k2
        -> e #1 read k2 k2
        c1 -TIMEOUT read needed 1 answers, got 1 in time
        c2 -TIMEOUT read needed 1 answers, got 1 in time
        reads=0 writes=0 waiting=0 hints=-
        """,
    "nobody is asked any more at the deadline: what was found is answered": """
        nodes abcde down=ce r=2
        c1 get k2 ; c2 get m2
        wait 60
        b records 1 - v@7
        view down=e
        wait 1000
        state
        ----
        -> d #1 read k2 m2
        -> b #1 read-stand-in k2 m2
        c1 -TIMEOUT read needed 2 answers, got 2 in time
        c2 $1 v
        -> c #2 repair m2=v@7
        reads=0 writes=0 waiting=0 hints=-
        """,
    "PR: primaries are asked before stand-ins, whatever they lack": """
        nodes abcde r=2 pr=2 stale=b down=c
        c1 get k
        b records 1 -
        state
        ----
        -> b #1 read k
        c1 nil
        reads=0 writes=0 waiting=0 hints=-
        """,
    "PR: stand-ins do not count": """
        nodes abcde r=2 pr=2 down=bc
        c1 get k
        ----
        c1 -NOQUORUM read needs 2 replicas, 3 can answer (primaries: needs 2, up 1); nothing was done
        """,
    "PR: the next primary is asked when one is lost": """
        nodes abcde r=2 pr=2
        c1 get k
        b refuse 1
        c records 1 v@5
        ----
        -> b #1 read k
        -> c #1 read k
        c1 $1 v
        log writes k=v@5
        """,
    "R=3 PR=1 without a copy of this node's own": """
        nodes abcde down=c
        op read k1 r=3 pr=1
        b records 1 v@5
        d records 1 v@5
        e records 1 -
        state
        ----
        -> b #1 read k1
        -> d #1 read k1
        -> e #1 read-stand-in k1
        op k1=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "a node that rebuilds does not answer": """
        nodes abcde rebuilding=b
        c1 get k
        c1 get k
        ----
        -> c #1 read k
        -> c #2 read k

        view rebuilding=a
        c1 get k
        ----
        -> b #3 read k
        -> c #3 read k
        """,
    "an operation reads keys of several routes": """
        nodes abcde
        hold k v@5
        op read k,k2
        c records 2 w@6
        d records 2 w@6
        b records 1 v@5
        state
        ----
        -> b #1 read k
        -> c #2 read k2
        -> d #2 read k2
        op k2=w@6
        op k=v@5
        reads=0 writes=0 waiting=0 hints=-
        """,
    "more replicas wanted than the ring has members: all of them": """
        nodes ab n=3 r=2
        c1 get k
        b records 1 v@5
        ----
        -> b #1 read k
        c1 $1 v
        log writes k=v@5
        """,
}


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_read(title: str) -> None:
    assert play(TRANSCRIPTS[title]) == expected(TRANSCRIPTS[title])
