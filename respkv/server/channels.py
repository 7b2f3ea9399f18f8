"""The sockets of a node, one class for each kind: what happens when one is readable or writable."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from respkv.errors import PeerProtocolError
from respkv.server import turns
from respkv.transport.bounds import LONG_BYTES
from respkv.transport.handshake import NONCE_BYTES, Listener
from respkv.transport.packets import PacketReader, cut

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.server.reactor import Reactor

CLIENT_READ_BYTES = 65536
PEER_READ_BYTES = 262144
PEER_READS_PER_TURN = 4
HANDSHAKE_S = 5.0
ACCEPTS_PER_TURN_MAX = 64
FIRST_REPLIES_BYTES = 16 << 10
"""What strangers may leave unread beyond their limit: they are on their way, and Redis does not count its first buffer either."""
# One buffer for all peers: a fresh one of this size for each read would be mapped and unmapped by the kernel every time.
_INBOX = bytearray(PEER_READ_BYTES)
_INBOX_VIEW = memoryview(_INBOX)
READ = select.EPOLLIN
WRITE = select.EPOLLOUT


def keep_alive(connection: socket.socket, interval_s: int) -> None:
    """`tcp-keepalive`: a peer that has vanished is noticed after about twice this time; 0 is never."""
    if interval_s:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(interval_s // 3, 1))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def unacknowledged_bytes(connection: socket.socket) -> int:
    """What the kernel keeps of what was sent, because the other side has not taken it."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(size)


def forget_unsent(connection: socket.socket) -> None:
    """What the other side has not taken when the socket is closed is dropped, instead of being sent whenever it can be."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class WakeChannel:
    """The event descriptor by which other tasks end the reactor's wait."""

    __slots__ = ("_reactor", "descriptor", "interest")

    def __init__(self, reactor: Reactor, descriptor: int) -> None:
        """Watch a descriptor."""
        self._reactor = reactor
        self.descriptor = descriptor
        self.interest = READ

    def ready(self, mask: int) -> None:
        """Somebody posted an arrival."""
        self._reactor.woke()


class ListenerChannel:
    """A listening socket."""

    __slots__ = ("_for_peers", "_reactor", "descriptor", "interest", "socket")

    def __init__(self, reactor: Reactor, listener: socket.socket, *, for_peers: bool) -> None:
        """Accept clients, or peers."""
        self._reactor = reactor
        self._for_peers = for_peers
        self.socket = listener
        self.descriptor = listener.fileno()
        self.interest = READ

    def ready(self, mask: int) -> None:
        """Connections wait."""
        reactor = self._reactor
        for _ in range(ACCEPTS_PER_TURN_MAX):
            try:
                accepted, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                reactor.pause_listener(self, str(error))
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(accepted, reactor.settings.tcp_keepalive)
            name = name_of(address)
            if self._for_peers:
                reactor.add(PeerChannel(reactor, accepted, address=name))
            else:
                reactor.accept_client(accepted, name)


