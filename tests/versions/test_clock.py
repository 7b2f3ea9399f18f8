"""The hybrid clock: never the same stamp twice, never back, always above what was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.versions.clock import LOGIC_BITS, HybridClock, milliseconds

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 2**40)),
        st.tuples(st.just("absorb"), st.integers(0, 2**56)),
        st.tuples(st.just("next"), st.just(0)),
    ),
    max_size=60,
)


@given(st.integers(0, 2**50), EVENTS)
def test_each_stamp_is_above_all_that_came_before(last: int, events: list[tuple[str, int]]) -> None:
    clock = HybridClock(last)
    seen = last
    for kind, number in events:
        if kind == "advance":
            clock.advance(number)
        elif kind == "absorb":
            clock.absorb(number)
            seen = max(seen, number)
        else:
            stamp = clock.next()
            assert stamp > seen
            seen = stamp


def test_stamps_follow_the_wall() -> None:
    clock = HybridClock()
    clock.advance(1_700_000_000_000)
    assert milliseconds(clock.next()) == 1_700_000_000_000
    clock.advance(1_700_000_000_005)
    assert milliseconds(clock.next()) == 1_700_000_000_005


def test_a_wall_that_is_set_back_changes_nothing() -> None:
    clock = HybridClock()
    clock.advance(1_700_000_000_000)
    before = clock.next()
    clock.advance(1_600_000_000_000)
    assert clock.next() == before + 1


def test_a_burst_carries_into_the_milliseconds() -> None:
    clock = HybridClock()
    clock.advance(1000)
    stamps = [clock.next() for _ in range((1 << LOGIC_BITS) + 3)]
    assert stamps == sorted(set(stamps))
    assert milliseconds(stamps[-1]) == 1001
    clock.advance(1001)
    assert clock.next() > stamps[-1]
