"""Clients: connections to random nodes that send pipelines and note what was answered."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import TYPE_CHECKING, Protocol

import hiredis

from respkv.simulation.history import History, Outcome, Request
from respkv.simulation.schedule import TINY_S

if TYPE_CHECKING:
    from respkv.simulation.process import Process
    from respkv.simulation.workload import Workload
    from respkv.simulation.world import World

RECONNECT_S = (0.01, 0.3)
GIVE_UP_S = 20.0
"""A client that hears nothing for so long hangs up: a dark machine does not even reset its connections."""
EAGER_RATIO = 0.2
"""How often a client sends more before everything is answered."""
LEAVE_RATIO = 0.05
READER_PATIENCE_S = 10.0
READER_STEP_S = 0.002
SPLIT_RATIO = 0.1


def packed(arguments: list[bytes]) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)


class Owner(Protocol):
    """Whose connection it is."""

    world: World
    rng: random.Random
    history: History

    def on_answer(self, request: Request) -> None:
        """A reply has come."""

    def on_answers(self, connection: Connection) -> None:
        """No more replies have come for now."""

    def on_closed(self) -> None:
        """The connection is gone."""


class Connection:
    """A client's end of one connection, until either side closes it."""

    def __init__(self, client: Owner, process: Process, number: int) -> None:
        """Nothing was sent yet."""
        self._client = client
        self._world = client.world
        self.process = process
        self.incarnation = process.incarnation
        self.number = number
        self.is_open = True
        self.waiting: deque[Request] = deque()
        self._reader = hiredis.Reader()
        self._sent = 0
        self._last_sent_at = 0.0
        self._last_received_at = 0.0
        self._answered_at = 0.0
        self.client_id = process.open_channel(self)

    @property
    def is_alive(self) -> bool:
        """Whether both ends are still there."""
        return self.is_open and self.process.is_running(self.incarnation)

    def send(self, commands: list[list[bytes]]) -> None:
        """Send commands in one packet, or in pieces cut anywhere."""
        world, rng = self._world, self._client.rng
        now = world.schedule.now
        transaction: list[Request] | None = None
        for arguments in commands:
            request = self._client.history.begin(
                connection=self.number, order=self._sent, node=self.process.index, arguments=arguments, now=now
            )
            self._sent += 1
            self.waiting.append(request)
            if arguments[0] == b"EXEC":
                request.transaction, transaction = transaction, None
            if transaction is not None:
                transaction.append(request)
                request.is_queued = True
            if arguments[0] == b"MULTI":
                transaction = []
        data = b"".join(map(packed, commands))
        pieces = [data]
        if rng.random() < SPLIT_RATIO and len(data) > 2:
            cut = rng.randint(1, len(data) - 1)
            pieces = [data[:cut], data[cut:]]
        for piece in pieces:
            self._last_sent_at = max(self._last_sent_at + TINY_S, now + world.client_delay())
            world.schedule.at(self._last_sent_at, self.process.client_data, self.incarnation, self.client_id, piece)

    def receive(self, data: bytes) -> None:
        """The node sends bytes: they arrive a moment later, unless the connection is gone by then."""
        world = self._world
        self._last_received_at = max(self._last_received_at + TINY_S, world.schedule.now + world.client_delay())
        world.schedule.at(self._last_received_at, self._arrived, data)

    def _arrived(self, data: bytes) -> None:
        if not self.is_open:
            return
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._answered(reply)
        self._client.on_answers(self)

    def _answered(self, reply: object) -> None:
        now = self._world.schedule.now
        if not self.waiting:
            self._world.problems.append(f"connection {self.number} got a reply that nobody asked for: {reply!r}")
            return
        request = self.waiting.popleft()
        request.expected_after = self._answered_at
        self._answered_at = now
        if request.is_queued:
            # Its reply comes with that of EXEC, unless it was not even queued.
            if isinstance(reply, hiredis.ReplyError):
                request.answer(reply, now)
        else:
            request.answer(reply, now)
            self._client.on_answer(request)
            replies = reply if isinstance(reply, list) else itertools.repeat(reply)
            for queued, inner in zip(request.transaction or (), replies, strict=False):
                if queued.outcome is Outcome.OPEN:
                    queued.answer(inner, now)
        if self._world.trace.is_kept:
            self._world.note(str(request))

    def hang_up(self) -> None:
        """The node has closed the connection: what was not answered never will be."""
        self._world.schedule.after(TINY_S, self._closed)

    def _closed(self) -> None:
        if self.is_open:
            self.is_open = False
            self._client.on_closed()

    def close(self) -> None:
        """Close from the client's side."""
        if self.is_open:
            self.is_open = False
            world = self._world
            assert self.client_id is not None
            world.schedule.after(world.client_delay(), self.process.close_channel, self.incarnation, self.client_id)


