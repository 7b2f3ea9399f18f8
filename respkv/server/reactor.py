"""All sockets of a node in one epoll object, served in turns by one task.

A turn: take what every ready socket has, hand it to the node, do what the node says. Costs that other servers
pay per request (a task switch, a system call, a log append) are paid here per turn.

Rule 1: the log is appended to before any frame or reply of its turn leaves.
Rule 2: what the node decides is obeyed, nothing is decided here but when to stop reading and when a buffer is too full.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from respkv.server import turns
from respkv.server.channels import ClientChannel, ListenerChannel, OutgoingLink, PeerChannel, WakeChannel, forget_unsent, name_of
from respkv.transport import bounds

if TYPE_CHECKING:
    from respkv.config.settings import Settings
    from respkv.ids import NodeId
    from respkv.server.node import Node

EVENTS_PER_TURN_MAX = 512
ACCEPTS_PER_TURN_MAX = 64
ACCEPT_PAUSE_S = 0.1
TASKS_WAIT_S = 0.001
"""How long other tasks of a loaded node may have to wait for their turn. What the disk has for the node is never kept waiting."""


class DiskShell(Protocol):
    """What the reactor needs of the disk."""

    def obey(self, departures: turns.Departures) -> None:
        """Append to the log at once; arrange for everything else that concerns the disk."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way that ends in an arrival."""


