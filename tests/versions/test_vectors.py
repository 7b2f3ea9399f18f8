"""Dotted version vector sets: whatever is merged in whichever order, nothing is lost that nobody had seen."""

from __future__ import annotations

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import ClientError
from respkv.versions import records, vectors
from respkv.versions.records import ABSENT, SIBLINGS
from respkv.versions.vectors import merge, successor

ACTORS = [b"actor-aa", b"actor-bb", b"actor-cc"]
NOW_MS = 1000
KEY = b"key"
CONTEXT_HEADER = urlsafe_b64decode(vectors.context_of(KEY, ABSENT))


def plain(value: bytes | None, stamp: int, actor: bytes = ACTORS[0], expire_at_ms: int | None = None) -> bytes:
    if value is None:
        return records.tombstone(stamp=stamp, actor=actor)
    return records.string(value, stamp=stamp, actor=actor, expire_at_ms=expire_at_ms)


def values(record: bytes) -> set[bytes]:
    return {sibling[records.HEADER_BYTES :] for sibling in records.siblings_in(record) if sibling[16] == records.VALUE}


class Replicas:
    """Three replicas of one key, each with a clock of its own: whatever a cluster can make of a key is reached from here."""

    def __init__(self) -> None:
        self.held = [ABSENT] * 3
        self.clocks = [0] * 3
        self.lost: list[bytes] = []

    def stamp(self, index: int, *seen: bytes) -> int:
        newest = max([self.clocks[index], *map(records.newest_stamp_of, (*seen, self.held[index]))])
        self.clocks[index] = newest + 1
        return newest + 1

    def write(self, index: int, context: bytes | None, value: bytes | None) -> None:
        seen = self.held[index] if context is None else context
        new = plain(value, self.stamp(index, seen), ACTORS[index])
        self.held[index] = successor(self.held[index], seen, new)

    def write_plain(self, index: int, value: bytes | None) -> None:
        self.held[index] = merge(self.held[index], plain(value, self.stamp(index), ACTORS[index]))

    def expire(self, index: int, when: int) -> None:
        record = records.without_expired_value(self.held[index], 5)
        if records.is_visible(record, 5):
            self.held[index] = merge(record, records.with_expiry(record, stamp=self.stamp(index), expire_at_ms=when))

    def exchange(self, source: int, target: int) -> None:
        self.held[target] = merge(self.held[target], self.held[source])


STEP = st.tuples(
    st.sampled_from(["write", "write", "seen", "delete", "plain", "expire", "exchange", "cut"]), st.integers(0, 2), st.integers(0, 2)
)


def play(steps: list[tuple[str, int, int]]) -> Replicas:
    replicas = Replicas()
    for number, (kind, index, other) in enumerate(steps):
        value = b"value %d" % number
        match kind:
            case "write":
                replicas.write(index, None, value)
            case "seen":
                replicas.write(index, vectors.seen_by(KEY, vectors.context_of(KEY, replicas.held[other])), value)
            case "delete":
                replicas.write(index, None, None)
            case "plain":
                replicas.write_plain(index, value if other else None)
            case "expire":
                replicas.expire(index, 10 * other)
            case "cut":
                replicas.held[index] = records.without_expired_value(replicas.held[index], 5)
            case _:
                replicas.exchange(index, other)
    return replicas


@given(st.lists(STEP, max_size=14))
def test_merging_what_a_cluster_makes_is_a_semilattice(steps: list[tuple[str, int, int]]) -> None:
    held = play(steps).held
    whole = reduce(merge, held)
    for order in permutations(held):
        assert merge(merge(order[0], order[1]), order[2]) == whole
        assert merge(order[0], merge(order[1], order[2])) == whole
    for record in held:
        assert merge(record, record) == record
        assert merge(record, whole) == merge(whole, record) == whole
        assert merge(record, ABSENT) == merge(ABSENT, record) == record


@given(st.lists(STEP, max_size=14), st.integers(0, 30))
def test_what_nodes_make_of_siblings_is_a_record(steps: list[tuple[str, int, int]], now_ms: int) -> None:
    for record in play(steps).held:
        assert records.is_well_formed(record) == bool(record)
        assert vectors.put_together(vectors.take_apart(record)) == record
        assert records.newest_stamp_of(record) >= records.stamp_of(record)
        cut = records.without_expired_value(record, now_ms)
        assert records.identity(cut) == records.identity(record)
        assert records.value_of(cut, now_ms) == records.value_of(record, now_ms)
        assert not records.is_visible(record, now_ms) or records.holds_value(record)
        assert records.value_of(vectors.settled(record), now_ms) == records.value_of(record, now_ms)
        assert values(vectors.settled(record)) == values(record)