class ClientChannel:
    """A client's socket."""

    __slots__ = ("_closing", "_ended", "_out", "_reactor", "_soft_since", "client_id", "descriptor", "interest", "socket")

    def __init__(self, reactor: Reactor, accepted: socket.socket, *, client_id: int) -> None:
        """Serve an accepted socket."""
        self._reactor = reactor
        self.socket = accepted
        self.descriptor = accepted.fileno()
        self.interest = READ
        self.client_id = client_id
        self._out = bytearray()
        self._closing = False
        self._ended = False
        self._soft_since: float | None = None

    def ready(self, mask: int) -> None:
        """Bytes can be read or written."""
        if mask & WRITE:
            self._flush()
            if not mask & READ:
                return
        reactor = self._reactor
        if self._ended:
            # Nobody is left to read, either.
            reactor.close_client(self)
            return
        try:
            data = self.socket.recv(min(CLIENT_READ_BYTES, reactor.settings.turn_bytes_max))
        except BlockingIOError:
            return
        except OSError:
            reactor.close_client(self)
            return
        if data:
            reactor.arrivals.append((turns.CLIENT_DATA, self.client_id, data))
            reactor.read.append(self)
        else:
            # `printf ... | nc` shuts its side at once, and then reads the replies.
            self._ended = True
            self.pause()
            reactor.arrivals.append((turns.CLIENT_ENDED, self.client_id))

    def send(self, replies: list[bytes]) -> None:
        """Send replies, or keep what the socket does not take."""
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        self._reactor.node.statistics.net_output_bytes += len(data)
        if self._out:
            self._out += data
            self._check_limits()
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._reactor.close_client(self)
            return
        if sent < len(data):
            self._out += memoryview(data)[sent:]
            self._reactor.modify(self, self.interest | WRITE)
            self._check_limits()
        elif self._reactor.settings.requirepass:
            self._check_limits()

    def _flush(self) -> None:
        out = self._out
        if out:
            try:
                sent = self.socket.send(memoryview(out)[: 1 << 20])
            except BlockingIOError:
                return
            except OSError:
                self._reactor.close_client(self)
                return
            del out[:sent]
        self._check_limits()
        if not out and self.descriptor in self._reactor.channels:
            self._reactor.modify(self, self.interest & ~WRITE)
            if self._closing:
                self._reactor.close_client(self)

    def _check_limits(self) -> None:
        """Whoever does not read what it asked for is closed, as Redis does."""
        size = len(self._out)
        session = self._reactor.node.clients.get(self.client_id)
        if session is not None:
            session.out_bytes = size
        limit = self._reactor.settings.client_output_buffer_limit.normal
        too_big = bool(limit.hard_bytes) and size > limit.hard_bytes
        if limit.soft_bytes and size > limit.soft_bytes:
            now = time.monotonic()
            self._soft_since = self._soft_since or now
            too_big = too_big or now - self._soft_since > limit.soft_s
        else:
            self._soft_since = None
        if too_big:
            self._close_unread(size, "client-output-buffer-limit")
        elif session is not None and not session.authenticated:
            size += unacknowledged_bytes(self.socket)
            if size > self._reactor.settings.unauthenticated_output_buffer_limit + FIRST_REPLIES_BYTES:
                self._close_unread(size, "unauthenticated-output-buffer-limit")

    def _close_unread(self, size: int, directive: str) -> None:
        self._reactor.node.statistics.output_limit_closes_total += 1
        self._reactor.on_event("warning", f"closing client {self.client_id}: {size} bytes of replies unread ({directive})")
        self._reactor.close_client(self)

    def close_when_sent(self) -> None:
        """Close behind the last reply."""
        self._closing = True
        if not self._out:
            self._reactor.close_client(self)

    def pause(self) -> None:
        """Read no further for now."""
        self._reactor.modify(self, self.interest & ~READ)

    def unpause(self) -> None:
        """Read again."""
        if self.descriptor in self._reactor.channels and not self._ended:
            self._reactor.modify(self, self.interest | READ)


class PeerChannel:
    """A link that another node opened to this one: frames come in, nothing goes out but the handshake."""

    __slots__ = ("_handshake", "_reactor", "_reader", "address", "descriptor", "interest", "opened", "peer", "socket")

    def __init__(self, reactor: Reactor, accepted: socket.socket, *, address: str) -> None:
        """Whoever it is has to prove itself first."""
        self._reactor = reactor
        self.socket = accepted
        self.descriptor = accepted.fileno()
        self.interest = READ
        self.address = address
        self.opened = time.monotonic()
        self.peer: NodeId | None = None
        self._handshake = Listener(reactor.secret, me=reactor.node.me, nonce=reactor.nonce(NONCE_BYTES))
        self._reader: PacketReader | None = None

    def ready(self, mask: int) -> None:
        """Bytes can be read."""
        if self.peer is None:
            self._authenticate()
            return
        arrivals = self._reactor.arrivals
        reader, peer = self._reader, self.peer
        assert reader is not None
        for _ in range(PEER_READS_PER_TURN):
            try:
                count = self.socket.recv_into(_INBOX)
            except BlockingIOError:
                return
            except OSError as error:
                self._reactor.close_incoming(self, str(error))
                return
            if not count:
                self._reactor.close_incoming(self, "closed")
                return
            data = bytes(_INBOX_VIEW[:count])
            self._reactor.node.statistics.peer_input_bytes += len(data)
            try:
                for frame in reader.feed(data):
                    arrivals.append((turns.PEER_FRAME, peer, frame))
            except PeerProtocolError as error:
                self._reactor.close_incoming(self, str(error))
                return
            if count < PEER_READ_BYTES:
                return

    def _authenticate(self) -> None:
        try:
            data = self.socket.recv(4096)
            if not data:
                self._reactor.close_incoming(self, "closed before it proved itself")
                return
            answer = self._handshake.feed(data)
            if answer:
                self.socket.send(answer)
            if self._handshake.peer is None:
                return
            if not self._reactor.is_member(self._handshake.peer):
                self._reactor.close_incoming(self, "not a member of this cluster")
                return
            self.peer = self._handshake.peer
            self._reader = PacketReader(self._reactor.frame_bytes_max())
            self._reactor.adopt_incoming(self, self.peer)
            if self._handshake.rest:
                for frame in self._reader.feed(self._handshake.rest):
                    self._reactor.arrivals.append((turns.PEER_FRAME, self.peer, frame))
        except BlockingIOError:
            return
        except (OSError, PeerProtocolError) as error:
            self._reactor.close_incoming(self, str(error))


