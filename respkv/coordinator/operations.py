"""Run a command that needs several rounds: a generator that yields what it wants and is resumed with what came. Pure.

A handler yields one of the steps below and gets its result:

    record, = yield Read([key])
    yield Write([(key, record)])
    answers = yield Ask(nodes, "key", b"k")        # {node: answer, or None if it did not answer in time}
    yield Until(condition, deadline)               # True, or False if the deadline came first
    yield Rest(until)                              # None, in a turn in which nothing arrives

and returns its encoded reply. A ClientError that it raises, or that a step raises into it, is its reply.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.coordinator.key_queue import KeyQueue, Ticket
from respkv.errors import ClientError, OverloadedError, PeerProtocolError, QuorumTimeoutError
from respkv.transport import border, frames

if TYPE_CHECKING:
    from respkv.config.quorums import Quorums
    from respkv.coordinator.coordinator import Coordinator
    from respkv.ids import NodeId

REST_PATIENCE_S = 0.005
"""A rest ends after so long even if there is no idle turn: who is never idle gives a twentieth of its time to work behind the scenes."""
INTERNAL_ERROR = b"-ERR internal error\r\n"
_TOO_LONG = OverloadedError("the command is more than may wait for one node (peer-queue-limit); nothing was done").reply()
_TOO_LONG_RESULT = OverloadedError("done, but the reply is more than may wait for one node (peer-queue-limit)").reply()
_decode_request = border.reader(tuple[bytes, bytes])


@dataclass(slots=True)
class Read:
    """Read these keys at the request's read quorum. Result: their records, in order; b"" where there is none."""

    keys: Sequence[bytes]


@dataclass(slots=True)
class Write:
    """Write these records at the request's write quorum. Result: None."""

    pairs: list[tuple[bytes, bytes]]
    seen: Mapping[bytes, bytes | None] | None = None
    """Of the keys that keep siblings: what their writer has seen; None: what this node holds. Their records are plain, and each
    replaces what was seen."""


@dataclass(slots=True)
class Ask:
    """Make a call of other nodes. Result: {node: answer, or None}. A call of this node itself is answered too."""

    nodes: Sequence[NodeId]
    name: str
    argument: bytes | Mapping[NodeId, bytes] = b""
    """The same for all nodes, or one for each."""
    timeout_s: float | None = None
    decode: Callable[[bytes], Any] = bytes
    """What makes an answer of the bytes that came. It raises PeerProtocolError for what no node answers. Errors stay bytes: b"-..."."""


@dataclass(slots=True)
class Until:
    """Wait for a condition, looked at once a turn. Result: whether it came true before the deadline (monotonic seconds)."""

    condition: Callable[[], bool]
    deadline: float


@dataclass(slots=True)
class Rest:
    """Wait until a moment (monotonic seconds), and for a turn in which nothing arrives and no other rest ends, but not much longer.

    What follows is work that nobody waits for. Result: None.
    """

    until: float


Step = Read | Write | Ask | Until | Rest
Steps = Generator[Step, Any, bytes]


class _Gathering:
    """The result of one step, while it comes in. Late parts of a step that failed are ignored."""

    __slots__ = ("error", "left", "operation", "over", "value")

    def __init__(self, operation: Operation, value: Any, left: int) -> None:
        self.operation: Operation | None = operation
        """None once the operation is over."""
        self.value = value
        self.left = left
        self.error: ClientError | None = None
        self.over = left == 0

    nil = b""

    def drain(self) -> None:
        """A connection's business."""

    def receive(self, index: int, record: bytes) -> None:
        """One of the records of a Read."""
        self.value[index] = record
        self.written()

    def answered(self, node: NodeId, answer: Any) -> None:
        """One of the answers of an Ask."""
        self.value[node] = answer
        self.written()

    def came(self, *, true: bool) -> None:
        """The end of an Until."""
        self.value = true
        self.written()

    def written(self) -> None:
        """One part of the step is done."""
        if self.over:
            return
        self.left -= 1
        if self.left == 0:
            self.over = True
            if self.operation is not None:
                self.operation.advance()

    def failed(self, error: ClientError) -> None:
        """A part failed: the error is thrown into the generator at once."""
        if self.over:
            return
        self.over = True
        self.error = error
        if self.operation is not None:
            self.operation.advance()


