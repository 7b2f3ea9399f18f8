"""Hint rows: counted, bounded, and brought to the tables and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.repair.hints import HINTS_PARTITION, ROW_OVERHEAD_BYTES, HintBook, owner_and_key
from respkv.versions import records

B, C = "b" * 40, "c" * 40


def record(length: int = 1, stamp: int = 5) -> bytes:
    return records.string(b"x" * length, stamp=stamp, actor=bytes(8))


def test_rows_are_taken_once_and_dropped_once() -> None:
    book = HintBook(bytes_max=0)
    assert book.add(B, [b"k", record(), b"m", record()], 1.0) == [b"k", record(), b"m", record()]
    assert book.add(B, [b"k", record(2)], 2.0) == [b"k", record(2)]
    assert book.count() == 2
    assert book.statistics.stored_total == 2
    assert book.is_held(b"k")
    assert book.oldest_s(B, 5.0) == 4.0
    assert book.drop(B, [b"k", b"other"]) == [b"k"]
    assert book.drop(B, [b"k"]) == []
    assert book.drop(C, [b"k"]) == []
    assert book.statistics.delivered_total == 1
    assert not book.is_held(b"k")
    assert book.drop(B, [b"m"], reason="forgotten") == [b"m"]
    assert book.statistics.dropped["forgotten"] == 1
    assert book.rows == {}
    assert book.bytes == 0
    assert book.oldest_s(B, 5.0) == 0.0


def test_what_does_not_fit_is_refused_and_counted_and_the_rest_is_taken() -> None:
    cost = 1 + len(record()) + ROW_OVERHEAD_BYTES
    book = HintBook(bytes_max=2 * cost)
    assert book.add(B, [b"a", record(), b"b", record(1000), b"c", record()], 1.0) == [b"a", record(), b"c", record()]
    assert book.statistics.dropped["space"] == 1
    assert book.bytes == 2 * cost
    # A row that is there already stays: its owner lacks the key whatever becomes of this version.
    assert book.add(B, [b"a", record(1000)], 2.0) == [b"a", record(1000)]
    assert book.bytes == 2 * cost + 999
    assert book.add(C, [b"z", record()], 2.0) == []
    assert C not in book.rows


def test_an_owner_that_is_away_for_too_long_gets_no_more_rows() -> None:
    book = HintBook(bytes_max=0)
    book.closed.add(B)
    assert book.add(B, [b"k", record()], 1.0) == []
    assert book.add(C, [b"k", record()], 1.0) == [b"k", record()]
    assert book.statistics.dropped["window"] == 1
    assert B not in book.rows


def test_flushall_forgets_all_rows() -> None:
    book = HintBook(bytes_max=0)
    book.add(B, [b"k", record(), b"m", record()], 1.0)
    book.add(C, [b"k", record()], 1.0)
    book.closed.add(B)
    book.forget_all()
    assert (book.count(), book.bytes, book.rows) == (0, 0, {})
    assert book.statistics.dropped["forgotten"] == 3
    assert book.add(B, [b"n", record()], 2.0)
    assert book.oldest_s(B, 3.0) == 1.0


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "drop", "freeze", "crash"]),
        st.sampled_from([B, C]),
        st.sampled_from([b"k", b"l", b"m"]),
        st.integers(0, 50),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_log_and_tables_together_know_the_rows(operations: list[tuple[str, str, bytes, int]]) -> None:
    book = HintBook(bytes_max=0)
    tables: dict[tuple[str, bytes], bytes] = {}
    log: dict[tuple[str, bytes], bool] = {}
    held: set[tuple[str, bytes]] = set()
    for operation, owner, key, length in operations:
        match operation:
            case "add":
                book.add(owner, [key, record(length)], 1.0)
                held.add((owner, key))
                log[owner, key] = True
            case "drop":
                book.drop(owner, [key])
                held.discard((owner, key))
                log[owner, key] = False
            case "freeze":
                for partition, row_key, row in book.changes():
                    assert partition == HINTS_PARTITION
                    if row is None:
                        tables.pop(owner_and_key(row_key), None)
                    else:
                        assert row > b"\xfe" * 8
                        tables[owner_and_key(row_key)] = row
                log.clear()
            case _:
                # As a start reads it back: the log, whose last word counts, then the tables.
                book = HintBook(bytes_max=0)
                for (name, logged), row_held in log.items():
                    if row_held:
                        book.restore(name, (logged,), 1.0, changed=True)
                    else:
                        book.restore_drop(name, logged)
                for name, kept in tables:
                    if (name, kept) not in log:
                        book.restore(name, (kept,), 1.0, changed=False)
        assert {(name, each) for name, rows in book.rows.items() for each in rows} == held
        assert book.bytes == sum(cost for rows in book.rows.values() for cost in rows.values())
        assert all(book.rows.values())
