"""The machine by itself, and what whole clusters come to agree on."""

from __future__ import annotations

import contextlib
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respkv.errors import PeerProtocolError
from respkv.membership.gossip import Membership
from respkv.membership.members import MemberState
from respkv.membership.messages import ENTRIES_MAX, Delta, Deltas, Digest, Message, Reply, decode, encode
from respkv.membership.options import LAN, MembershipOptions
from tests.membership.world import EPOCH_MS, World, address_of

BROADCAST = MembershipOptions(protocol="broadcast")
ME, PEER, OTHER = (address_of(index).node for index in range(3))


def make(index: int = 0, *, count: int = 3, options: MembershipOptions = LAN, generation: int = EPOCH_MS) -> Membership:
    seeds = [address_of(i) for i in range(count)]
    return Membership(seeds[index].node, generation=generation, seeds=seeds, options=options, rng=random.Random(index), now=0.0)


def reply_to(machine: Membership, message: Message, *, source: str) -> Reply:
    ((target, payload),) = machine.receive(source, encode(message), 0.0)
    assert target == source
    reply = decode(payload)
    assert isinstance(reply, Reply)
    return reply


def short(node: str) -> bytes:
    return bytes.fromhex(node[:16])


# What a cluster agrees on.


@pytest.mark.parametrize(("count", "within_s", "loss"), [(10, 2.0, 0.0), (10, 2.0, 0.2), (32, 3.0, 0.0), (32, 3.0, 0.2)])
@pytest.mark.parametrize("seed", range(2))
def test_everybody_learns_of_a_change(count: int, within_s: float, loss: float, seed: int) -> None:
    world = World(count, seed=seed, loss=loss)
    world.settle()
    world.machine(0).publish("ring_epoch", 2)
    node = world.addresses[0].node
    world.run_until(lambda: all(p.machine.application_value(node, "ring_epoch") == 2 for p in world.processes), within_s=within_s)


def test_with_broadcast_too_and_both_count_their_bytes() -> None:
    costs = []
    for options in (LAN, BROADCAST):
        world = World(5, options=options)
        world.settle()
        world.machine(0).publish("keys", 17)
        world.run(1.0)
        assert {p.machine.application_value(world.addresses[0].node, "keys") for p in world.processes} == {17}
        statistics = world.machine(1).statistics()
        used, unused = (statistics.broadcast, statistics.gossip) if options is BROADCAST else (statistics.gossip, statistics.broadcast)
        assert used.bytes_sent_total > 0
        assert used.messages_received_total > 0
        assert unused.bytes_sent_total == unused.bytes_received_total == 0
        costs.append(used.bytes_sent_total)
    assert max(costs) < 64 * 1024  # 7 s of five nodes


def test_a_round_of_gossip_costs_little_among_many_nodes() -> None:
    world = World(32)
    world.settle()
    before = world.machine(0).statistics().gossip
    world.run(10.0)
    after = world.machine(0).statistics().gossip
    assert (after.bytes_sent_total - before.bytes_sent_total) / 10 < 20_000
    assert (after.messages_sent_total - before.messages_sent_total) / 10 < 40


def test_a_mixed_cluster_stays_whole_while_the_protocol_changes() -> None:
    world = World(5, seed=4)
    world.settle()
    for process in world.processes[:2]:
        process.machine.set_options(BROADCAST, world.now)
    world.run(10.0)
    assert world.everybody_up()
    assert world.moves(MemberState.DOWN) == []


def test_addresses_and_zones_are_learned_from_the_nodes_themselves() -> None:
    world = World(3)
    world.addresses = [address_of(0), address_of(1), address_of(2)]
    world.settle()
    assert [view.address.zone for view in world.machine(2).members(world.now)] == ["z0", "z1", "z2"]
    assert all(view.generation >= EPOCH_MS for view in world.machine(2).members(world.now))