class OutgoingLink:
    """This node's link to a peer: frames go out."""

    __slots__ = (
        "_control_count",
        "_queue",
        "_queued_bytes",
        "_reactor",
        "_told_bytes",
        "closed",
        "descriptor",
        "interest",
        "peer",
        "socket",
    )

    def __init__(self, reactor: Reactor, connected: socket.socket, *, peer: NodeId) -> None:
        """A queue longer than the reactor's `link_bytes_max` is an answer: the peer is as good as away."""
        self._reactor = reactor
        self.socket = connected
        self.descriptor = connected.fileno()
        self.interest = READ
        self.peer = peer
        self.closed = trio.Event()
        self._queue: deque[bytes | memoryview] = deque()
        self._queued_bytes = 0
        self._told_bytes = 0
        self._control_count = 0
        """Packets of the control channel behind the first of the queue, which may be half sent."""

    @property
    def queued_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._queued_bytes

    def ready(self, mask: int) -> None:
        """The queue can go on, or the peer has closed."""
        if mask & ~WRITE:
            try:
                if not self.socket.recv(4096):
                    self._reactor.close_link(self, "closed by the peer")
                    return
            except BlockingIOError:
                pass
            except OSError as error:
                self._reactor.close_link(self, str(error))
                return
        if mask & WRITE:
            self._flush()

    def send(self, frame: bytes) -> None:
        """Send a frame, or queue what the socket does not take."""
        packets = cut(frame)
        self._reactor.node.statistics.peer_output_bytes += len(frame)
        if self._queue or len(packets) > 1:
            self._queue.extend(packets)
            self._queued_bytes += sum(map(len, packets))
            self._flush()
            return
        self._send_now(packets[0])

    def send_control(self, frame: bytes) -> None:
        """Send a frame of the control channel: ahead of all data but what is half sent, behind what went before it on that channel."""
        packets = cut(frame, control=True)
        self._reactor.node.statistics.peer_output_bytes += len(frame)
        if not self._queue and len(packets) == 1:
            self._send_now(packets[0])
            return
        for packet in packets:
            if self._queue:
                self._control_count += 1
            self._queue.insert(self._control_count, packet)
            self._queued_bytes += len(packet)
        self._flush()

    def _send_now(self, packet: bytes) -> None:
        try:
            sent = self.socket.send(packet)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._reactor.close_link(self, str(error))
            return
        if sent < len(packet):
            rest = memoryview(packet)[sent:]
            self._queue.append(rest)
            self._queued_bytes += len(rest)
            self._reactor.modify(self, READ | WRITE)

    def _flush(self) -> None:
        queue = self._queue
        while queue:
            packet = queue[0]
            try:
                sent = self.socket.send(packet)
            except BlockingIOError:
                break
            except OSError as error:
                self._reactor.close_link(self, str(error))
                return
            self._queued_bytes -= sent
            if sent < len(packet):
                queue[0] = memoryview(packet)[sent:]
                break
            queue.popleft()
            self._control_count = max(self._control_count - 1, 0)
        if self._queued_bytes > self._reactor.link_bytes_max():
            self._reactor.close_link(self, "its queue is full (peer-queue-limit)")
            return
        self._reactor.modify(self, READ | WRITE if queue else READ)
        told = self._queued_bytes if self._queued_bytes > LONG_BYTES else 0
        if told != self._told_bytes:
            self._told_bytes = told
            self._reactor.arrivals.append((turns.PEER_BACKLOG, self.peer, told))


def name_of(address: tuple[object, ...]) -> str:
    """HOST:PORT, as Redis writes addresses."""
    host = str(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
