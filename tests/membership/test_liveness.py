"""How evidence of several kinds becomes the state of a peer."""

from __future__ import annotations

import random

import pytest

from respkv.membership.clocks import PeerClocks
from respkv.membership.gossip import Membership
from respkv.membership.members import MemberState
from respkv.membership.messages import Accusation, Delta, Deltas, Digest, Reply, decode, encode
from respkv.membership.options import LAN
from tests.membership.world import EPOCH_MS, address_of

ME, PEER, OTHER = (address_of(index).node for index in range(3))
GENERATION = 7


def short(node: str) -> bytes:
    return bytes.fromhex(node[:16])


def make(*, count: int = 3) -> Membership:
    """A machine whose links are all open since time 0."""
    seeds = [address_of(index) for index in range(count)]
    machine = Membership(ME, generation=EPOCH_MS, seeds=seeds, options=LAN, rng=random.Random(1), now=0.0)
    deltas = [
        Delta(bytes.fromhex(a.node), GENERATION, 1, 0, 0, (a.host, a.port, a.cluster_port, a.zone), []) for a in seeds if a.node != ME
    ]
    for address in seeds[1:]:
        machine.link_opened(address.node, 0.0)
    machine.receive(PEER, encode(Deltas(EPOCH_MS, deltas)), 0.0)
    machine.tick(0.0, EPOCH_MS)
    return machine


def run(machine: Membership, *, since: float, until: float, heard: list[str]) -> None:
    """Rounds in which only these are heard."""
    for step in range(round(since * 10) + 1, round(until * 10) + 1):
        now = step / 10
        for node in heard:
            machine.heard(node, now)
        machine.tick(now, EPOCH_MS)


def accuse(machine: Membership, *, source: str, target: str, now: float) -> None:
    accusations: list[Accusation] = [(short(target), GENERATION)]
    machine.receive(source, encode(Digest(EPOCH_MS, [], accusations)), now)


@pytest.mark.parametrize(
    ("accused_at", "state"),
    [(3.0, MemberState.DOWN), (1.0, MemberState.SUSPECT), (None, MemberState.SUSPECT)],
    ids=["of late", "long ago", "never"],
)
def test_another_nodes_suspicion_counts_while_it_is_fresh(accused_at: float | None, state: MemberState) -> None:
    machine = make()
    heard = [OTHER]
    at = accused_at or 1.0
    run(machine, since=0.0, until=at, heard=heard)
    if accused_at is not None:
        accuse(machine, source=OTHER, target=PEER, now=at)
    run(machine, since=at, until=3.4, heard=heard)
    assert machine.state_of(PEER) is state


def test_a_suspect_cannot_confirm_a_suspicion() -> None:
    machine = make(count=3)
    run(machine, since=0.0, until=2.0, heard=[OTHER])
    accuse(machine, source=OTHER, target=PEER, now=2.0)
    machine.link_closed(OTHER, 2.1, refused=False)
    run(machine, since=2.1, until=3.4, heard=[])
    assert machine.state_of(OTHER) is MemberState.SUSPECT
    assert machine.state_of(PEER) is MemberState.SUSPECT


def test_what_a_node_said_before_is_void_when_it_says_it_no_more() -> None:
    machine = make()
    run(machine, since=0.0, until=2.8, heard=[OTHER])
    accuse(machine, source=OTHER, target=PEER, now=2.8)
    machine.receive(OTHER, encode(Digest(EPOCH_MS, [], [])), 2.8)
    run(machine, since=2.8, until=3.4, heard=[OTHER])
    assert machine.state_of(PEER) is MemberState.SUSPECT


def test_a_silent_peer_is_accused_and_one_that_only_lost_its_link_is_not() -> None:
    machine = make()
    run(machine, since=0.0, until=1.6, heard=[OTHER])
    machine.link_closed(OTHER, 1.6, refused=False)
    ((_, payload),) = machine.receive(OTHER, encode(Digest(EPOCH_MS, [], [])), 1.6)
    reply = decode(payload)
    assert isinstance(reply, Reply)
    assert reply.accusations == [(short(PEER), GENERATION)]


def test_a_peer_that_was_silent_for_long_is_probed_in_every_round() -> None:
    machine = make(count=20)
    nodes = [address_of(index).node for index in range(1, 20)]
    quiet = nodes[-1]
    run(machine, since=0.0, until=2.0, heard=nodes[:-1])
    for step in range(21, 41):
        for node in nodes[:-1]:
            machine.heard(node, step / 10)
        messages = machine.tick(step / 10, EPOCH_MS)
        assert not messages or quiet in {node for node, _ in messages}


def test_an_outage_is_no_interval_between_two_heartbeats() -> None:
    machine = make()
    run(machine, since=0.0, until=4.0, heard=[OTHER, PEER])
    before = machine.phi(PEER, 4.5)
    run(machine, since=4.0, until=64.0, heard=[OTHER])
    assert machine.state_of(PEER) is MemberState.DOWN
    run(machine, since=64.0, until=68.0, heard=[OTHER, PEER])
    assert machine.state_of(PEER) is MemberState.UP
    assert machine.phi(PEER, 68.5) == pytest.approx(before, abs=0.05)


def test_a_delta_with_a_gap_before_it_is_asked_for_again() -> None:
    machine = make()
    gapped = Delta(bytes.fromhex(PEER), GENERATION, 9, 9, 5, None, [("keys", 9, 1)])
    machine.receive(OTHER, encode(Deltas(EPOCH_MS, [gapped])), 0.1)
    assert machine.application_value(PEER, "keys") is None
    ((_, payload),) = machine.receive(PEER, encode(Digest(EPOCH_MS, [(short(PEER), GENERATION, 9, 9)], [])), 0.2)
    reply = decode(payload)
    assert isinstance(reply, Reply)
    assert reply.requests == [(short(PEER), 0)]


def test_mail_that_waited_makes_nobodys_clock_look_slow() -> None:
    clocks = PeerClocks()
    for node in (PEER, OTHER):
        clocks.observe(node, wall_ms=EPOCH_MS, now=0.0)
        clocks.observe(node, wall_ms=EPOCH_MS, now=20.0)  # written at 0, read after a stop of 20 s
    clocks.distrust(since=0.0, until=20.1)
    for node in (PEER, OTHER):
        clocks.observe(node, wall_ms=EPOCH_MS, now=20.05)
    assert clocks.skew_ms([PEER, OTHER], wall_ms=EPOCH_MS + 20_000, now=20.1) is None
    for node in (PEER, OTHER):
        clocks.observe(node, wall_ms=EPOCH_MS + 20_150, now=20.15)
    assert clocks.skew_ms([PEER, OTHER], wall_ms=EPOCH_MS + 20_200, now=20.2) == 0
    clocks.forget(OTHER)
    assert clocks.skew_ms([PEER, OTHER], wall_ms=EPOCH_MS + 20_200, now=20.2) is None