@st.composite
def small_faults(draw: st.DrawFn) -> list[tuple[str, int, float]]:
    kinds = st.sampled_from(["stop", "loss", "late", "relink", "wait"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 4), st.floats(0.0, 2.0)), max_size=8))


@given(seed=st.integers(0, 2**32), faults=small_faults())
@settings(max_examples=40, deadline=None)
def test_short_stalls_losses_and_broken_links_convict_nobody(seed: int, faults: list[tuple[str, int, float]]) -> None:
    world = World(5, seed=seed)
    world.settle()
    for kind, index, amount in faults:
        neighbour = (index + 1) % 5
        if kind == "stop" and world.processes[index].stopped_until <= world.now:
            world.stop(index, amount)
            world.run(3.0)
        elif kind == "loss":
            world.loss = amount / 10
        elif kind == "late":
            world.machine(index).late_answer(world.addresses[neighbour].node, world.now)
        elif kind == "relink":
            world._lose_link(world.processes[index], neighbour)
        world.run(amount)
    assert world.moves(MemberState.DOWN) == []
    world.loss = 0.0
    world.run(2.0)
    assert world.everybody_up()


@given(
    seed=st.integers(0, 2**32), faults=st.lists(st.tuples(st.sampled_from(["kill", "stop", "cut", "heal"]), st.integers(0, 4)), max_size=8)
)
@settings(max_examples=30, deadline=None)
def test_whatever_happened_all_find_each_other_again(seed: int, faults: list[tuple[str, int]]) -> None:
    world = World(5, seed=seed, loss=0.05)
    world.run(1.0)
    for kind, index in faults:
        if kind == "kill" and world.processes[index].is_alive:
            world.kill(index)
        elif kind == "stop":
            world.stop(index, world.rng.uniform(0, 10))
        elif kind == "cut":
            world.cut({index}, {world.rng.randrange(5)} - {index})
        else:
            world.heal()
        world.run(world.rng.uniform(0, 5))
    world.heal()
    world.loss = 0.0
    world.run(10.0)  # the last stop ends
    for process in list(world.processes):
        if not process.is_alive:
            world.restart(process.index)
    world.run(3.0)
    assert world.everybody_up()
    for process in world.processes:
        process.machine.publish("ring_epoch", process.index)
    world.run(2.0)
    for observer in world.processes:
        assert [observer.machine.application_value(address.node, "ring_epoch") for address in world.addresses] == list(range(5))
        assert observer.machine.up() == frozenset(world.index_of)


# The machine by itself.


def test_at_first_others_are_unknown_and_only_this_node_is_up() -> None:
    machine = make()
    assert machine.state_of(PEER) is MemberState.UNKNOWN
    assert machine.state_of(ME) is MemberState.UP
    assert machine.up() == machine.prompt() == {ME}
    assert machine.usable(ME)
    assert not machine.usable(PEER)
    assert not machine.usable("f" * 40)
    assert machine.tick(0.0, EPOCH_MS) == []  # there is no link yet


def test_a_link_greets_a_peer_at_once_and_its_answer_makes_it_up() -> None:
    machine = make()
    machine.tick(0.0, EPOCH_MS)
    machine.link_opened(PEER, 0.05)
    assert machine.next_due <= 0.05
    assert [node for node, _ in machine.tick(0.05, EPOCH_MS)] == [PEER]
    assert machine.next_due > 0.05
    assert machine.up() == {ME}  # as long as it has no link to this node, its answers would be lost
    machine.heard(PEER, 0.06)
    assert machine.up() == {ME, PEER}
    assert machine.changes() == [(PEER, MemberState.UNKNOWN, MemberState.UP, "heard")]
    assert machine.changes() == []


