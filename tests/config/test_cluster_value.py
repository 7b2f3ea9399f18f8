from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.config.changes import apply
from respkv.config.checks import combination_problem
from respkv.config.cluster_value import (
    RULES_MAX,
    ClusterValue,
    decode,
    differences,
    effective_quorums,
    effective_replication,
    effective_sloppy,
    encode,
    fingerprint,
    flushed,
    founding_value,
    merge,
    next_stage,
    settled,
    shared_settings,
    successor,
)
from respkv.config.directives import SHARED
from respkv.config.quorums import Quorums
from respkv.config.replication import SWITCHED, Resize
from respkv.config.settings import Settings
from respkv.errors import OverloadedError, PeerProtocolError
from tests.config.strategies import arguments

ACTORS = [bytes([number] * 8) for number in (1, 2)]
FOUNDING = founding_value(Settings())
RULES = st.fixed_dictionaries(
    {},
    optional={
        "read-quorum": st.sampled_from(["one", "quorum", "all", "2"]),
        "write-quorum": st.sampled_from(["one", "quorum", "all", "2"]),
        "sloppy-quorum": st.sampled_from(["yes", "no"]),
    },
)


@st.composite
def values(draw: st.DrawFn) -> ClusterValue:
    """Few stamps and actors, so that ties occur."""
    settings = Settings()
    for directive in draw(st.lists(st.sampled_from(SHARED), max_size=3)):
        trial = settings.copy()
        trial.assign(directive, [draw(arguments(directive))])
        if combination_problem(trial) is None:
            settings = trial
    value = founding_value(settings)
    return msgspec.structs.replace(
        value,
        stamp=draw(st.integers(0, 3)),
        actor=draw(st.sampled_from(ACTORS)),
        flush_floor=draw(st.integers(0, 3)),
        transition=draw(st.sampled_from([(), ({"read-quorum": "all"},)])),
    )


def changed(value: ClusterValue, **directives: str) -> ClusterValue:
    names = {name.replace("_", "-"): text for name, text in directives.items()}
    return successor(value, names, stamp=value.stamp + 1, actor=ACTORS[0], members=5)


@given(values(), values(), values())
def test_merging_is_a_join(left: ClusterValue, middle: ClusterValue, right: ClusterValue) -> None:
    assert merge(left, left) == left
    assert merge(left, right) == merge(right, left)
    assert merge(merge(left, middle), right) == merge(left, merge(middle, right))


@given(values(), values())
def test_merging_takes_the_later_value_and_the_higher_floor(left: ClusterValue, right: ClusterValue) -> None:
    merged = merge(left, right)
    assert merged.flush_floor == max(left.flush_floor, right.flush_floor)
    assert (merged.stamp, merged.actor) == max((left.stamp, left.actor), (right.stamp, right.actor))
    assert merged.settings in (left.settings, right.settings)


@given(values())
def test_bytes_bring_the_value_back(value: ClusterValue) -> None:
    assert decode(encode(value)) == value
    assert encode(decode(encode(value))) == encode(value)


@given(values(), values())
def test_fingerprints_tell_values_apart(left: ClusterValue, right: ClusterValue) -> None:
    assert (fingerprint(left) == fingerprint(right)) == (left == right)


def test_order_of_settings_does_not_show_in_the_bytes() -> None:
    backwards = msgspec.structs.replace(FOUNDING, settings=dict(reversed(FOUNDING.settings.items())))
    assert encode(backwards) == encode(FOUNDING)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except PeerProtocolError:
        return


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"actor": b"short"}, "actor of the wrong length"),
        ({"stamp": -1}, "stamp out of range"),
        ({"flush_floor": -1}, "stamp out of range"),
        ({"settings": {"timeout": "1"}}, "timeout does not belong to the cluster"),
        ({"settings": {"n-val": "3"}}, "n-val does not belong to the cluster"),
        ({"settings": {"ring-size": "16"}}, "ring-size does not belong to the cluster"),
        ({"settings": {"read-quorum": "some"}}, "read-quorum: argument must be"),
        ({"settings": {"read-quorum": "ALL"}}, "read-quorum: not in the form that nodes write"),
        ({"settings": {"read-quorum": "4"}}, "read-quorum 4 is more than replication-factor 3"),
        ({"transition": ({"write-quorum": "9"},)}, "write-quorum 9 is more than replication-factor 3"),
        ({"transition": ({},) * (RULES_MAX + 1)}, "too many rules in transition"),
        ({"settings": {"x" * 70000: ""}}, "bytes"),
    ],
)
def test_refuses_what_no_node_would_make(damage: dict[str, object], reason: str) -> None:
    value = ClusterValue(**{**msgspec.structs.asdict(FOUNDING), **damage})
    with pytest.raises(PeerProtocolError, match=reason):
        decode(encode(value))


