"""Routes: from the ring and from who is up, where requests go and what counts."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from respkv.config.quorums import Quorums
from respkv.config.replication import steady
from respkv.coordinator.routes import RouteTable, View
from respkv.ids import node_id_of_address
from respkv.placement.ring import Member, first_ring

NODES = sorted(node_id_of_address("127.0.0.1", 17001 + number) for number in range(7))


@st.composite
def tables(draw: st.DrawFn) -> tuple[RouteTable, View, Quorums]:
    members = NODES[: draw(st.integers(1, 7))]
    me = draw(st.sampled_from(members))
    some = st.sets(st.sampled_from(members)).map(frozenset)
    sloppy = draw(st.booleans())
    view = View(
        me=me,
        usable=draw(some) | {me},
        rebuilding=draw(some),
        stale=draw(some) - {me},
        sloppy=sloppy,
        handoff=sloppy or draw(st.booleans()),
    )
    n = draw(st.integers(1, 5))
    r, w = draw(st.integers(1, n)), draw(st.integers(1, n))
    quorum = Quorums(n, r, w, draw(st.integers(0, r)), draw(st.integers(0, w)))
    ring = first_ring([Member(node) for node in members], ring_size=64)
    return RouteTable(ring, view=view, replication=steady(quorum)), view, quorum


@given(tables())
def test_routes_say_the_truth(drawn: tuple[RouteTable, View, Quorums]) -> None:
    table, view, quorum = drawn
    me = view.me
    members = len(table.ring.members)
    for partition, route in enumerate(table.routes):
        preference = table.preference(partition)
        primaries = set(preference[: min(quorum.n, members)])
        assert route.primary_set == primaries
        assert table.holds[partition] == (me in primaries)
        # Everybody who is up gets every write, once, as itself or as a stand-in.
        keepers = [peer for peer, _ in route.stand_ins]
        sent = [*route.write_peers, *keepers]
        assert len(sent) == len(set(sent))
        assert me not in sent
        assert set(sent) <= view.usable
        assert primaries & view.usable <= set(sent) | {me}
        assert route.local_write or me not in primaries
        # Those who stand in are the first of this partition's own fallbacks that can.
        able = [node for node in preference[len(primaries) :] if node in view.usable - view.rebuilding]
        guests = {node for node in (*keepers, *((me,) if route.local_owners else ())) if node not in primaries}
        assert guests == set(able[: len(guests)])
        # Every owner that is away has exactly one keeper of its hints, if there can be one.
        owners = [owner for _, owners in route.stand_ins for owner in owners] + list(route.local_owners)
        away = primaries - view.usable
        assert len(owners) == len(set(owners))
        assert set(owners) <= away
        fallbacks = (view.usable - view.rebuilding - primaries) if view.sloppy else frozenset()
        if view.handoff and (primaries & view.usable or fallbacks):
            assert set(owners) == away
        # What counts: primaries that lack nothing, and fallbacks while the quorum is sloppy. Each node once.
        counting_primaries = {node for node in primaries & view.usable if node not in view.rebuilding}
        assert route.write_primaries_up == route.read_primaries_up == len(counting_primaries)
        assert route.counting & primaries == counting_primaries
        assert not (route.counting & view.rebuilding)
        assert route.counting <= set(sent) | ({me} if route.local_write else set())
        assert route.write_up == len(route.counting) <= len(primaries)
        if not view.sloppy:
            assert route.counting <= primaries
        # Reads ask whoever counts, those that may lack something last.
        assert set(route.read_peers) | ({me} if route.local_read else set()) == route.counting
        assert len(route.read_peers) == len(set(route.read_peers))
        assert route.local_read == (me in route.counting)
        spread = route.read_peers[: route.spread_count]
        assert set(spread) == counting_primaries - view.stale - {me}
        late = [node for node in route.read_peers if node in primaries and node in view.stale]
        assert list(route.read_peers[len(route.read_peers) - len(late) :]) == late
        if route.instant_read:
            assert me in counting_primaries


@given(tables())
def test_the_first_live_node_is_one_that_can_answer(drawn: tuple[RouteTable, View, Quorums]) -> None:
    table, view, quorum = drawn
    for partition, first in enumerate(table.first_live):
        preference = table.preference(partition)
        primaries = preference[: min(quorum.n, len(preference))]
        whole = [node for node in primaries if node in view.usable and node not in view.rebuilding]
        up = [node for node in primaries if node in view.usable]
        others = [node for node in preference if node in view.usable]
        assert first == next(iter(whole or up or others), None)


def test_partitions_with_the_same_replicas_in_the_same_condition_share_a_route() -> None:
    ring = first_ring([Member(node) for node in NODES[:3]], ring_size=1024)
    table = RouteTable(ring, view=View(me=NODES[0], usable=frozenset(NODES[:3])), replication=steady(Quorums(3, 2, 2, 0, 0)))
    assert len({id(route) for route in table.routes}) == 1


def test_more_replicas_than_members_are_as_many_as_there_are() -> None:
    ring = first_ring([Member(node) for node in NODES[:2]], ring_size=64)
    table = RouteTable(ring, view=View(me=NODES[0], usable=frozenset(NODES[:2])), replication=steady(Quorums(5, 3, 3, 0, 0)))
    assert table.n == 2
    assert table.routes[0].quorum == Quorums(2, 2, 2, 0, 0)


def test_a_fallback_that_rebuilds_is_passed_over_in_each_partition_for_its_own_next_one() -> None:
    ring = first_ring([Member(node) for node in NODES], ring_size=64)
    for away, rebuilds in itertools.permutations(NODES[1:], 2):
        view = View(me=NODES[0], usable=frozenset(NODES) - {away}, rebuilding=frozenset({rebuilds}))
        table = RouteTable(ring, view=view, replication=steady(Quorums(3, 2, 2, 0, 0)))
        for partition, route in enumerate(table.routes):
            able = [node for node in table.preference(partition)[3:] if node not in {away, rebuilds}]
            keepers = [peer for peer, _ in route.stand_ins] + [view.me] * bool(route.local_owners)
            assert keepers == able[: len(keepers)]


def test_who_stood_in_for_nodes_that_have_been_away_for_too_long_is_still_read() -> None:
    ring = first_ring([Member(node) for node in NODES[:5]], ring_size=64)
    for away in itertools.combinations(NODES[1:5], 2):
        view = View(me=NODES[0], usable=frozenset(NODES[:5]) - set(away), forgotten=frozenset(away))
        table = RouteTable(ring, view=view, replication=steady(Quorums(3, 2, 2, 0, 0)))
        for partition, route in enumerate(table.routes):
            preference = table.preference(partition)
            gone = len(route.primary_set & set(away))
            assert route.write_up == 3 - gone
            assert not route.stand_ins
            assert not route.local_owners
            readers = [*route.read_peers, *[view.me] * route.local_read]
            assert set(readers) == (route.primary_set - set(away)) | set([node for node in preference[3:] if node not in away][:gone])
            assert len(readers) == 3
            assert route.reads_own_writes == (view.me in route.primary_set)