def test_who_refuses_while_it_was_never_heard_may_still_be_starting() -> None:
    machine = make()
    machine.link_closed(PEER, 0.0, refused=True)
    for step in range(1, 10):
        machine.tick(step * 0.2, EPOCH_MS)
    assert machine.state_of(PEER) is MemberState.UNKNOWN
    for step in range(10, 30):
        machine.tick(step * 0.2, EPOCH_MS)
    assert machine.state_of(PEER) is MemberState.DOWN


def test_frames_without_a_link_of_our_own_make_a_peer_suspect_and_no_more() -> None:
    machine = make()
    machine.heard(PEER, 0.1)
    assert machine.state_of(PEER) is MemberState.SUSPECT
    assert PEER not in machine.up()
    machine.link_opened(PEER, 0.2)
    assert machine.state_of(PEER) is MemberState.UP
    machine.link_closed(PEER, 0.3, refused=False)
    machine.heard(PEER, 0.4)
    assert machine.state_of(PEER) is MemberState.SUSPECT


def test_a_late_answer_of_a_silent_peer_makes_it_suspect_until_it_is_heard() -> None:
    machine = make()
    machine.link_opened(PEER, 0.0)
    machine.heard(PEER, 0.0)
    machine.tick(0.0, EPOCH_MS)
    machine.late_answer(PEER, 0.1)
    assert machine.state_of(PEER) is MemberState.UP  # heard a moment ago: slow, not silent
    machine.tick(0.2, EPOCH_MS)
    machine.late_answer(PEER, 0.4)
    assert machine.state_of(PEER) is MemberState.SUSPECT
    assert machine.usable(PEER)
    assert PEER not in machine.prompt()
    machine.tick(0.4, EPOCH_MS)
    assert machine.state_of(PEER) is MemberState.SUSPECT
    machine.heard(PEER, 0.5)
    assert machine.state_of(PEER) is MemberState.UP
    assert machine.statistics().late_answers_total == 2


def test_strangers_are_ignored_everywhere() -> None:
    machine = make()
    stranger = "f" * 40
    machine.heard(stranger, 0.0)
    machine.link_opened(stranger, 0.0)
    machine.link_closed(stranger, 0.0, refused=True)
    machine.late_answer(stranger, 0.0)
    digest = Digest(EPOCH_MS, [(short(stranger), 1, 1, 1)], [])
    assert machine.receive(stranger, encode(digest), 0.0) == []
    assert reply_to(machine, digest, source=PEER).requests == []
    assert machine.statistics().strangers_total == 1
    assert machine.phi(stranger, 0.0) == 0.0
    assert len(machine.members(0.0)) == 3


def test_a_node_named_by_gossip_joins_where_that_is_allowed_and_up_to_the_bound() -> None:
    options = MembershipOptions(allow_unknown=True, members_max=4)
    machine = make(options=options)
    joiners = [bytes([i]) * 20 for i in (1, 2)]
    deltas = [Delta(node, 5, 1, 0, 0, ("10.0.0.9", 7009, 17009, "z"), []) for node in joiners]
    machine.receive(PEER, encode(Deltas(EPOCH_MS, deltas)), 0.0)
    assert [view.address.port for view in machine.members(0.0)][3:] == [7009]
    assert machine.statistics().strangers_total == 1
    assert not machine.add(address_of(9), 0.0)


def test_an_added_member_is_found_by_all_when_they_allow_it() -> None:
    options = MembershipOptions(allow_unknown=True)
    left, right = make(0, count=2, options=options), make(1, count=2, options=options)
    assert left.add(address_of(2), 0.0)
    assert not left.add(address_of(2), 0.0)
    left.link_opened(PEER, 0.0)
    messages = [(ME, PEER, payload) for _, payload in left.tick(0.0, EPOCH_MS)]
    machines = {ME: left, PEER: right}
    while messages:
        source, target, payload = messages.pop()
        messages += [(target, node, answer) for node, answer in machines[target].receive(source, payload, 0.0)]
    assert OTHER not in {view.address.node for view in right.members(0.0)}  # it never spoke: there is nothing to pass on
    left.receive(OTHER, encode(Deltas(EPOCH_MS, [Delta(bytes.fromhex(OTHER), 5, 1, 0, 0, ("10.0.0.1", 7002, 17002, ""), [])])), 0.1)
    messages = [(PEER, ME, encode(Digest(EPOCH_MS, [(short(ME), 0, 0, 0), (short(PEER), 1, 1, 0)], [])))]
    source, target, payload = messages.pop()
    for node, answer in machines[target].receive(source, payload, 0.1):
        machines[node].receive(target, answer, 0.1)
    assert OTHER in {view.address.node for view in right.members(0.1)}