class Told(Replicas):
    """The same, beside a model: each write and the set of writes that it knew of."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[set[int]] = [set(), set(), set()]
        self.replaced: list[set[int]] = [set(), set(), set()]


@given(st.lists(st.tuples(st.sampled_from(["write", "seen", "delete", "exchange"]), st.integers(0, 2), st.integers(0, 2)), max_size=16))
def test_a_write_replaces_exactly_what_its_writer_has_seen(steps: list[tuple[str, int, int]]) -> None:
    """Against sets of writes: known, and replaced."""
    told = Told()
    for number, (kind, index, other) in enumerate(steps):
        if kind == "exchange":
            told.exchange(index, other)
            told.known[other] |= told.known[index]
            told.replaced[other] |= told.replaced[index]
            continue
        reader = other if kind == "seen" else index
        context = vectors.seen_by(KEY, vectors.context_of(KEY, told.held[reader]))
        told.write(index, context, None if kind == "delete" else b"value %d" % number)
        told.replaced[index] |= told.known[reader] | told.replaced[reader]
        told.known[index] |= told.known[reader] | {number}
        if kind == "delete":
            told.replaced[index].add(number)
    for record, known, replaced in zip(told.held, told.known, told.replaced, strict=True):
        assert values(record) == {b"value %d" % number for number in known - replaced}


def test_two_who_have_read_the_same_and_write_leave_siblings_and_the_next_who_reads_both_replaces_both() -> None:
    first = successor(ABSENT, ABSENT, plain(b"first", 1))
    left = successor(first, first, plain(b"left", 2))
    both = successor(left, first, plain(b"right", 3))
    assert values(both) == {b"left", b"right"}
    assert records.value_of(both, NOW_MS) == b"right"
    after = successor(both, vectors.seen_by(KEY, vectors.context_of(KEY, both)), plain(b"after", 4))
    assert values(after) == {b"after"}


def test_a_replica_that_lost_its_copy_and_goes_on_as_a_new_actor_loses_nothing() -> None:
    """Riak's kv679: as the old actor, its new write would be covered by what others remember of it, or cover what it has not seen."""
    before = successor(ABSENT, ABSENT, plain(b"before", 7, ACTORS[0]))
    others = successor(before, before, plain(b"kept by others", 8, ACTORS[0]))
    reborn = successor(ABSENT, ABSENT, plain(b"new", 3, ACTORS[1]))
    merged = merge(others, reborn)
    assert values(merged) == {b"kept by others", b"new"}
    assert values(successor(merged, merged, plain(b"all", 9, ACTORS[1]))) == {b"all"}


def test_what_was_written_beside_a_deletion_survives_it() -> None:
    first = successor(ABSENT, ABSENT, plain(b"first", 1))
    deleted = successor(first, first, plain(None, 2))
    written = successor(first, first, plain(b"second", 3, ACTORS[1]))
    assert values(merge(deleted, written)) == {b"second"}
    assert values(merge(deleted, first)) == set()


def test_last_write_wins_and_siblings_of_one_key_live_side_by_side() -> None:
    old = plain(b"plain", 5)
    dotted = successor(old, old, plain(b"dotted", 6, ACTORS[1]))
    assert values(merge(dotted, old)) == {b"dotted"}
    assert merge(dotted, plain(b"later", 9)) == plain(b"later", 9)
    assert values(merge(successor(dotted, ABSENT, plain(b"beside", 7)), plain(b"later", 9))) == {b"later"}


def test_settling_forgets_actors_and_makes_a_single_value_plain() -> None:
    record = ABSENT
    for stamp in range(1, 40):
        record = successor(record, record, plain(b"value", stamp, b"actor-%02d" % stamp))
    assert len(vectors.take_apart(record).vector) == 39
    assert vectors.settled(record) == plain(b"value", 39, b"actor-39")
    assert merge(vectors.settled(record), record) == vectors.settled(record)
    deleted = successor(record, record, plain(None, 50))
    assert vectors.settled(deleted) == plain(None, 50)
    both = merge(record, successor(ABSENT, ABSENT, plain(b"beside", 30, b"actor-zz")))
    assert values(vectors.settled(both)) == {b"value", b"beside"}
    assert len(vectors.take_apart(vectors.settled(both)).vector) < 12