def test_keeps_what_a_later_release_knows() -> None:
    value = msgspec.structs.replace(FOUNDING, settings=FOUNDING.settings | {"of-tomorrow": "7"})
    assert decode(encode(value)).settings["of-tomorrow"] == "7"
    assert "of-tomorrow" not in shared_settings(value)
    assert changed(value, write_quorum="all").settings["of-tomorrow"] == "7"


def test_fills_in_what_an_earlier_release_did_not_know() -> None:
    value = ClusterValue(1, ACTORS[0], {"read-quorum": "one"})
    assert shared_settings(decode(encode(value))) == {**FOUNDING.settings, "read-quorum": "one"}
    assert effective_quorums(value, members=3) == Quorums(3, 1, 2, 0, 0)


def test_founding_value_loses_to_anything_that_was_set() -> None:
    other_file = Settings()
    apply(other_file, {"write-quorum": "all"})
    set_once = changed(FOUNDING, read_quorum="one")
    assert merge(founding_value(other_file), set_once) == set_once


def test_two_files_that_disagree_are_decided_alike() -> None:
    other_file = Settings()
    apply(other_file, {"write-quorum": "all"})
    assert merge(FOUNDING, founding_value(other_file)) == merge(founding_value(other_file), FOUNDING)


def test_differences_are_named_for_the_log() -> None:
    value = changed(FOUNDING, read_quorum="one", request_timeout="500")
    assert differences(Settings(), value) == [("read-quorum", "quorum", "one"), ("request-timeout", "1000", "500")]
    settings = Settings()
    apply(settings, shared_settings(value))
    assert differences(settings, value) == []


def test_members_bound_n() -> None:
    assert effective_quorums(FOUNDING, members=5) == Quorums(3, 2, 2, 0, 0)
    assert effective_quorums(FOUNDING, members=1) == Quorums(1, 1, 1, 0, 0)


def test_a_number_is_not_cut_down_to_the_members() -> None:
    assert effective_quorums(changed(FOUNDING, write_quorum="3"), members=2).w == 3


def test_the_stricter_rule_holds_until_all_have_confirmed() -> None:
    value = changed(FOUNDING, read_quorum="one", write_quorum="all")
    assert effective_quorums(value, members=5) == Quorums(3, 2, 3, 0, 0)
    value = settled(value, stamp=9, actor=ACTORS[0])
    assert effective_quorums(value, members=5) == Quorums(3, 1, 3, 0, 0)
    assert value.transition == ()


def test_strict_to_sloppy_stays_strict_until_all_have_confirmed() -> None:
    strict = settled(changed(FOUNDING, sloppy_quorum="no"), stamp=9, actor=ACTORS[0])
    sloppy_again = changed(strict, sloppy_quorum="yes")
    assert [effective_sloppy(value) for value in (FOUNDING, strict, sloppy_again)] == [True, False, False]
    assert effective_sloppy(settled(sloppy_again, stamp=99, actor=ACTORS[0]))


def test_what_does_not_touch_the_rule_needs_no_transition() -> None:
    assert changed(FOUNDING, request_timeout="500").transition == ()
    assert changed(FOUNDING, write_quorum="quorum").transition == ()


@given(st.lists(RULES, min_size=1, max_size=RULES_MAX), st.integers(1, 6))
def test_quorums_in_transition_overlap_with_every_rule_on_the_way(rules: list[dict[str, str]], members: int) -> None:
    history = [FOUNDING]
    for rule in rules:
        history.append(successor(history[-1], rule, stamp=history[-1].stamp + 1, actor=ACTORS[0], members=members))
    now = effective_quorums(history[-1], members=members)
    for value in history:
        before = effective_quorums(settled(value, stamp=99, actor=ACTORS[0]), members=members)
        assert all(new >= old for new, old in zip(now, before, strict=True))


def test_too_many_changes_on_the_way_are_refused() -> None:
    value = FOUNDING
    for number in range(RULES_MAX):
        value = changed(value, read_quorum=str(number + 4))
    with pytest.raises(OverloadedError, match="not yet confirmed"):
        changed(value, read_quorum="16")
    assert changed(value, request_timeout="77").settings["request-timeout"] == "77"


def test_flushing_raises_the_floor_and_leaves_the_rest() -> None:
    value = flushed(changed(FOUNDING, read_quorum="one"), 500, stamp=501, actor=ACTORS[1])
    assert (value.flush_floor, value.stamp, value.settings["read-quorum"]) == (500, 501, "one")
    assert flushed(value, 400, stamp=502, actor=ACTORS[1]).flush_floor == 500
    assert changed(value, read_quorum="all").flush_floor == 500