def test_a_node_outbids_what_others_hold_of_it() -> None:
    machine = make(generation=EPOCH_MS)
    future = EPOCH_MS + 10**9  # its clock was set back before it started again
    machine.receive(PEER, encode(Digest(EPOCH_MS, [(short(ME), future, 1000, 7)], [])), 0.0)
    own = machine.members(0.0)[0]
    assert own.generation == future + 1
    assert machine.statistics().outbid_total == 1
    reply = reply_to(machine, Digest(EPOCH_MS, [(short(ME), future, 1000, 7)], []), source=PEER)
    assert reply.deltas[0].generation == future + 1
    assert machine.statistics().outbid_total == 1


@pytest.mark.parametrize(("heartbeat", "state_version"), [(2**53, 0), (5, 4)])
def test_a_false_claim_that_leaves_no_room_is_outbid_by_a_new_generation(heartbeat: int, state_version: int) -> None:
    machine = make()
    machine.receive(PEER, encode(Digest(EPOCH_MS, [(short(ME), EPOCH_MS, heartbeat, state_version)], [])), 0.0)
    own = machine.members(0.0)[0]
    assert own.generation == EPOCH_MS + 1
    assert own.heartbeat == 1


def test_what_others_pass_on_revives_only_when_it_is_clearly_later_than_the_verdict() -> None:
    machine = make()
    machine.link_opened(PEER, 0.0)

    def pass_on(heartbeat: int, now: float) -> None:
        machine.receive(OTHER, encode(Digest(EPOCH_MS, [(short(PEER), 7, heartbeat, 0)], [])), now)

    machine.receive(PEER, encode(Deltas(EPOCH_MS, [Delta(bytes.fromhex(PEER), 7, 10, 0, 0, ("10.0.0.1", 7001, 17001, ""), [])])), 0.0)
    for step in range(10):
        machine.tick(step * 0.2, EPOCH_MS)
    machine.link_closed(PEER, 2.0, refused=True)
    for step in range(10, 15):
        machine.tick(step * 0.2, EPOCH_MS)
    assert machine.state_of(PEER) is MemberState.DOWN
    for heartbeat in range(11, 16):
        pass_on(heartbeat, 3.0)  # these were on their way when it died
        assert machine.state_of(PEER) is MemberState.DOWN
    pass_on(16, 3.1)
    assert machine.state_of(PEER) is MemberState.SUSPECT
    assert not machine.usable(PEER)


def test_a_node_that_slept_speaks_to_everybody_when_it_wakes() -> None:
    machine = make(count=20)
    for index in range(1, 20):
        machine.link_opened(address_of(index).node, 0.0)
    assert len(machine.tick(0.0, EPOCH_MS)) == 19  # greetings
    assert len(machine.tick(0.2, EPOCH_MS)) == 3
    assert len(machine.tick(2.4, EPOCH_MS)) == 19
    assert len({node for node, _ in machine.tick(2.6, EPOCH_MS)}) == 3