def test_flushall_takes_the_siblings_below_its_floor() -> None:
    low = successor(ABSENT, ABSENT, plain(b"low", 1))
    both = merge(low, successor(ABSENT, ABSENT, plain(b"high", 9, ACTORS[1])))
    assert values(vectors.raised(both, (5).to_bytes(8, "big"))) == {b"high"}
    assert vectors.raised(low, (5).to_bytes(8, "big")) == ABSENT
    assert vectors.raised(both, b"") == both


def test_an_expiry_belongs_to_each_sibling() -> None:
    left = successor(ABSENT, ABSENT, plain(b"left", 1, expire_at_ms=50))
    both = merge(left, successor(ABSENT, ABSENT, plain(b"right", 2, ACTORS[1])))
    assert records.value_of(both, 10) == b"right"
    expiring = records.with_expiry(both, stamp=3, expire_at_ms=20)
    assert records.value_of(expiring, 30) is None
    assert records.expiry_of(expiring, 10) == 20
    assert merge(both, expiring) == expiring
    assert records.will_expire(both)
    assert not records.will_expire(records.without_expired_value(expiring, 30))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", CONTEXT_HEADER[:4], CONTEXT_HEADER + b"short", CONTEXT_HEADER + bytes(16) + b"\x03s" + bytes(16) + b"\x00\x09\x00\x00"],
)
def test_a_context_that_nobody_gave_is_refused(data: bytes) -> None:
    for context in (urlsafe_b64encode(data), data, b"AQ=", b"\xff"):
        with pytest.raises(ClientError, match="invalid context"):
            vectors.seen_by(KEY, context)


def made_up(newest: bytes, floor: bytes, entries: list[bytes]) -> bytes:
    counts = len(entries).to_bytes(2) + bytes(2)
    return urlsafe_b64encode(CONTEXT_HEADER + newest + bytes((SIBLINGS, 0)) + floor + counts + b"".join(entries))


LOW, MIDDLE, HIGH = (stamp.to_bytes(8) + actor for stamp, actor in zip((1, 2, 3), ACTORS, strict=True))


@pytest.mark.parametrize(
    ("newest", "floor", "entries"),
    [(LOW, HIGH, [LOW]), (LOW, bytes(16), [HIGH]), (LOW, bytes(16), [LOW, HIGH]), (HIGH, bytes(16), [HIGH, LOW]), (LOW, LOW, [LOW, LOW])],
)
def test_a_context_that_hides_what_it_has_seen_is_refused(newest: bytes, floor: bytes, entries: list[bytes]) -> None:
    """What stands above its first version would be in no clock: the write would be superseded before it was made."""
    assert vectors.seen_by(KEY, made_up(HIGH, LOW, [MIDDLE, HIGH]))
    with pytest.raises(ClientError, match="invalid context"):
        vectors.seen_by(KEY, made_up(newest, floor, entries))
    assert not records.is_well_formed(urlsafe_b64decode(made_up(newest, floor, entries))[len(CONTEXT_HEADER) :])


def test_contexts_that_were_made_up_fill_no_vector() -> None:
    record = successor(ABSENT, ABSENT, plain(b"value", 1))
    for first in range(0, 4000, 1000):
        entries = [number.to_bytes(8) + number.to_bytes(8) for number in range(first + 2, first + 1002)]
        seen = vectors.seen_by(KEY, made_up(entries[-1], bytes(16), entries))
        if first + 1000 > vectors.ACTORS_MAX:
            with pytest.raises(ClientError, match="invalid context"):
                successor(record, seen, plain(b"next", 100_000 + first))
        else:
            record = successor(record, seen, plain(b"next", 100_000 + first))
    assert values(successor(record, record, plain(b"last", 200_000))) == {b"last"}


def test_a_context_holds_no_values() -> None:
    rng = random.Random(3)
    secret = rng.randbytes(30)
    record = successor(ABSENT, ABSENT, plain(secret, 4))
    both = merge(record, successor(ABSENT, ABSENT, plain(secret + b"2", 5, ACTORS[1])))
    assert both[16] == SIBLINGS
    for held in (record, both):
        assert secret not in urlsafe_b64decode(vectors.context_of(KEY, held))
        assert vectors.seen_by(KEY, vectors.context_of(KEY, held))
    assert vectors.seen_by(KEY, vectors.context_of(KEY, ABSENT)) == ABSENT
    assert len(vectors.describe_vector(both)) == 2