class Reactor:
    """Owns the sockets of a node and runs its turns."""

    def __init__(self, *, node: Node, disk: DiskShell, settings: Settings, secret: bytes, on_event: Callable[[str, str], None]) -> None:
        """`on_event` writes a line of the node's log file: (level, sentence)."""
        self.node = node
        self.disk = disk
        self.settings = settings
        self.secret = secret
        self.on_event = on_event
        self.epoll = select.epoll()
        self.channels: dict[int, ClientChannel | PeerChannel | OutgoingLink | ListenerChannel | WakeChannel] = {}
        self.clients: dict[int, ClientChannel] = {}
        self.incoming: dict[NodeId, PeerChannel] = {}
        self.links: dict[NodeId, OutgoingLink] = {}
        self.arrivals: list[turns.Arrival] = []
        self.read: list[ClientChannel] = []
        self.paused: set[ClientChannel] = set()
        self.exit_code: int | None = None
        self._next_client_id = 0
        self._wake_at = 0.0
        self._polled_at = 0.0
        """When there was last a look at the sockets."""
        self._shared_at = 0.0
        """When other tasks last had a chance to run."""
        self._paused_listeners: list[tuple[float, ListenerChannel]] = []
        self._client_listeners: list[socket.socket] = []
        """Those that wait until the node takes clients. Who connects meanwhile waits with them."""
        self._woken = False
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.add(WakeChannel(self, self._wake_descriptor))

    # --- sockets

    def add(self, channel: ClientChannel | PeerChannel | OutgoingLink | ListenerChannel | WakeChannel) -> None:
        """Watch a socket."""
        self.channels[channel.descriptor] = channel
        self.epoll.register(channel.descriptor, channel.interest)

    def modify(self, channel: ClientChannel | PeerChannel | OutgoingLink, interest: int) -> None:
        """Watch a socket for something else."""
        if channel.interest != interest:
            channel.interest = interest
            self.epoll.modify(channel.descriptor, interest)

    def remove(self, channel: ClientChannel | PeerChannel | OutgoingLink | ListenerChannel) -> None:
        """Stop watching, and close."""
        if self.channels.pop(channel.descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self.epoll.unregister(channel.descriptor)
            channel.socket.close()

    def listen(self, listener: socket.socket, *, for_peers: bool) -> None:
        """Accept connections of peers, or those of clients as soon as the node takes them."""
        listener.setblocking(False)
        if for_peers:
            self.add(ListenerChannel(self, listener, for_peers=True))
        else:
            self._client_listeners.append(listener)

    def pause_listener(self, channel: ListenerChannel, reason: str) -> None:
        """No descriptor is left: try again in a moment rather than spin."""
        self.on_event("warning", f"cannot accept a connection: {reason}")
        self.epoll.unregister(channel.descriptor)
        self._paused_listeners.append((time.monotonic() + ACCEPT_PAUSE_S, channel))

    def accept_client(self, accepted: socket.socket, address: str) -> None:
        """A client connected."""
        self._next_client_id += 1
        channel = ClientChannel(self, accepted, client_id=self._next_client_id)
        self.clients[channel.client_id] = channel
        self.add(channel)
        self.arrivals.append((turns.CLIENT_OPENED, channel.client_id, address, name_of(accepted.getsockname())))

    def close_client(self, channel: ClientChannel) -> None:
        """A client is gone, or is to go."""
        if self.clients.pop(channel.client_id, None) is not None:
            self.paused.discard(channel)
            self.remove(channel)
            self.arrivals.append((turns.CLIENT_CLOSED, channel.client_id))

    # --- peers

    def nonce(self, size: int) -> bytes:
        """Fresh random bytes."""
        return os.urandom(size)

    def is_member(self, peer: NodeId) -> bool:
        """Whether a node that proved itself belongs to this ring."""
        return any(member.node == peer for member in self.node.cluster.ring.members)

    def frame_bytes_max(self) -> int:
        """The longest frame that a peer may send."""
        return bounds.frame_bytes_max(self.settings.proto_max_bulk_len)

    def link_bytes_max(self) -> int:
        """How much may wait for a peer at the most, as the settings are now: the node reckons with the same."""
        return bounds.link_bytes_max(self.settings.peer_queue_limit, self.settings.proto_max_bulk_len)

    def adopt_incoming(self, channel: PeerChannel, peer: NodeId) -> None:
        """A peer has proved itself. A newer link of the same peer replaces the older one."""
        older = self.incoming.get(peer)
        self.incoming[peer] = channel
        if older is not None and older is not channel:
            self.remove(older)

    def close_incoming(self, channel: PeerChannel, reason: str) -> None:
        """A peer's link to this node broke, or a stranger is turned away."""
        self.remove(channel)
        if channel.peer is None:
            self.node.statistics.strangers_total += 1
            self.on_event("verbose", f"turned away {channel.address} on the cluster port: {reason}")
        elif self.incoming.get(channel.peer) is channel:
            del self.incoming[channel.peer]

    def adopt_link(self, link: OutgoingLink) -> None:
        """This node's link to a peer is authenticated."""
        self.links[link.peer] = link
        self.add(link)
        self.post((turns.PEER_OPENED, link.peer))

    def close_link(self, link: OutgoingLink, reason: str) -> None:
        """This node's link to a peer broke."""
        if self.links.get(link.peer) is link:
            del self.links[link.peer]
            # The node counts it as lost, and has hints for what must not be. A shutdown is another matter: see `close`.
            forget_unsent(link.socket)
            self.remove(link)
            self.post((turns.PEER_CLOSED, link.peer, reason))
            link.closed.set()

    def refused(self, peer: NodeId) -> None:
        """A peer's port refuses connections: evidence for the failure detector."""
        self.post((turns.PEER_CLOSED, peer, "refused"))

    # --- turns

    def post(self, arrival: turns.Arrival) -> None:
        """Hand something to the next turn, and see that there is one."""
        self.arrivals.append(arrival)
        if not self._woken:
            self._woken = True
            os.eventfd_write(self._wake_descriptor, 1)

    def woke(self) -> None:
        """The wake-up call arrived."""
        self._woken = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_descriptor)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the node wants to stop; then `exit_code` is set."""
        task_status.started()
        poll, monotonic = self.epoll.poll, time.monotonic
        while self.exit_code is None:
            events = poll(0, EVENTS_PER_TURN_MAX)
            now = monotonic()
            ready_since, self._polled_at = self._polled_at, now
            is_quiet = self.disk.is_quiet
            if not is_quiet or now > self._shared_at + TASKS_WAIT_S:
                # Also when a turn asked for the next one at once, as long commands do: other tasks must have theirs.
                self._shared_at = now
                await trio.lowlevel.checkpoint()
            if not events and not self.arrivals and self._wake_at > now:
                # A node under load waits for a few microseconds at a time. To let trio wait costs as much as a turn: so
                # the first moment is waited for right here, while nobody else has anything to do.
                events = poll(TASKS_WAIT_S, EVENTS_PER_TURN_MAX) if is_quiet else []
                if not events:
                    with trio.move_on_after(self._wake_at - now):
                        await trio.lowlevel.wait_readable(self.epoll.fileno())
                    events = poll(0, EVENTS_PER_TURN_MAX)
                ready_since = self._polled_at = monotonic()
            for descriptor, mask in events:
                channel = self.channels.get(descriptor)
                if channel is not None:
                    channel.ready(mask)
            self._turn(ready_since)

    def _turn(self, ready_since: float) -> None:
        arrivals, self.arrivals = self.arrivals, []
        started = time.monotonic()
        self.node.context.turn.late_s = started - ready_since
        departures = self.node.turn(started, time.time_ns() // 1_000_000, arrivals)
        self.disk.obey(departures)
        links = self.links
        if departures.frames:
            for peer, frame in departures.frames:
                link = links.get(peer)
                if link is not None:
                    link.send(frame)
        if departures.replies:
            clients = self.clients
            for client_id, replies in departures.replies:
                client = clients.get(client_id)
                if client is not None:
                    client.send(replies)
            self.node.pulse.busy_s += time.monotonic() - started
        if departures.control:
            for peer, frame in departures.control:
                link = links.get(peer)
                if link is not None:
                    link.send_control(frame)
        self._wake_at = departures.wake_at or 0.0
        self._rare(departures)
        if self.read or self.paused:
            self._throttle()

    def _rare(self, departures: turns.Departures) -> None:
        for client_id in departures.closes:
            client = self.clients.get(client_id)
            if client is not None:
                self.close_client(client)
        for client_id in departures.deferred_closes:
            client = self.clients.get(client_id)
            if client is not None:
                client.close_when_sent()
        for peer in departures.peer_closes:
            channel = self.incoming.get(peer)
            if channel is not None:
                self.close_incoming(channel, "malformed frame")
        for peer in departures.link_closes:
            link = self.links.get(peer)
            if link is not None:
                self.close_link(link, "mute")
        for level, text in departures.events:
            self.on_event(level, text)
        if departures.stop is not None:
            self.exit_code = departures.stop
        if self._client_listeners or self._paused_listeners:
            self._accept_due()

    def _accept_due(self) -> None:
        if self._client_listeners and self.node.topology.acquainted:
            for listener in self._client_listeners:
                self.add(ListenerChannel(self, listener, for_peers=False))
            self._client_listeners.clear()
        if self._paused_listeners:
            now = time.monotonic()
            due = [channel for when, channel in self._paused_listeners if when <= now]
            self._paused_listeners = [item for item in self._paused_listeners if item[0] > now]
            for channel in due:
                self.epoll.register(channel.descriptor, channel.interest)

    def _throttle(self) -> None:
        """Read no further from a connection whose commands wait."""
        sessions = self.node.clients
        limit = self.settings.client_in_flight_max
        for client in self.read:
            session = sessions.get(client.client_id)
            if session is not None and len(session.backlog) > limit:
                client.pause()
                self.paused.add(client)
        self.read.clear()
        for client in list(self.paused):
            session = sessions.get(client.client_id)
            if session is None or len(session.backlog) <= limit // 2:
                self.paused.discard(client)
                client.unpause()

    def close(self) -> None:
        """Close every socket. What was sent to peers is still to arrive."""
        for channel in list(self.channels.values()):
            if not isinstance(channel, WakeChannel):
                self.remove(channel)
        for listener in self._client_listeners:
            listener.close()
        self.epoll.close()
        os.close(self._wake_descriptor)