class Operation:
    """A generator on its way."""

    __slots__ = ("_gathering", "_runner", "_running", "client", "on_done", "quorum", "steps", "ticket", "write_by")

    def __init__(self, runner: Operations, steps: Steps, *, on_done: Callable[[bytes], None], quorum: Quorums | None, client: Any) -> None:
        """`on_done` gets the reply."""
        self.write_by = math.inf
        """From this moment on it begins no write."""
        self._runner = runner
        self.steps = steps
        self.on_done = on_done
        self.quorum = quorum
        self.client = client
        """Whose `last` are the batches of its last read or write; None where another node has the client."""
        self.ticket: Ticket | None = None
        self._gathering = _Gathering(self, None, 0)
        self._running = False

    def advance(self) -> None:
        """Run until a step whose result is not there yet, or to the end."""
        if self._running:
            return
        self._running = True
        try:
            while self._gathering.over:
                gathering = self._gathering
                step = self.steps.throw(gathering.error) if gathering.error is not None else self.steps.send(gathering.value)
                self._begin(step)
        except StopIteration as stop:
            self._done(stop.value)
        except ClientError as error:
            self._done(error.reply())
        except Exception as error:
            self._runner.internal_error(error)
            self._done(INTERNAL_ERROR)
        finally:
            self._running = False

    def _begin(self, step: Step) -> None:
        coordinator = self._runner.coordinator
        match step:
            case Read(keys):
                gathering = self._gathering = _Gathering(self, [b""] * len(keys), len(keys))
                coordinator.parking.when_loaded(self._local(keys), lambda: self._read(gathering, list(keys)))
            case Write(pairs, seen):
                gathering = self._gathering = _Gathering(self, None, 1)
                keys = self._local([key for key, _ in pairs])
                size = sum(len(record) for _, record in pairs) if keys else 0
                coordinator.parking.when_loaded(keys, lambda: self._write(gathering, pairs, seen), size)
            case Ask(nodes):
                gathering = self._gathering = _Gathering(self, dict.fromkeys(nodes), len(set(nodes)))
                self._runner.ask(gathering, step)
            case Until(condition, deadline):
                gathering = self._gathering = _Gathering(self, None, 1)
                self._runner.wait_until(gathering, condition, deadline)
            case Rest(until):
                gathering = self._gathering = _Gathering(self, None, 1)
                self._runner.rest(gathering, until)

    def _local(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        coordinator = self._runner.coordinator
        if coordinator.store.resident and not coordinator.parking.keys:
            return ()
        # All of them, if any has to be loaded: what is in memory now must still be there when the others have come.
        return () if all(map(coordinator.is_ready, keys)) else keys

    def _read(self, gathering: _Gathering, keys: list[bytes]) -> None:
        try:
            batches = self._runner.coordinator.read(gathering, keys, self.quorum)
        except ClientError as error:
            gathering.failed(error)
        else:
            if batches and self.client is not None:
                self.client.last = batches

    def _write(self, gathering: _Gathering, pairs: list[tuple[bytes, bytes]], seen: Mapping[bytes, bytes | None] | None) -> None:
        if self._runner.coordinator.turn.now >= self.write_by:
            gathering.failed(QuorumTimeoutError("the key's primary took too long, and wrote no more"))
            return
        try:
            if seen:
                pairs = self._runner.coordinator.succession.replaced(pairs, seen)
            batches = self._runner.coordinator.write(gathering, pairs, self.quorum)
        except ClientError as error:
            gathering.failed(error)
        else:
            if batches and self.client is not None:
                self.client.last = batches
            gathering.left += sum(not batch.instant for batch in batches)
            gathering.written()

    @property
    def has_started(self) -> bool:
        """Whether its turn with its keys has come."""
        return self.ticket is None or self.ticket.has_started

    def give_up_waiting(self) -> None:
        """It has waited long enough for other commands on its keys."""
        if not self.has_started:
            self._done(OverloadedError("other commands on this key took too long; nothing was done").reply())

    def _done(self, reply: bytes) -> None:
        self.steps.close()
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            self._runner.queue.leave(ticket)
        # Nothing is left for the garbage collector, which comes seldom: a long MGET holds much.
        self._gathering.operation = None
        self.on_done(reply)


class Call:
    """A call that another node makes of this one: `answer` sends the result."""

    __slots__ = ("answer", "argument", "came_at", "name", "sequence", "source")

    def __init__(
        self, source: NodeId, name: str, argument: bytes, answer: Callable[[bytes], None], *, came_at: float, sequence: int = 0
    ) -> None:
        """`source` is the node that calls; this node itself may. By `sequence` another node knows its call."""
        self.source = source
        self.name = name
        self.argument = argument
        self.answer = answer
        self.came_at = came_at
        self.sequence = sequence


class Operations:
    """The operations of a node, the calls they make, and the queues of the keys they work on."""

    def __init__(self, coordinator: Coordinator, *, serve: Callable[[Call], None], internal_error: Callable[[Exception], object]) -> None:
        """`serve` carries out a call that was made of this node."""
        self.coordinator = coordinator
        self.queue = KeyQueue()
        self.serve = serve
        self.internal_error = internal_error
        self._calls: dict[int, tuple[float, _Gathering, NodeId, Callable[[bytes], Any]]] = {}
        self._calls_due = math.inf
        """No call is late before."""
        self._conditions: list[tuple[_Gathering, Callable[[], bool], float]] = []
        self._resting: deque[tuple[_Gathering, float]] = deque()
        self._queued: deque[tuple[float, Operation]] = deque()
        """Commands that wait, or have waited, for others on their keys, and until when they do."""
        self.running_count = 0

    def start(
        self,
        steps: Steps,
        *,
        on_done: Callable[[bytes], None],
        quorum: Quorums | None = None,
        exclusive: Sequence[bytes] = (),
        client: Any = None,
        write_by: float = math.inf,
    ) -> None:
        """Run a generator. With `exclusive` keys it waits for its turn with each of them. `client` is told what became of it, by `last`.

        Whoever asks for it has given it up by `write_by`, and would be surprised by what it writes then.
        """

        def done(reply: bytes) -> None:
            self.running_count -= 1
            on_done(reply)

        operation = Operation(self, steps, on_done=done, quorum=quorum, client=client)
        operation.write_by = write_by
        if not exclusive:
            self.running_count += 1
            operation.advance()
            return
        ticket = operation.ticket = Ticket(exclusive, operation.advance)
        self.running_count += 1
        if not self.queue.enter(ticket):
            self.running_count -= 1
            raise OverloadedError("too many commands wait for this key; nothing was done")
        if not ticket.has_started:
            self._queued.append((self.coordinator.turn.now + self.coordinator.request_timeout_s, operation))

    def ask(self, gathering: _Gathering, step: Ask) -> None:
        """Make a call of every node that is a key of the gathering's value."""
        coordinator = self.coordinator
        turn = coordinator.turn
        name, argument, decode = step.name, step.argument, step.decode
        deadline = turn.now + (coordinator.request_timeout_s if step.timeout_s is None else step.timeout_s)
        for node in list(gathering.value):
            body = argument if isinstance(argument, bytes) else argument[node]
            if node == coordinator.me:
                reply = partial(self._answered_here, gathering, decode)
                self.serve(Call(node, name, body, reply, came_at=turn.now))
                continue
            sequence = turn.next_sequence()
            if not turn.fits(node, body):
                gathering.answered(node, _TOO_LONG)
                continue
            self._calls[sequence] = (deadline, gathering, node, decode)
            self._calls_due = min(self._calls_due, deadline)
            turn.post(node, frames.REQUEST, sequence, msgspec.msgpack.encode([name.encode(), body]))

    def on_request(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """Another node makes a call of this one."""
        name, argument = _decode_request(body)
        turn = self.coordinator.turn

        def reply(answer: bytes) -> None:
            turn.post(peer, frames.RESULT, sequence, answer if turn.fits(peer, answer) else _TOO_LONG_RESULT)

        self.serve(Call(peer, name.decode("ascii", "replace"), argument, reply, came_at=turn.now, sequence=sequence))

    def _answered_here(self, gathering: _Gathering, decode: Callable[[bytes], Any], answer: bytes) -> None:
        gathering.answered(self.coordinator.me, _read(decode, answer))

    def awaits(self, peer: NodeId, sequence: int) -> bool:
        """Whether the answer to a call that was made of a peer would be in time now."""
        call = self._calls.get(sequence)
        return call is not None and call[2] == peer and self.coordinator.turn.now < call[0]

    def on_result(self, peer: NodeId, sequence: int, body: bytes) -> None:
        """The answer to a call. One that no node would give is none, and its link is closed."""
        call = self._calls.get(sequence)
        if call is None or call[2] != peer:
            return
        _, gathering, _, decode = self._calls.pop(sequence)
        try:
            answer = _read(decode, body)
        except PeerProtocolError:
            gathering.answered(peer, None)
            raise
        gathering.answered(peer, answer)

    def on_peer_closed(self, peer: NodeId) -> None:
        """Calls of a peer whose link broke are not answered."""
        for sequence in [sequence for sequence, call in self._calls.items() if call[2] == peer]:
            _, gathering, node, _ = self._calls.pop(sequence)
            gathering.answered(node, None)

    def wait_until(self, gathering: _Gathering, condition: Callable[[], bool], deadline: float) -> None:
        """Look at a condition in each turn. What makes it true later in the turn brings on the next one: see `next_due`."""
        self._conditions.append((gathering, condition, deadline))

    def rest(self, gathering: _Gathering, until: float) -> None:
        """Go on when nobody else has anything to do."""
        self._resting.append((gathering, until))

    def expire(self, *, is_idle: bool) -> None:
        """Give up calls that are late and commands that waited too long for others; end the waits whose condition or deadline has come.

        `is_idle`: nothing arrived in this turn.
        """
        now = self.coordinator.turn.now
        while self._queued and (self._queued[0][0] <= now or self._queued[0][1].has_started):
            self._queued.popleft()[1].give_up_waiting()
        if self._calls_due <= now:
            late = [sequence for sequence, call in self._calls.items() if call[0] <= now]
            calls = [self._calls.pop(sequence) for sequence in late]
            self._calls_due = min((call[0] for call in self._calls.values()), default=math.inf)
            for _, gathering, node, _ in calls:
                gathering.answered(node, None)
        if self._conditions:
            waiting, self._conditions = self._conditions, []
            for gathering, condition, deadline in waiting:
                true = condition()
                if true or deadline <= now:
                    gathering.came(true=true)
                else:
                    self._conditions.append((gathering, condition, deadline))
        if self._resting:
            self._end_rest(now if is_idle else now - REST_PATIENCE_S)

    def _end_rest(self, by: float) -> None:
        """End one of the rests that were to last until a moment, the one that has waited longest for its end."""
        for index, (gathering, until) in enumerate(self._resting):
            if until <= by:
                del self._resting[index]
                gathering.written()
                return

    def next_due(self) -> float | None:
        """When `expire` is to be called again."""
        if not self._calls:
            self._calls_due = math.inf
        due = min(self._calls_due, self._queued[0][0] if self._queued else math.inf)
        if self._conditions:
            now = self.coordinator.turn.now
            due = min(due, *(now if condition() else deadline for _, condition, deadline in self._conditions))
        if self._resting:
            due = min(due, *(until for _, until in self._resting))
        return None if due == math.inf else due


def is_error(answer: Any) -> bool:
    """Whether a node answered a call with an error."""
    return isinstance(answer, bytes) and answer.startswith(b"-")


def _read(decode: Callable[[bytes], Any], answer: bytes) -> Any:
    if not is_error(answer):
        return decode(answer)
    if answer.find(b"\r\n") != len(answer) - 2:
        msg = "answers with an error of more or less than a line"
        raise PeerProtocolError(msg)
    return answer
