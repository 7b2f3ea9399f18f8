"""A node whose clock was set back before it started again is still believed, whichever protocol members speak."""

from __future__ import annotations

import random

import pytest

from respkv.membership.gossip import Membership
from respkv.membership.members import MemberAddress
from respkv.membership.options import LAN, MembershipOptions
from tests.membership.world import EPOCH_MS

BROADCAST = MembershipOptions(protocol="broadcast")
ADDRESSES = [MemberAddress.founding(host="127.0.0.1", port=7000 + index, cluster_port=17000 + index) for index in range(2)]
HOUR_MS = 3_600_000


def begin(index: int, *, generation: int, options: MembershipOptions, now: float) -> Membership:
    machine = Membership(ADDRESSES[index].node, generation=generation, seeds=ADDRESSES, options=options, rng=random.Random(index), now=now)
    machine.link_opened(ADDRESSES[1 - index].node, now)
    return machine


def talk(machines: list[Membership], *, now: float) -> None:
    """One round of both, and the answers to it."""
    messages = [(index, node, payload) for index, machine in enumerate(machines) for node, payload in machine.tick(now, EPOCH_MS)]
    while messages:
        source, target, payload = messages.pop(0)
        index = [address.node for address in ADDRESSES].index(target)
        messages += [(index, node, answer) for node, answer in machines[index].receive(ADDRESSES[source].node, payload, now)]


@pytest.mark.parametrize("options", [LAN, BROADCAST], ids=["gossip", "broadcast"])
def test_what_it_publishes_counts_at_once_and_not_when_its_clock_has_caught_up(options: MembershipOptions) -> None:
    other = begin(1, generation=EPOCH_MS, options=options, now=0.0)
    before = begin(0, generation=EPOCH_MS, options=options, now=0.0)
    before.publish("rebuilding", 0)
    for step in range(5):
        talk([before, other], now=0.3 * step)
    assert other.application_value(ADDRESSES[0].node, "rebuilding") == 0
    after = begin(0, generation=EPOCH_MS - HOUR_MS, options=options, now=2.0)
    after.publish("rebuilding", 1)
    for step in range(5):
        talk([after, other], now=2.0 + 0.3 * step)
    assert other.application_value(ADDRESSES[0].node, "rebuilding") == 1