class Client:
    """One client: it connects, sends, waits, and goes elsewhere when it is cut off."""

    def __init__(self, world: World, workload: Workload, rng: random.Random, *, number: int, think_s: float) -> None:
        """`think_s` is the mean pause between packets."""
        self._number = number
        self.world = world
        self.rng = rng
        self.history = world.history
        self._workload = workload
        self._think_s = think_s
        self._connection: Connection | None = None
        self._is_thinking = False
        self._heard_at = 0.0
        self.is_stopped = False

    def start(self) -> None:
        """Connect, and go on for as long as the client is not stopped."""
        self._connect()

    def stop(self) -> None:
        """Send nothing more; what was sent is still waited for."""
        self.is_stopped = True

    def _connect(self) -> None:
        world = self.world
        if self.is_stopped:
            return
        process = self.rng.choice(world.processes)
        if process.node is None:
            world.schedule.after(self.rng.uniform(*RECONNECT_S), self._connect)
            return
        self._connection = Connection(self, process, len(world.connections))
        world.connections.append(self._connection)
        self._think()

    def _think(self) -> None:
        if not self._is_thinking:
            self._is_thinking = True
            self.world.schedule.after(self.rng.expovariate(1.0 / self._think_s), self._act)

    def _act(self) -> None:
        self._is_thinking = False
        connection = self._connection
        if self.is_stopped or connection is None or not connection.is_open:
            return
        if self.rng.random() < LEAVE_RATIO and not connection.waiting:
            connection.close()
            self._connect()
            return
        connection.send(self._workload.batch(self._number))
        self._heard_at = self.world.schedule.now
        self.world.schedule.after(GIVE_UP_S, self._give_up, connection, self._heard_at)
        if self.rng.random() < EAGER_RATIO:
            self._think()

    def on_answer(self, request: Request) -> None:
        """A reply has come."""
        self._workload.heard(request)

    def on_answers(self, connection: Connection) -> None:
        """No more replies have come for now."""
        self._heard_at = self.world.schedule.now
        if not connection.waiting:
            self._think()

    def on_closed(self) -> None:
        """The connection is gone."""
        self._connection = None
        self.world.schedule.after(self.rng.uniform(*RECONNECT_S), self._connect)

    def _give_up(self, connection: Connection, since: float) -> None:
        if connection.is_open and connection.waiting and self._heard_at == since:
            if connection.is_alive:
                self.world.problems.append(f"no answer within {GIVE_UP_S} s: {connection.waiting[0]}")
            connection.close()
            self.on_closed()

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it sent is unanswered."""
        return self._connection is None or not self._connection.is_open or not self._connection.waiting


class Reader:
    """A client that asks one thing after the other, and whose requests are nobody's history."""

    def __init__(self, world: World, process: Process) -> None:
        """Connect to one node."""
        self.world = world
        self.rng = random.Random(0)
        self.history = History()
        self.connection = Connection(self, process, len(world.connections))

    def ask(self, *commands: list[bytes]) -> list[object]:
        """Send commands, wait for the replies."""
        schedule = self.world.schedule
        begun = len(self.history.requests)
        self.connection.send(list(commands))
        end = schedule.now + READER_PATIENCE_S
        while self.connection.waiting and schedule.now < end:
            schedule.run_until(schedule.now + READER_STEP_S)
        return [request.reply for request in self.history.requests[begun:]]

    def on_answer(self, request: Request) -> None:
        """Nothing follows from it."""

    def on_answers(self, connection: Connection) -> None:
        """Nothing follows from them."""

    def on_closed(self) -> None:
        """Nothing follows from that either."""