def test_a_flush_survives_a_concurrent_change_that_wins() -> None:
    flush = flushed(FOUNDING, 500, stamp=501, actor=ACTORS[0])
    change = successor(FOUNDING, {"read-quorum": "one"}, stamp=501, actor=ACTORS[1], members=5)
    merged = merge(flush, change)
    assert (merged.flush_floor, merged.settings["read-quorum"]) == (500, "one")
    assert len({fingerprint(value) for value in (flush, change, merged)}) == 3


def test_values_are_made_in_order() -> None:
    made = [FOUNDING, changed(FOUNDING, read_quorum="one")]
    made.append(settled(made[-1], stamp=10, actor=ACTORS[0]))
    made.append(flushed(made[-1], 11, stamp=11, actor=ACTORS[0]))
    assert all(merge(earlier, later) == later for earlier, later in pairwise(made))


def resized(old_n: int, new_n: int) -> ClusterValue:
    value = successor(FOUNDING, {"replication-factor": str(old_n)}, stamp=5, actor=ACTORS[0], members=5)
    while value.resize is not None:
        value = next_stage(value, stamp=value.stamp + 1, actor=ACTORS[0], members=5)
    return successor(settled(value, stamp=20, actor=ACTORS[0]), {"replication-factor": str(new_n)}, stamp=21, actor=ACTORS[0], members=5)


def stages(value: ClusterValue) -> list[tuple[int, ...]]:
    """(n that are read, R; n that count for W, W; n that are written to, W of those; n that hold copies) of each stage."""
    found: list[tuple[int, ...]] = []
    while True:
        replication = effective_replication(settled(value, stamp=99, actor=ACTORS[0]), members=5)
        quorum = replication.quorum
        found.append((quorum.n, quorum.r, replication.core_n, quorum.w, replication.stored_n, replication.stored_w, replication.held_n))
        if value.resize is None:
            return found
        value = next_stage(decode(encode(value)), stamp=value.stamp + 1, actor=ACTORS[0], members=5)


def test_a_higher_n_is_written_to_before_it_is_read() -> None:
    assert stages(resized(1, 3)) == [(1, 1, 1, 1, 3, 2, 3), (3, 2, 1, 1, 3, 2, 3), (3, 2, 3, 2, 3, 0, 3)]


def test_a_lower_n_is_read_only_when_all_is_there_and_copies_are_dropped_last() -> None:
    assert stages(resized(5, 2)) == [(5, 3, 2, 2, 5, 3, 5), (2, 2, 2, 2, 5, 3, 5), (2, 2, 2, 2, 2, 0, 5), (2, 2, 2, 2, 2, 0, 2)]


@given(st.integers(1, 5), st.integers(1, 5))
def test_stages_fit_those_before_and_behind(old_n: int, new_n: int) -> None:
    """Whatever a write of one stage was acknowledged by, a read of the same stage or of the next one meets."""
    found = stages(resized(old_n, new_n))
    for number, (_, _, core_n, w, stored_n, stored_w, _) in enumerate(found):
        for read_n, r, *_ in found[number : number + 2]:
            if number == 0 and len(found) > 1 and read_n == max(old_n, new_n) and new_n > old_n:
                # The second stage begins when the copies are there, which this arithmetic does not know.
                continue
            missed = read_n - r
            holders_read = max(w - (core_n - min(core_n, read_n)), (stored_w or w) - (stored_n - min(stored_n, read_n)))
            assert holders_read > missed


def test_a_change_of_n_is_taken_back_while_nobody_reads_by_it() -> None:
    rising = resized(3, 5)
    back = successor(rising, {"replication-factor": "3"}, stamp=30, actor=ACTORS[0], members=5)
    assert back.resize == Resize(30, 5, SWITCHED)
    assert [stage[0] for stage in stages(back)] == [3, 3, 3]
    falling = resized(5, 3)
    back = successor(falling, {"replication-factor": "5"}, stamp=30, actor=ACTORS[0], members=5)
    assert [stage[0] for stage in stages(back)] == [5, 5]


def test_a_second_change_of_n_waits_for_the_first() -> None:
    rising = resized(3, 5)
    with pytest.raises(OverloadedError, match="still being carried out"):
        changed(rising, replication_factor="4")
    assert changed(rising, read_quorum="one").resize == rising.resize
    assert changed(rising, replication_factor="7").resize == rising.resize


def test_n_beyond_the_members_changes_nothing() -> None:
    assert successor(FOUNDING, {"replication-factor": "5"}, stamp=5, actor=ACTORS[0], members=3).resize is None


def test_values_of_before_there_were_resizes_are_read() -> None:
    old = msgspec.msgpack.encode((7, ACTORS[0], {"read-quorum": "one"}, 0, ()))
    assert decode(old) == ClusterValue(7, ACTORS[0], {"read-quorum": "one"})
