"""Hinted hand-off: rows go when their owner has the record, in batches, at a bounded rate, and never to a node that does not answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from respkv.repair.handoff import (
    ANSWER_S,
    BATCH_BYTES_MAX,
    BATCH_KEYS_MAX,
    LOG_HINTS,
    LOG_HINTS_DROPPED,
    LOG_KEYS_DROPPED,
    REST_AFTER_FAILURE_S,
    Handoff,
)
from respkv.repair.hints import HintBook
from respkv.storage.parking import Parking
from respkv.storage.store import Store
from respkv.transport import frames
from respkv.transport.turn import Turn
from respkv.versions import records

A, B, C = "a" * 40, "b" * 40, "c" * 40


def string(value: bytes, stamp: int = 5) -> bytes:
    return records.string(value, stamp=stamp, actor=bytes(8))


class Holder:
    """A node that holds hints."""

    def __init__(self, *, is_replica: bool = False) -> None:
        self.turn = Turn()
        self.turn.now = 100.0
        self.store = Store(ring_size=16)
        self.hints = HintBook(bytes_max=0)
        self.parking = Parking(self.store)
        self.replicas = [B, C]
        self.handoff = Handoff(
            me=A,
            turn=self.turn,
            store=self.store,
            hints=self.hints,
            parking=self.parking,
            is_replica=lambda _partition: is_replica,
            replicas=lambda _partition: self.replicas,
        )
        self.handoff.usable = frozenset((B, C))

    def hold(self, owner: str, **values: bytes) -> None:
        for name, value in values.items():
            key = name.encode()
            self.store.merge_pairs([key, string(value)])
            self.hints.add(owner, [key, string(value)], self.turn.now)

    def tick(self, seconds: float = 0.0) -> list[tuple[str, int, dict[bytes, bytes]]]:
        """Let time pass. Returns (owner, sequence, records) of what is sent."""
        self.turn.now += seconds
        self.handoff.tick()
        return self.sent()

    def sent(self) -> list[tuple[str, int, dict[bytes, bytes]]]:
        found = []
        for owner, sections in self.turn.sections.items():
            for section in sections:
                for kind, sequence, body in frames.sections(bytes(frames.HEADER_BYTES) + section):
                    assert kind == frames.REPAIR
                    flat = msgspec.msgpack.decode(body, type=list[bytes])
                    found.append((owner, sequence, dict(zip(flat[::2], flat[1::2], strict=True))))
        self.turn.sections.clear()
        return found

    def log(self) -> list[tuple[int, object]]:
        found = [(kind, msgspec.msgpack.decode(body)) for kind, body in self.turn.log]
        self.turn.log.clear()
        return found


def test_a_row_goes_when_its_owner_has_the_record_and_with_it_the_copy_of_a_stand_in() -> None:
    holder = Holder()
    holder.hold(B, k=b"v")
    ((owner, sequence, found),) = holder.tick()
    assert (owner, found) == (B, {b"k": string(b"v")})
    assert holder.hints.count() == 1
    # Not the acknowledgement of something else, nor somebody else's.
    holder.handoff.on_ack(B, [sequence + 1])
    holder.handoff.on_ack(C, [sequence])
    assert holder.hints.count() == 1
    holder.handoff.on_ack(B, [sequence + 1, sequence])
    assert holder.hints.count() == 0
    assert holder.store.get(b"k") == b""
    assert holder.log() == [(LOG_KEYS_DROPPED, [b"k"]), (LOG_HINTS_DROPPED, [B, [b"k"]])]
    assert holder.tick() == []
    assert holder.handoff.next_due() is None
    # A second acknowledgement means nothing.
    holder.handoff.on_ack(B, [sequence])
    assert holder.log() == []


def test_a_replica_keeps_its_own_copy() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")
    ((_, sequence, _),) = holder.tick()
    holder.handoff.on_ack(B, [sequence])
    assert holder.store.get(b"k") == string(b"v")
    assert holder.log() == [(LOG_HINTS_DROPPED, [B, [b"k"]])]


def test_a_copy_that_another_owner_lacks_as_well_stays_until_it_has_it() -> None:
    holder = Holder()
    holder.hold(B, k=b"v")
    holder.hold(C, k=b"v")
    sent = {owner: sequence for owner, sequence, _ in holder.tick()}
    holder.handoff.on_ack(B, [sent[B]])
    assert holder.store.get(b"k") == string(b"v")
    holder.handoff.on_ack(C, [sent[C]])
    assert holder.store.get(b"k") == b""


def test_a_key_that_was_written_again_meanwhile_keeps_its_row() -> None:
    holder = Holder()
    holder.hold(B, k=b"v", m=b"w")
    ((_, sequence, _),) = holder.tick()
    later = string(b"later", stamp=9)
    holder.store.merge_pairs([b"k", later])
    holder.hints.add(B, [b"k", later], holder.turn.now)
    holder.handoff.on_ack(B, [sequence])
    assert list(holder.hints.rows[B]) == [b"k"]
    assert holder.store.get(b"k") == later
    ((_, sequence, found),) = holder.tick(1.0)
    assert found == {b"k": later}
    holder.handoff.on_ack(B, [sequence])
    assert holder.hints.count() == 0


def test_one_batch_at_a_time() -> None:
    holder = Holder(is_replica=True)
    for number in range(3 * BATCH_KEYS_MAX):
        holder.hold(B, **{f"k{number}": b"v"})
    sizes = []
    for _ in range(20):
        sent = holder.tick(1.0)
        if not sent:
            break
        ((_, sequence, found),) = sent
        assert holder.tick() == []
        sizes.append(len(found))
        holder.handoff.on_ack(B, [sequence])
    # How big the records are is found out with small batches.
    assert sizes[0] < 100
    assert max(sizes) == BATCH_KEYS_MAX
    assert sum(sizes) == 3 * BATCH_KEYS_MAX
    assert holder.hints.count() == 0


def test_a_batch_ends_at_its_bytes_whatever_the_rows_cost() -> None:
    holder = Holder(is_replica=True)
    for number in range(40):
        holder.hold(B, **{f"k{number}": b"x" * 100_000})
    # As after a restart: the tables hold rows, and nobody knows how long the records are.
    holder.hints.rows[B] = dict.fromkeys(holder.hints.rows[B], 70)
    delivered = 0
    for _ in range(40):
        sent = holder.tick(10.0)
        if not sent:
            break
        ((_, sequence, found),) = sent
        assert sum(map(len, found.values())) < BATCH_BYTES_MAX + 200_000
        delivered += len(found)
        holder.handoff.on_ack(B, [sequence])
    assert delivered == 40
    assert holder.hints.count() == 0


def test_a_record_longer_than_a_batch_goes_alone() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, big=b"x" * (2 * BATCH_BYTES_MAX), small=b"v")
    ((_, sequence, found),) = holder.tick()
    assert list(found) == [b"big"]
    holder.handoff.on_ack(B, [sequence])
    ((_, sequence, found),) = holder.tick(10.0)
    assert list(found) == [b"small"]


def test_the_rate_follows_the_owner_between_its_bounds() -> None:
    holder = Holder(is_replica=True)
    handoff = holder.handoff
    handoff.rate_min, handoff.rate_max, handoff.latency_target_s = 100_000.0, 400_000.0, 0.05
    for number in range(100):
        holder.hold(B, **{f"k{number}": b"x" * 50_000})

    def pause_after(latency_s: float) -> float:
        """How long the next batch of about 260 kB has to wait."""
        ((_, sequence, _),) = holder.tick(10.0)
        holder.turn.now += latency_s
        handoff.on_ack(B, [sequence])
        due = handoff.next_due()
        assert due is not None
        return due - holder.turn.now

    # Fast answers: faster each time, up to the upper bound.
    pauses = [pause_after(0.01) for _ in range(6)]
    assert pauses == sorted(pauses, reverse=True)
    assert 0.5 < pauses[-1] < 0.8
    # Slow ones: slower each time, but never below the floor.
    pauses = [pause_after(0.1) for _ in range(6)]
    assert pauses == sorted(pauses)
    assert 2.0 < pauses[-1] < 3.0


def test_an_owner_that_does_not_answer_gets_time() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")
    ((_, first, _),) = holder.tick()
    assert holder.handoff.next_due() == pytest.approx(holder.turn.now + ANSWER_S, abs=0.001)
    assert holder.tick(ANSWER_S / 2) == []
    assert holder.tick(ANSWER_S) == []
    assert holder.handoff.next_due() == holder.turn.now + REST_AFTER_FAILURE_S
    assert holder.tick(REST_AFTER_FAILURE_S / 2) == []
    ((_, second, found),) = holder.tick(REST_AFTER_FAILURE_S)
    assert found == {b"k": string(b"v")}
    assert second != first
    # Its first answer comes at last.
    holder.handoff.on_ack(B, [first])
    assert holder.hints.count() == 0
    holder.handoff.on_ack(B, [second])
    assert holder.hints.count() == 0
    assert holder.handoff.next_due() is None


def test_an_answer_may_take_as_long_as_what_was_sent() -> None:
    holder = Holder(is_replica=True)
    holder.handoff.rate_min = 1e6
    holder.hold(B, k=b"x" * 10_000_000)
    assert len(holder.tick()) == 1
    assert holder.tick(ANSWER_S) == []
    assert holder.tick(ANSWER_S) == []
    assert holder.tick(7.0) == []
    due = holder.handoff.next_due()
    assert due is not None
    assert 0 < due - holder.turn.now < 1.1


def test_what_is_not_answered_is_sent_again_more_and_more_seldom_until_an_answer_comes() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")

    def sent_within(seconds: float) -> list[int]:
        return [sequence for _ in range(int(seconds * 10)) for _, sequence, _ in holder.tick(0.1)]

    # Every three seconds, it would be 200.
    sequences = sent_within(600.0)
    assert 6 < len(sequences) < 15
    # But not more and more seldom for ever.
    assert 1 <= len(sent_within(120.0)) <= 2
    holder.hold(B, m=b"w")
    holder.handoff.on_ack(B, [sequences[-1]])
    ((_, sequence, found),) = holder.tick(200.0) or holder.tick(1.0) or holder.tick(200.0)
    assert found == {b"m": string(b"w")}
    holder.handoff.on_ack(B, [sequence])
    holder.hold(B, k=b"v")
    assert len(sent_within(9.0)) >= 2


def test_a_long_record_does_not_make_its_owner_look_slow() -> None:
    holder = Holder(is_replica=True)
    handoff = holder.handoff
    for name in "abcdef":
        holder.hold(B, **{name: b"x" * 10_000_000})
    pauses = []
    for _ in range(6):
        ((_, sequence, _),) = holder.tick(60.0)
        holder.turn.now += 0.1
        handoff.on_ack(B, [sequence])
        pauses.append((handoff.next_due() or holder.turn.now) - holder.turn.now)
    assert pauses[-2] < pauses[0] / 4


def test_what_waits_to_be_sent_to_an_owner_already_goes_first() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")
    holder.turn.backlog[B] = 10_000_000
    assert holder.tick() == []
    due = holder.handoff.next_due()
    assert due is not None
    assert due > holder.turn.now
    assert holder.tick(REST_AFTER_FAILURE_S) == []
    del holder.turn.backlog[B]
    assert len(holder.tick(REST_AFTER_FAILURE_S)) == 1


@pytest.mark.parametrize("ending", ["answer", "silence", "close"])
def test_what_its_owner_was_sent_before_it_became_a_hint_is_not_sent_again_at_once(ending: str) -> None:
    holder = Holder(is_replica=True)
    value = b"x" * 4_000_000
    holder.hold(B, k=value)
    holder.handoff.expect(B, 77, [b"k", string(value)])
    assert holder.tick() == []
    assert holder.tick(ANSWER_S + 3.0) == []
    match ending:
        case "answer":
            holder.handoff.on_ack(B, [77])
            assert holder.hints.count() == 0
        case "silence":
            assert holder.tick(2.0) == []
            assert len(holder.tick(REST_AFTER_FAILURE_S)) == 1
        case _:
            holder.handoff.on_peer_closed(B)
            assert len(holder.tick(REST_AFTER_FAILURE_S)) == 1


def test_nothing_is_expected_of_an_owner_for_whom_somebody_else_keeps_the_hint() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")
    holder.handoff.expect(B, 77, [b"m", string(b"w")])
    assert len(holder.tick()) == 1


@pytest.mark.parametrize("event", ["refused", "closed"])
def test_an_owner_that_refuses_or_is_gone_gets_time(event: str) -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"v")
    ((_, sequence, _),) = holder.tick()
    if event == "refused":
        holder.handoff.on_refused(B, sequence + 1)
        assert holder.handoff.next_due() == pytest.approx(holder.turn.now + ANSWER_S, abs=0.001)
        holder.handoff.on_refused(B, sequence)
    else:
        holder.handoff.on_peer_closed(B)
    assert holder.tick(REST_AFTER_FAILURE_S / 2) == []
    assert holder.hints.count() == 1
    assert len(holder.tick(REST_AFTER_FAILURE_S)) == 1


def test_nothing_is_sent_to_who_is_away() -> None:
    holder = Holder()
    holder.handoff.usable = frozenset()
    holder.hold(B, k=b"v")
    assert holder.tick() == []
    assert holder.handoff.next_due() is None
    holder.handoff.usable = frozenset((B,))
    assert holder.handoff.next_due() == holder.turn.now
    assert len(holder.tick(1.0)) == 1


def test_a_row_without_a_record_is_forgotten() -> None:
    holder = Holder()
    holder.hold(B, k=b"v", m=b"w")
    holder.store.raise_floor((7).to_bytes(8), highest=(7).to_bytes(8))
    assert holder.tick() == []
    assert holder.hints.count() == 0
    assert holder.hints.statistics.dropped["forgotten"] == 2
    assert holder.hints.statistics.delivered_total == 0


def ticks_until(holder: Holder, is_over: Callable[[], bool]) -> int:
    """How many turns that each ask for the next one it takes."""
    for count in range(1, 1000):
        due = holder.handoff.next_due()
        assert due is not None
        assert due <= holder.turn.now
        assert holder.tick() == []
        if is_over():
            return count
    raise AssertionError


def test_rows_that_nobody_is_sent_go_in_batches_too() -> None:
    holder = Holder()
    names = [f"k{number}" for number in range(2000)]
    holder.hold(B, **dict.fromkeys(names, b"v"))
    holder.store.raise_floor((7).to_bytes(8), highest=(7).to_bytes(8))
    assert ticks_until(holder, lambda: not holder.hints.count()) < 10
    holder = Holder()
    holder.hold(B, **dict.fromkeys(names, b"v"))
    holder.handoff.usable = frozenset((B,))
    holder.replicas = [C]
    assert ticks_until(holder, lambda: B not in holder.hints.rows) < 10
    assert len(holder.hints.rows[C]) == 2000


def test_what_others_get_ends_at_a_batch_s_bytes_too() -> None:
    holder = Holder()
    holder.hold(B, **{f"k{number}": b"x" * 100_000 for number in range(40)})
    holder.handoff.usable = frozenset((B,))
    # As after a restart: nobody knows how long the records are.
    holder.hints.rows[B] = dict.fromkeys(holder.hints.rows[B], 70)
    holder.replicas = [C]
    logged = []
    while B in holder.hints.rows:
        holder.tick()
        logged.append(sum(len(body) for _, body in holder.turn.log))
        holder.turn.log.clear()
    assert max(logged) < BATCH_BYTES_MAX + 200_000
    assert len(holder.hints.rows[C]) == 40


def evict_all(holder: Holder) -> None:
    store = holder.store
    freeze = store.freeze(1, [])
    list(freeze.batches())
    store.flushed(1)
    store.bound(1)
    assert store.evict(0, keep=holder.parking.keys, partitions_max=16)


def test_records_that_are_not_in_memory_are_loaded_first_and_nobody_is_woken_for_them() -> None:
    holder = Holder()
    holder.hold(B, k=b"v", m=b"w")
    evict_all(holder)
    assert holder.tick() == []
    assert holder.handoff.next_due() is None
    ((token, wanted),) = holder.parking.requests
    assert [key for _, key in wanted] == [b"k", b"m"]
    holder.parking.loaded(token, [string(b"v"), None])
    ((_, _, found),) = holder.sent()
    assert found == {b"k": string(b"v")}
    assert list(holder.hints.rows[B]) == [b"k"]


def test_what_left_memory_before_it_was_acknowledged_is_looked_up_before_its_row_goes() -> None:
    holder = Holder()
    holder.hold(B, k=b"v", m=b"w")
    ((_, sequence, _),) = holder.tick()
    holder.store.merge_pairs([b"m", string(b"later", stamp=9)])
    evict_all(holder)
    holder.handoff.on_ack(B, [sequence])
    assert holder.hints.count() == 2
    ((token, wanted),) = holder.parking.requests
    assert [key for _, key in wanted] == [b"k", b"m"]
    holder.parking.loaded(token, [string(b"v"), string(b"later", stamp=9)])
    assert list(holder.hints.rows[B]) == [b"m"]


def test_rows_for_a_node_that_is_no_replica_any_more_go_to_those_who_are() -> None:
    holder = Holder()
    holder.hold(B, one=b"1", two=b"2")
    holder.replicas = [C]
    holder.tick()
    assert set(holder.hints.rows) == {C}
    assert set(holder.hints.rows[C]) == {b"one", b"two"}
    assert holder.hints.statistics.dropped["moved"] == 2
    kinds = [kind for kind, _ in holder.turn.log]
    assert kinds == [LOG_HINTS, LOG_HINTS, LOG_HINTS_DROPPED]
    ((owner, sequence, records_sent),) = holder.tick(0.1)
    assert (owner, set(records_sent)) == (C, {b"one", b"two"})
    holder.handoff.on_ack(C, [sequence])
    assert not holder.hints.rows
    assert holder.store.get(b"one") == b""


def test_rows_that_nobody_else_may_have_stay_and_those_of_others_always_have_room() -> None:
    holder = Holder()
    holder.hold(B, one=b"1")
    holder.replicas = [C]
    holder.hints.closed = {C}
    assert holder.tick() == []
    assert set(holder.hints.rows) == {B}
    holder.hints.closed = set()
    # It may have been more already: what a start finds that it owes is not bounded.
    holder.hints.bytes_max = 1
    holder.tick(REST_AFTER_FAILURE_S)
    assert set(holder.hints.rows) == {C}


def test_what_a_node_lacks_that_will_copy_everything_anew_goes_to_the_other_replicas() -> None:
    holder = Holder()
    holder.hold(B, one=b"1")
    holder.handoff.usable = frozenset((C,))
    holder.tick()
    assert set(holder.hints.rows) == {B}
    holder.handoff.set_aside = frozenset((B,))
    holder.tick()
    assert set(holder.hints.rows) == {C}


def test_a_row_may_be_delivered_while_its_record_is_on_its_way_from_the_disk_once_more() -> None:
    holder = Holder(is_replica=True)
    holder.hold(B, k=b"x" * 1000)
    ((_, sequence, _),) = holder.tick()
    evict_all(holder)
    holder.tick(ANSWER_S + 1.0)
    holder.turn.now += REST_AFTER_FAILURE_S
    holder.handoff.on_ack(B, [sequence])
    assert holder.tick() == []
    # `proto-max-bulk-len` was lowered meanwhile.
    holder.turn.frame_bytes_max = 100
    for token, _ in holder.parking.requests:
        holder.parking.loaded(token, [string(b"x" * 1000)])
    assert holder.hints.count() == 0