def test_every_peer_is_spoken_to_in_bounded_time() -> None:
    machine = make(count=20)
    for index in range(1, 20):
        machine.link_opened(address_of(index).node, 0.0)
    machine.tick(0.0, EPOCH_MS)
    spoken: list[set[str]] = []
    for step in range(1, 60):
        for index in range(1, 20):
            machine.heard(address_of(index).node, step * 0.2)
        spoken.append({node for node, _ in machine.tick(step * 0.2, EPOCH_MS)})
    for start in range(40):
        assert len(set[str]().union(*spoken[start : start + 14])) == 19


def test_an_accused_node_refutes() -> None:
    machine = make()
    before = machine.members(0.0)[0].heartbeat
    machine.receive(PEER, encode(Digest(EPOCH_MS, [(short(ME), EPOCH_MS, before, 0)], [(short(ME), EPOCH_MS)])), 0.0)
    assert machine.statistics().refutations_total == 1
    assert machine.members(0.0)[0].heartbeat > before
    machine.receive(PEER, encode(Digest(EPOCH_MS, [], [(short(ME), EPOCH_MS - 1)])), 0.0)  # an earlier life of it
    assert machine.statistics().refutations_total == 1


def test_rings_of_one_epoch_with_other_contents_are_found_out() -> None:
    world = World(3)
    world.settle()
    for index, ring_hash in enumerate(["a", "a", "b"]):
        world.machine(index).publish("ring_epoch", 1)
        world.machine(index).publish("ring_hash", ring_hash)
    world.run(1.0)
    (conflict,) = world.machine(0).ring_conflicts()
    assert (conflict.node, conflict.epoch, conflict.our_hash, conflict.their_hash) == (world.addresses[2].node, 1, "a", "b")
    assert len(world.machine(2).ring_conflicts()) == 2
    world.machine(2).publish("ring_epoch", 2)
    world.run(1.0)
    assert world.machine(0).ring_conflicts() == []


def test_a_wrong_clock_is_noticed_against_the_median() -> None:
    world = World(5, seed=9)
    world.processes[0].wall_offset_ms = -4000
    world.processes[1].wall_offset_ms = 3000
    world.settle()

    def skew(index: int) -> int | None:
        wall_ms = EPOCH_MS + round(world.now * 1000) + world.processes[index].wall_offset_ms
        return world.machine(index).clock_skew_ms(wall_ms, world.now)

    assert skew(0) == pytest.approx(-4000, abs=20)
    assert skew(1) == pytest.approx(3000, abs=20)
    assert skew(2) == pytest.approx(0, abs=20)
    world.stop(2, 20.0)
    world.run(20.01)
    assert skew(2) is None or abs(skew(2) or 0) < 20  # old mail makes nobody's clock look slow
    world.run(2.0)
    assert skew(2) == pytest.approx(0, abs=20)
    assert World(2).machine(0).clock_skew_ms(EPOCH_MS, 0.0) is None


def test_an_equal_value_is_not_published_again() -> None:
    machine = make()
    machine.publish("rebuilding", value=True)
    version = machine.members(0.0)[0].heartbeat
    machine.publish("rebuilding", 1)
    view = machine.members(0.0)[0]
    assert view.heartbeat == version
    assert view.application == {"rebuilding": 1}
    assert type(view.application["rebuilding"]) is int


def test_the_interval_can_be_changed_while_it_runs() -> None:
    machine = make()
    machine.tick(0.0, EPOCH_MS)
    assert machine.next_due == pytest.approx(0.2)
    machine.set_options(MembershipOptions(gossip_interval_s=0.05), 0.0)
    assert machine.next_due == pytest.approx(0.05)
    machine.set_options(MembershipOptions(gossip_interval_s=1.0), 0.05)
    machine.tick(0.05, EPOCH_MS)
    assert machine.next_due == pytest.approx(1.05)


