"""Requests on cold keys: in their order for each key, however the loads come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.storage.parking import Parking
from respkv.storage.store import Store
from respkv.versions import records

KEYS = [b"a", b"b", b"c", b"d"]


def cold_store() -> Store:
    store = Store(ring_size=16)
    store.bound(1)
    store.resident = False
    return store


def string(stamp: int) -> bytes:
    return records.string(b"v", stamp=stamp, actor=bytes(8))


def test_what_is_in_memory_runs_at_once() -> None:
    store = cold_store()
    store.loaded(store.partition(b"a"), b"a", None)
    parking, ran = Parking(store), []
    parking.when_loaded([b"a"], lambda: ran.append("a"))
    assert ran == ["a"]
    assert (len(parking), parking.keys, parking.requests) == (0, {}, [])
    assert parking.is_clear(b"a", store.partition(b"a"))
    assert not parking.is_clear(b"b", store.partition(b"b"))


def test_whoever_touches_a_key_waits_behind_those_who_wait_for_it() -> None:
    store = cold_store()
    store.loaded(store.partition(b"a"), b"a", None)
    parking, ran = Parking(store), []
    parking.when_loaded([b"a", b"b"], lambda: ran.append(1))
    parking.when_loaded([b"a"], lambda: ran.append(2))
    assert ran == []
    assert not parking.is_clear(b"a", store.partition(b"a"))
    parking.loaded(1, [string(5)])
    assert ran == [1, 2]
    assert parking.keys == {}


def test_an_action_may_ask_for_more() -> None:
    store = cold_store()
    parking, ran = Parking(store), []

    def first() -> None:
        ran.append("a")
        parking.when_loaded([b"b"], lambda: ran.append("b"))

    parking.when_loaded([b"a"], first)
    parking.loaded(1, [None])
    assert ran == ["a"]
    parking.loaded(2, [None])
    assert ran == ["a", "b"]


def test_a_key_that_is_named_twice_is_waited_for_once() -> None:
    store = cold_store()
    parking, ran = Parking(store), []
    parking.when_loaded([b"a", b"a"], lambda: ran.append(1))
    ((token, wanted),) = parking.requests
    parking.loaded(token, [string(5)] * len(wanted))
    assert ran == [1]
    assert parking.keys == {}


def test_what_the_tables_tell_late_does_not_hide_what_was_written_meanwhile() -> None:
    store = cold_store()
    parking = Parking(store)

    def write() -> None:
        store.merge_pairs([b"a", string(9)])

    parking.when_loaded([b"a"], write)
    parking.when_loaded([b"a"], lambda: None)
    parking.loaded(1, [string(5)])
    assert records.stamp_of(store.get(b"a")) == 9
    parking.loaded(2, [string(5)])
    assert records.stamp_of(store.get(b"a")) == 9


def test_a_count_waits_behind_all_that_wait_now() -> None:
    store = cold_store()
    parking, ran = Parking(store), []
    parking.behind_all(lambda: ran.append(0))
    parking.when_loaded([b"a"], lambda: ran.append(1))
    parking.behind_all(lambda: ran.append(2))
    assert ran == [0]
    parking.loaded(1, [None])
    assert ran == [0, 1, 2]


REQUESTS = st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3), max_size=12)


@given(REQUESTS, st.randoms(use_true_random=False), st.sets(st.sampled_from(KEYS)))
def test_requests_on_a_key_run_in_their_order(wanted: list[list[bytes]], rng: object, warm: set[bytes]) -> None:
    store = cold_store()
    for key in warm:
        store.loaded(store.partition(key), key, None)
    parking = Parking(store)
    ran: list[int] = []
    pending = list(range(len(wanted)))
    loads: list[tuple[int, list[tuple[int, bytes]]]] = []
    while pending or loads:
        if pending and (not loads or rng.random() < 0.6):  # type: ignore[attr-defined]
            number = pending.pop(0)

            def act(number: int = number) -> None:
                assert store.cold(wanted[number]) == []
                ran.append(number)

            parking.when_loaded(wanted[number], act)
            loads += parking.requests
            parking.requests = []
        else:
            token, cold = loads.pop(rng.randrange(len(loads)))  # type: ignore[attr-defined]
            parking.loaded(token, [None] * len(cold))
        # Memory is dropped at any time, but not what somebody waits for.
        if rng.random() < 0.3:  # type: ignore[attr-defined]
            store.evict(0, keep=parking.keys, partitions_max=16)
    assert sorted(ran) == list(range(len(wanted)))
    for key in KEYS:
        of_key = [number for number in ran if key in wanted[number]]
        assert of_key == sorted(of_key)
    assert (len(parking), parking.keys) == (0, {})


def test_it_is_full_with_so_many_keys_or_bytes_and_lets_in_who_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("respkv.storage.parking.KEYS_MAX", 3)
    monkeypatch.setattr("respkv.storage.parking.BYTES_MAX", 100)
    store = cold_store()
    store.loaded(store.partition(b"d"), b"d", None)
    parking = Parking(store)
    parking.when_loaded([b"a", b"b"], lambda: None, 10)
    assert parking.has_room_for([b"c"])
    parking.behind_all(lambda: None)
    assert (parking.is_full, parking.keys_waiting, parking.bytes_waiting) == (True, 3, 12)
    assert [parking.has_room_for([key]) for key in KEYS] == [False, False, False, True]
    parking.loaded(1, [None, None])
    assert (parking.is_full, parking.keys_waiting, parking.bytes_waiting) == (False, 0, 0)
    # Nothing is turned away for its own size: only who comes behind it.
    assert not parking.when_loaded([b"c"], lambda: None, 1000)
    assert parking.is_full
    assert parking.has_room_for([b"d"])
