"""A cluster that is cut in two by dropped packets, and writes on both sides; then it heals.

The packets are dropped by iptables between the addresses of the nodes, all of the loopback interface, so this needs root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import hiredis
import pytest

from tests.cluster.harness import Cluster, NodeProcess, running_cluster, wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.stock("iptables"),
    pytest.mark.skipif(os.geteuid() != 0, reason="dropping packets needs root"),
]

NETWORK = f"127.{SystemRandom().randrange(2, 250)}.{SystemRandom().randrange(1, 250)}"
HOSTS = [f"{NETWORK}.{index + 1}" for index in range(5)]
KEYS = [b"cart:%d" % number for number in range(60)]
DELETED = [b"gone:%d" % number for number in range(40)]
ROUNDS = 3


def rules(verb: str, left: list[NodeProcess], right: list[NodeProcess]) -> None:
    """Add (-A) or delete (-D) the rules that part two groups of nodes."""
    for one in left:
        for other in right:
            for source, target in ((one, other), (other, one)):
                command = ["iptables", "-w", verb, "INPUT", "-s", source.host, "-d", target.host, "-j", "DROP"]
                subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def cut(left: list[NodeProcess], right: list[NodeProcess]) -> Iterator[None]:
    """No packet passes between two groups of nodes."""
    rules("-A", left, right)
    try:
        yield
    finally:
        rules("-D", left, right)


class Side:
    """A client of one half: it reads a key, adds its own word to what it has read, and writes it."""

    def __init__(self, name: bytes, node: NodeProcess) -> None:
        self.name = name
        self.wire = node.connect()
        self.added: dict[bytes, set[bytes]] = {key: set() for key in KEYS}
        """What was acknowledged, by key."""

    def add(self, key: bytes, number: int) -> None:
        """One round of a client that knows nothing of siblings."""
        word = b"%b%d" % (self.name, number)
        read = self.wire.ask("GET", key)
        if isinstance(read, hiredis.ReplyError):
            # No replica of this key is on this side, only stand-ins that know nothing: what is there cannot be read.
            read = None
        value = word if read is None else read + b" " + word
        if self.wire.ask("SET", key, value) == b"OK":
            self.added[key].add(word)


def wait_parted(left: list[NodeProcess], right: list[NodeProcess]) -> None:
    """Wait until each side takes the other one for down: who is merely suspect is still asked."""
    for group, others in ((left, right), (right, left)):
        for node in group:
            down = str(len(others))
            wait_until(f"{node.name} sees {down} down", lambda node=node, down=down: node.info("respkv")["respkv_nodes_down"] == down)  # type: ignore[misc]


def words_of(node: NodeProcess, key: bytes) -> set[bytes]:
    """All that is left of what was added, in all siblings."""
    with node.connect() as wire:
        reply = wire.ask("RESPKV", "SIBLINGS", key)
    assert not isinstance(reply, hiredis.ReplyError), reply
    return {word for value in reply[1] for word in value.split()}


def wait_in_step(cluster: Cluster, keys: list[bytes]) -> None:
    """Wait until all replicas of these keys hold the same bytes."""
    for key in keys:
        wait_until(
            f"the replicas of {key!r} are in step",
            lambda key=key: {replica["state"] for replica in cluster[0].whereabouts(key)["replicas"]} <= {"in step"},  # type: ignore[misc]
        )


def play(folder: Path, policy: str) -> tuple[int, int]:
    """Cut, write on both sides, heal. Returns how many words were acknowledged and how many of them are lost."""
    directives = ["--conflict-resolution", policy, "--failure-detector", "lan"]
    with running_cluster(folder, count=5, hosts=HOSTS, directives=directives) as cluster, contextlib.ExitStack() as stack:
        left, right = cluster.nodes[:2], cluster.nodes[2:]
        with cluster[0].connect() as wire:
            assert set(wire.ask_all([("SET", key, b"before") for key in KEYS + DELETED])) == {b"OK"}
        wait_in_step(cluster, KEYS + DELETED)
        sides = [Side(b"left", left[0]), Side(b"right", right[0])]
        for side in sides:
            stack.enter_context(side.wire)
        deleted: list[bytes] = []
        with cut(left, right):
            wait_parted(left, right)
            for number in range(ROUNDS):
                for key in KEYS:
                    for side in sides:
                        side.add(key, number)
            for index, key in enumerate(DELETED):
                if sides[index % 2].wire.ask("DEL", key) == 1:
                    deleted.append(key)
            assert sum(len(words) for side in sides for words in side.added.values()) > len(KEYS) * ROUNDS
            assert len(deleted) > len(DELETED) // 3
        cluster.wait_ready()
        cluster.wait_settled()
        wait_in_step(cluster, KEYS + DELETED)
        for node in cluster.nodes:
            with node.connect() as wire:
                assert wire.ask_all([("GET", key) for key in deleted]) == [None] * len(deleted)
        acknowledged = {key: sides[0].added[key] | sides[1].added[key] for key in KEYS}
        lost = {key: acknowledged[key] - words_of(cluster[2], key) for key in KEYS}
        if policy == "siblings":
            assert {key: words for key, words in lost.items() if words} == {}
            resolve_all(cluster)
        return sum(map(len, acknowledged.values())), sum(map(len, lost.values()))


def resolve_all(cluster: Cluster) -> None:
    """A client merges what it finds, and afterwards there is one value, on all replicas."""
    with cluster[4].connect() as wire:
        for key in KEYS:
            context, found = wire.ask("RESPKV", "SIBLINGS", key)
            merged = b" ".join(sorted({word for value in found for word in value.split()}))
            assert wire.ask("RESPKV", "RESOLVE", key, context, merged) == b"OK"
            assert wire.ask("GET", key) == merged
    wait_in_step(cluster, KEYS)
    for node in cluster.nodes:
        wait_until("no key has siblings", lambda node=node: node.info("respkv")["respkv_keys_with_siblings"] == "0")  # type: ignore[misc]


def test_with_siblings_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    acknowledged, lost = play(tmp_path, "siblings")
    print(f"siblings: {lost} of {acknowledged} acknowledged writes are lost")  # noqa: T201 - the README tells it
    assert lost == 0


def test_what_last_write_wins_loses_is_measured(tmp_path: Path) -> None:
    acknowledged, lost = play(tmp_path, "lww")
    print(f"lww: {lost} of {acknowledged} acknowledged writes are lost ({100 * lost / acknowledged:.0f} %)")  # noqa: T201 - the README tells it
    assert 0 < lost < acknowledged
