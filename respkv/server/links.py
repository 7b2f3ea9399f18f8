"""One task per peer that keeps this node's link to it: dial, prove, hand over to the reactor, wait until it breaks, again."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import trio

from respkv.errors import PeerProtocolError
from respkv.server.channels import OutgoingLink
from respkv.transport.handshake import CHALLENGE_BYTES, NONCE_BYTES, Dialler

if TYPE_CHECKING:
    from respkv.membership.members import MemberAddress
    from respkv.server.reactor import Reactor

# Shorter than a SYN back-off of a second: a network that heals must be noticed at once.
HANDSHAKE_S = 0.9
PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 0.3


async def keep_link(reactor: Reactor, peer: MemberAddress, *, source_host: str) -> None:
    """Keep the link to one peer, for as long as the node runs. A node dials from its own bound address."""
    pause_s = PAUSE_MIN_S
    complaint = ""
    while True:
        try:
            link = await _dial(reactor, peer, source_host=source_host)
        except (OSError, PeerProtocolError, trio.BrokenResourceError, trio.TooSlowError) as error:
            if is_refusal(error):
                reactor.refused(peer.node)
            elif str(error) != complaint:
                complaint = str(error)
                reactor.on_event("warning", f"no link to {peer.host}:{peer.cluster_port}: {complaint or 'timed out'}")
        else:
            pause_s, complaint = PAUSE_MIN_S, ""
            reactor.adopt_link(link)
            await link.closed.wait()
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


def is_refusal(error: Exception) -> bool:
    """Whether nobody listens at the other end. Trio tries every address of a name, and tells the reasons in a group."""
    return isinstance(error.__cause__, ExceptionGroup) and error.__cause__.split(ConnectionRefusedError)[1] is None


async def _dial(reactor: Reactor, peer: MemberAddress, *, source_host: str) -> OutgoingLink:
    with trio.fail_after(HANDSHAKE_S):
        stream = await trio.open_tcp_stream(peer.host, peer.cluster_port, local_address=source_host or None)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialler = Dialler(secret=reactor.secret, me=reactor.node.me, peer=peer.node, nonce=os.urandom(NONCE_BYTES))
            await stream.send_all(dialler.hello())
            challenge = b""
            while len(challenge) < CHALLENGE_BYTES:
                data = await stream.receive_some(CHALLENGE_BYTES - len(challenge))
                if not data:
                    msg = "turned away in the handshake (another cluster-secret, or not the node that was meant)"
                    raise PeerProtocolError(msg)
                challenge += data
            await stream.send_all(dialler.answer(challenge))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    # The descriptor leaves trio's care: from here on the reactor's epoll watches it.
    duplicate = socket.socket(fileno=os.dup(stream.socket.fileno()))
    duplicate.setblocking(False)
    await trio.aclose_forcefully(stream)
    return OutgoingLink(reactor, duplicate, peer=peer.node)
