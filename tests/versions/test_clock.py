"""The hybrid clock: never the same stamp twice, never back, always above what was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.versions.clock import BELIEVED_AFTER_S, LOGIC_BITS, HybridClock, WallClock, milliseconds

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


def test_a_reading_that_is_far_off_is_not_believed() -> None:
    wall = WallClock(10.0, 1_000_000)
    assert wall.read(11.0, 1_001_010) == 1_001_010
    assert wall.read(12.0, 9_000_000) == 1_002_010
    assert wall.doubted_step_ms == 9_000_000 - 1_002_010
    assert wall.read(13.0, 0) == 1_003_010
    assert wall.read(14.0, 1_004_000) == 1_004_000
    assert wall.doubted_step_ms is None


def test_a_reading_that_stands_or_that_others_agree_with_is_believed() -> None:
    wall = WallClock(0.0, 1_000_000)
    wall.read(1.0, 9_001_000)
    assert wall.read(1.0 + BELIEVED_AFTER_S - 0.1, 9_010_900) == 1_010_900
    # Another jump stands on its own.
    assert wall.read(12.0, 5_012_000) == 1_012_000
    assert wall.read(12.0 + BELIEVED_AFTER_S, 5_022_000) == 5_022_000
    assert wall.read(23.0, 1_000_000) == 5_023_000
    wall.believe()
    assert wall.read(24.0, 1_001_000) == 1_001_000


def test_small_steps_are_believed_at_once_and_do_not_add_up() -> None:
    wall = WallClock(0.0, 1_000_000)
    for second in range(1, 100):
        assert wall.read(float(second), 1_000_000 + 1900 * second) == 1_000_000 + 1900 * second
