"""Logs and tables, and the state that a start makes of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import DamageError
from respkv.repair.hints import HINTS_PARTITION, HintBook
from respkv.server.restore import Restored, restore
from respkv.server.turns import LOG_CONFIRMED, LOG_HINTS, LOG_HINTS_DROPPED, LOG_KEYS_DROPPED, LOG_MARK, LOG_WRITES
from respkv.storage.store import Store
from respkv.versions.clock import HybridClock
from respkv.versions.records import string, tombstone

ME, A, B = "a" * 40, "b" * 40, "c" * 40
ACTOR = b"an actor"

Entry = tuple[int, bytes]
Row = tuple[int, bytes, bytes]
Stamped = tuple[bytes, int, bool]


class Start:
    """A start from some log and some rows."""

    def __init__(
        self, log: list[tuple[int, bytes]], rows: list[tuple[int, bytes, bytes]] | None = None, *, memory_bytes_max: int = 0
    ) -> None:
        self.store = Store(ring_size=16)
        self.hints = HintBook(bytes_max=0)
        self.clock = HybridClock()
        self.restored: Restored = restore(
            me=ME,
            primaries=lambda partition: [ME, A, B],
            store=self.store,
            hints=self.hints,
            clock=self.clock,
            log=[(kind, body, index + 1) for index, (kind, body) in enumerate(log)],
            rows=rows or [],
            memory_bytes_max=memory_bytes_max,
            now=0.0,
        )

    def owed(self) -> dict[str, set[bytes]]:
        return {owner: set(rows) for owner, rows in self.hints.rows.items()}


def record(stamp: int, value: bytes = b"v") -> bytes:
    return string(value, stamp=stamp, actor=ACTOR)


def writes(*pairs: bytes) -> tuple[int, bytes]:
    return LOG_WRITES, msgspec.msgpack.encode(list(pairs))


def hints(owner: str, *pairs: bytes) -> tuple[int, bytes]:
    return LOG_HINTS, msgspec.msgpack.encode([owner, list(pairs)])


def hints_dropped(owner: str, *keys: bytes) -> tuple[int, bytes]:
    return LOG_HINTS_DROPPED, msgspec.msgpack.encode([owner, list(keys)])


def keys_dropped(*keys: bytes) -> tuple[int, bytes]:
    return LOG_KEYS_DROPPED, msgspec.msgpack.encode(list(keys))


def mark(number: int) -> tuple[int, bytes]:
    return LOG_MARK, number.to_bytes(8)


def confirmed(number: int) -> tuple[int, bytes]:
    return LOG_CONFIRMED, number.to_bytes(8)


def row(key: bytes, value: bytes) -> tuple[int, bytes, bytes]:
    return Store(ring_size=16).partition(key), key, value


def hint_row(owner: str, key: bytes) -> tuple[int, bytes, bytes]:
    return HINTS_PARTITION, bytes.fromhex(owner) + key, b"\xff"


def test_the_newest_of_log_and_tables_wins_wherever_it_is() -> None:
    start = Start([writes(b"a", record(5), b"b", record(1))], [row(b"a", record(3)), row(b"b", record(9)), row(b"c", record(2))])
    assert [start.store.get(key) for key in (b"a", b"b", b"c")] == [record(5), record(9), record(2)]
    assert sum(start.store.live) == 3
    assert start.restored.log_records_count == 1
    assert start.restored.rows_count == 3


def test_the_clock_starts_above_every_stamp_that_was_found() -> None:
    assert Start([writes(b"a", record(70))], [row(b"b", record(60))]).clock.last >= 70
    assert Start([writes(b"a", record(7))], [row(b"b", string(b"v", stamp=90, actor=ACTOR, expire_at_ms=1))]).clock.last >= 90
    # Rows that find no room in memory count all the same.
    assert Start([], [row(b"a", record(5)), row(b"b", record(95))], memory_bytes_max=1).clock.last >= 95


def test_what_no_mark_confirms_is_owed_to_all_other_replicas_and_logged() -> None:
    start = Start([writes(b"a", record(1)), mark(1), writes(b"b", record(2)), confirmed(1), writes(b"c", record(3))])
    assert start.owed() == {A: {b"b", b"c"}, B: {b"b", b"c"}}
    assert start.restored.unconfirmed_count == 2
    # A second start finds the debt in the log, although a mark of the process in between confirms what lay before it.
    again = Start([writes(b"b", record(2)), *start.restored.owed, mark(1), confirmed(1)])
    assert again.owed() == {A: {b"b", b"c"}, B: {b"b", b"c"}}
    assert again.store.get(b"c") == record(3)


def test_a_confirmation_means_the_last_mark_of_its_number() -> None:
    log = [mark(1), writes(b"a", record(1)), mark(1), writes(b"b", record(2)), confirmed(1)]
    assert Start(log).owed() == {A: {b"b"}, B: {b"b"}}


def test_a_confirmation_of_a_mark_that_went_with_its_segment_confirms_nothing() -> None:
    assert Start([writes(b"a", record(1)), confirmed(3)]).owed() == {A: {b"a"}, B: {b"a"}}


def test_hint_rows_come_back_from_the_log_and_from_the_tables() -> None:
    start = Start([hints(A, b"a", record(1))], [hint_row(B, b"b"), row(b"b", record(2))])
    assert start.owed() == {A: {b"a"}, B: {b"b"}}
    # Only the first is news to the tables.
    assert [key for _, key, _ in start.hints.changes()] == [bytes.fromhex(A) + b"a"]


def test_a_hint_row_that_the_log_dropped_stays_dropped() -> None:
    start = Start([hints(A, b"a", record(1)), hints_dropped(A, b"a", b"b")], [hint_row(A, b"a"), hint_row(A, b"b")])
    assert start.owed() == {}
    assert {(key, held) for _, key, held in start.hints.changes()} == {(bytes.fromhex(A) + key, None) for key in (b"a", b"b")}


def test_a_hint_row_that_came_again_after_it_was_dropped_is_there() -> None:
    log = [hints(A, b"a", record(1)), hints_dropped(A, b"a"), hints(A, b"a", record(2))]
    assert Start(log).owed() == {A: {b"a"}}


def test_a_copy_that_was_given_back_does_not_return_from_the_tables() -> None:
    start = Start([keys_dropped(b"a")], [row(b"a", record(5))])
    assert start.store.get(b"a") == b""
    assert sum(start.store.live) == 0
    # The next freeze takes it out of the tables.
    frozen = start.store.freeze(1, [])
    assert [(key, held) for batch in frozen.batches() for _, key, held in batch] == [(b"a", None)]


def test_a_copy_that_came_again_after_it_was_given_back_is_what_the_log_says() -> None:
    start = Start([keys_dropped(b"a"), writes(b"a", record(3))], [row(b"a", record(5))])
    assert start.store.get(b"a") == record(3)


def test_records_below_the_floor_of_flushall_do_not_return() -> None:
    store = Store(ring_size=16)
    store.floor = (10).to_bytes(8)
    restored = restore(
        me=ME,
        primaries=lambda partition: [ME, A],
        store=store,
        hints=HintBook(bytes_max=0),
        clock=HybridClock(),
        log=[(*writes(b"a", record(5), b"b", record(15)), 1)],
        rows=[row(b"c", record(6)), row(b"d", record(16))],
        memory_bytes_max=0,
        now=0.0,
    )
    assert [store.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"", record(15), b"", record(16)]
    assert b"".join(body for _, body in restored.owed).count(record(15)) == 1


@pytest.mark.parametrize("entry", [(99, b""), (LOG_WRITES, b"\xc1"), (LOG_HINTS, b"\x01")])
def test_a_record_that_no_release_writes_is_damage(entry: tuple[int, bytes]) -> None:
    with pytest.raises(DamageError):
        Start([entry])


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 20), st.booleans()), max_size=30), st.data())
def test_how_much_of_the_log_the_tables_hold_already_makes_no_difference(
    entries: list[tuple[bytes, int, bool]], data: st.DataObject
) -> None:
    log = [writes(key, tombstone(stamp=stamp, actor=ACTOR) if dead else record(stamp)) for key, stamp, dead in entries]
    whole = Start(log)
    part = data.draw(st.integers(0, len(log)))
    flushed = Start(log[:part])
    rows = [row(key, flushed.store.get(key)) for key in (b"a", b"b", b"c") if flushed.store.get(key)]
    for kept in (log, log[part:]):
        start = Start(kept, rows)
        assert [start.store.get(key) for key in (b"a", b"b", b"c")] == [whole.store.get(key) for key in (b"a", b"b", b"c")]
        assert start.store.live == whole.store.live
        assert start.clock.last == whole.clock.last