# What no node sends.


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff" * 200_000,
        msgspec.msgpack.encode([9, 0, [], []]),
        msgspec.msgpack.encode([1, 0, [[b"short", 1, 1, 1]], []]),
        msgspec.msgpack.encode([1, 0, [[b"8bytes!!", -1, 1, 1]], []]),
        msgspec.msgpack.encode([1, 0, [[b"8bytes!!", 2**60, 1, 1]], []]),
        msgspec.msgpack.encode([1, 0, [[b"8bytes!!", 1, 1, 1]] * (ENTRIES_MAX + 1), []]),
        msgspec.msgpack.encode([1, 0, [], [[b"8bytes!!", "x"]]]),
        msgspec.msgpack.encode([3, 0, [[b"x" * 20, 1, 1, 1, 0, ["h", 70000, 1, ""], []]]]),
        msgspec.msgpack.encode([3, 0, [[b"x" * 20, 1, 1, 1, 0, None, [["k" * 65, 1, 1]]]]]),
        msgspec.msgpack.encode([3, 0, [[b"x" * 20, 1, 1, 1, 0, None, [["k", 1, "v" * 257]]]]]),
        msgspec.msgpack.encode([3, 0, [[b"x" * 20, 1, 1, 1, 0, None, [[f"k{i}", 1, 1] for i in range(65)]]]]),
        b"\x94\x01\x00\xdd\x00\x0f\x42\x40",  # a digest of 10^6 nodes
        b"\x94\x01" + b"\x91" * 5000,
    ],
)
def test_malformed_gossip_is_refused(payload: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        make().receive(PEER, payload, 0.0)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_harmless(payload: bytes) -> None:
    machine = make()
    with contextlib.suppress(PeerProtocolError):
        machine.receive(PEER, payload, 0.0)
    assert machine.up() == {ME}


numbers = st.one_of(st.integers(0, 5), st.integers(0, 2**53))
short_ids = st.sampled_from([short(ME), short(PEER), short(OTHER), b"stranger"])
entries = st.lists(st.tuples(short_ids, st.sampled_from([0, 1, EPOCH_MS, 2**47]), numbers, numbers), max_size=4)
values = st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.floats())
items = st.lists(st.tuples(st.text(min_size=1, max_size=3), numbers, values), max_size=3)
locations = st.none() | st.just(("10.0.0.7", 1, 2, "z"))
deltas = st.lists(
    st.tuples(
        st.sampled_from([bytes.fromhex(ME), bytes.fromhex(PEER), b"s" * 20]),
        st.sampled_from([0, 1, EPOCH_MS, 2**47]),
        numbers,
        numbers,
        numbers,
        locations,
        items,
    ),
    max_size=3,
)
requests = st.lists(st.tuples(short_ids, numbers), max_size=3)
accusations = st.lists(st.tuples(short_ids, st.sampled_from([0, EPOCH_MS])), max_size=3)
messages = st.one_of(
    st.tuples(st.just(1), numbers, entries, accusations),
    st.tuples(st.just(2), numbers, entries, accusations, deltas, requests),
    st.tuples(st.just(3), numbers, deltas),
    st.tuples(st.just(4), numbers, deltas.filter(bool).map(lambda many: many[0]), accusations),
)


@given(st.lists(st.tuples(st.sampled_from([PEER, OTHER]), messages), max_size=6), st.booleans())
def test_well_formed_lies_break_nothing(conversation: list[tuple[str, tuple[object, ...]]], allow_unknown: bool) -> None:  # noqa: FBT001
    machine = make(options=MembershipOptions(allow_unknown=allow_unknown))
    machine.link_opened(PEER, 0.0)
    before = machine.members(0.0)[0]
    for step, (source, message) in enumerate(conversation):
        for _, payload in machine.receive(source, msgspec.msgpack.encode(message), step * 0.1):
            decode(payload)
        for _, payload in machine.tick(step * 0.1, EPOCH_MS):
            decode(payload)
    own = machine.members(1.0)[0]
    assert (own.generation, own.heartbeat) >= (before.generation, before.heartbeat)
    assert own.application == {}  # nobody else speaks for this node
    assert machine.state_of(ME) is MemberState.UP
