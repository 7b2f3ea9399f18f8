"""Which clients are let in, what limits they are held to, and how they leave. Pure.

Every limit has a directive; whoever breaks one is answered with Redis's words, or closed where Redis says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.resp.reader import RequestReader
from respkv.server.policy import PROTECTED, is_loopback_peer
from respkv.server.session import Session

if TYPE_CHECKING:
    from respkv.commands.context import NodeStatistics
    from respkv.config.settings import Settings
    from respkv.server.dispatch import Dispatcher
    from respkv.server.turns import Departures
    from respkv.transport.turn import Turn

STOPPING = b"-LOADING this node is shutting down\r\n"
FULL = b"-ERR max number of clients reached\r\n"
BULK_BYTES_MIN = 4096
ARGUMENTS_MIN = 1024


class Admission:
    """The clients of a node."""

    __slots__ = ("_dispatcher", "_settings", "_statistics", "_turn", "clients", "is_closed")

    def __init__(
        self, *, settings: Settings, dispatcher: Dispatcher, statistics: NodeStatistics, turn: Turn, clients: dict[int, Session]
    ) -> None:
        """`clients` is shared with those who look clients up."""
        self._settings = settings
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._turn = turn
        self.clients = clients
        self.is_closed = False
        """Whether the node is about to stop: nobody is let in, and nothing further is read."""

    def open(self, out: Departures, client_id: int, address: str, *, local_address: str) -> None:
        """A client connected: let it in, or tell it why not."""
        settings = self._settings
        self._statistics.connections_received_total += 1
        refusal = self._refusal(address)
        if refusal is not None:
            self._statistics.connections_rejected_total += 1
            out.replies.append((client_id, [refusal]))
            out.deferred_closes.append(client_id)
            return
        reader = RequestReader(authenticated=not settings.requirepass)
        self._limit(reader)
        session = Session(client_id, dispatcher=self._dispatcher, reader=reader, address=address, local_address=local_address)
        session.authenticated = not settings.requirepass
        session.settle()
        self.clients[client_id] = session

    def _refusal(self, address: str) -> bytes | None:
        settings = self._settings
        if self.is_closed:
            return STOPPING
        # Who has left, but is not yet closed, takes nobody's place: clients reconnect at the limit.
        if len(self.clients) >= settings.maxclients <= sum(not session.is_over() for session in self.clients.values()):
            return FULL
        if settings.protected_mode and not settings.requirepass and not is_loopback_peer(address):
            return PROTECTED
        return None

    def _limit(self, reader: RequestReader) -> None:
        reader.bulk_bytes_max = max(self._settings.proto_max_bulk_len, BULK_BYTES_MIN)
        reader.arguments_max = max(self._settings.proto_max_multibulk_len, ARGUMENTS_MIN)
        reader.unauthenticated_count_max = self._settings.unauthenticated_multibulk_max
        reader.unauthenticated_bulk_bytes_max = self._settings.unauthenticated_bulk_max

    def settings_changed(self) -> None:
        """Hold those who are here to the new limits."""
        for session in self.clients.values():
            if session.reader is not None:
                self._limit(session.reader)

    def receive(self, out: Departures, client_id: int, data: bytes) -> None:
        """Bytes of a client."""
        session = self.clients.get(client_id)
        if session is None or self.is_closed:
            return
        self._statistics.net_input_bytes += len(data)
        session.receive(data)
        reader = session.reader
        assert reader is not None
        if reader.pending_bytes:
            settings = self._settings
            limit = settings.client_query_buffer_limit if session.authenticated else settings.unauthenticated_query_buffer_limit
            if limit and reader.pending_bytes > limit:
                self._turn.events.append(
                    ("warning", f"closing client {client_id}: its unfinished request has {reader.pending_bytes} bytes")
                )
                self.close(out, client_id)

    def ended(self, client_id: int) -> None:
        """A client will send nothing more: what it asked for is answered, then its connection is closed."""
        session = self.clients.get(client_id)
        if session is not None:
            session.end()

    def gone(self, client_id: int) -> None:
        """A client has closed its connection; what it began goes on without it."""
        session = self.clients.pop(client_id, None)
        if session is not None:
            self._silence(session)

    def close(self, out: Departures, client_id: int) -> None:
        """Close a client's connection at once."""
        if client_id in self.clients:
            self.gone(client_id)
            out.closes.append(client_id)

    def _silence(self, session: Session) -> None:
        session.closing = True
        session.settle()
        session.backlog.clear()

    def break_off(self, out: Departures, session: Session) -> bool:
        """Bytes that are no requests came: answer what came before them, then the error, then close.

        Returns False while commands that came before them have not begun: then it is to be called again.
        """
        reader = session.reader
        assert reader is not None
        if session.closing or session.id not in self.clients:
            return True
        if session.backlog:
            return False
        self._statistics.protocol_errors_total += 1
        assert reader.error is not None
        session.reply(reader.error.reply())
        session.closing = True
        session.settle()
        replies = session.flushed()
        if replies:
            out.replies.append((session.id, replies))
        if not session.pending:
            out.deferred_closes.append(session.id)
        return True
