"""What leaves for a peer: gossip passes data, and nothing passes what went before it on its own channel.

And what does not leave any more, when a link is given up.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from respkv.config.settings import Settings
from respkv.server import turns
from respkv.server.channels import OutgoingLink, unacknowledged_bytes
from respkv.server.reactor import Reactor
from respkv.transport.packets import PACKET_BYTES_MAX, PacketReader, cut

DATA = b"d" * (3 << 20)
GOSSIP = [b"first", b"g" * (2 * PACKET_BYTES_MAX + 1), b"second", b"h" * (PACKET_BYTES_MAX + 1), b"third"]


class Shell:
    """What a link needs of the reactor."""

    def __init__(self) -> None:
        self.node = SimpleNamespace(statistics=SimpleNamespace(peer_output_bytes=0))
        self.arrivals: list[Any] = []
        self.reasons: list[str] = []
        self.bytes_max = 1 << 30

    def link_bytes_max(self) -> int:
        return self.bytes_max

    def modify(self, link: OutgoingLink, interest: int) -> None:
        link.interest = interest

    def close_link(self, _link: OutgoingLink, reason: str) -> None:
        self.reasons.append(reason)


def received(link: OutgoingLink, theirs: socket.socket) -> list[bytes]:
    """Read all that a link has to send."""
    reader = PacketReader(1 << 30)
    frames: list[bytes] = []
    theirs.setblocking(False)
    while True:
        try:
            frames += reader.feed(theirs.recv(1 << 20))
        except BlockingIOError:
            if not link.queued_bytes:
                return frames
            link._flush()


@pytest.mark.parametrize("data", [[DATA], []], ids=["behind data", "alone"])
def test_gossip_arrives_whole_and_in_its_order(data: list[bytes]) -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            shell: Any = Shell()
            link = OutgoingLink(shell, ours, peer="ab" * 20)
            for frame in data:
                link.send(frame)
            for frame in GOSSIP[:3]:
                link.send_control(frame)
            first = received(link, theirs) if not data else []
            for frame in GOSSIP[3:]:
                link.send_control(frame)
            frames = first + received(link, theirs)
            assert [frame for frame in frames if frame != DATA] == GOSSIP
            assert frames[-1] == (DATA if data else GOSSIP[-1])
            assert shell.reasons == []

    trio.run(play)


def test_a_link_takes_as_much_as_the_settings_are_changed_to() -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            shell: Any = Shell()
            shell.bytes_max = 1 << 20
            link = OutgoingLink(shell, ours, peer="ab" * 20)
            shell.bytes_max = 1 << 22
            link.send(DATA)
            assert shell.reasons == []
            link.send(DATA)
            assert shell.reasons == ["its queue is full (peer-queue-limit)"]

    trio.run(play)


SMALL_BUFFER_BYTES = 64 << 10


@contextlib.contextmanager
def linked() -> Iterator[tuple[Reactor, OutgoingLink, socket.socket]]:
    """A reactor, its link to a peer, and the peer's end of it, which reads nothing for now."""
    node: Any = SimpleNamespace(statistics=SimpleNamespace(peer_output_bytes=0))
    disk: Any = None
    reactor = Reactor(node=node, disk=disk, settings=Settings(), secret=b"", on_event=lambda _level, _text: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        ours = socket.create_connection(listener.getsockname())
        ours.setblocking(False)
        theirs, _ = listener.accept()
    with theirs:
        theirs.settimeout(10)
        link = OutgoingLink(reactor, ours, peer="ab" * 20)
        reactor.adopt_link(link)
        yield reactor, link, theirs


def bytes_until_end(theirs: socket.socket) -> int:
    """How much a peer finds when it reads at last. Raises ConnectionResetError if that is not all."""
    count = 0
    while data := theirs.recv(1 << 20):
        count += len(data)
    return count


def test_what_the_kernel_still_holds_when_a_link_is_given_up_never_arrives() -> None:
    """The peer would take it for news, however late it comes."""

    async def play() -> None:
        with linked() as (reactor, link, theirs):
            link.send(DATA)
            assert unacknowledged_bytes(link.socket)
            reactor.close_link(link, "mute")
            with pytest.raises(ConnectionResetError):
                bytes_until_end(theirs)
            assert reactor.arrivals[-1] == (turns.PEER_CLOSED, link.peer, "mute")
            reactor.close()

    trio.run(play)


def test_what_was_sent_before_a_shutdown_arrives() -> None:
    async def play() -> None:
        with linked() as (reactor, link, theirs):
            link.send(DATA)
            sent = sum(map(len, cut(DATA))) - link.queued_bytes
            reactor.close()
            assert bytes_until_end(theirs) == sent

    trio.run(play)
