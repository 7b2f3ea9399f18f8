"""From a command of the table to its handler, here or on another node, and back to a reply. Pure."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.commands import slowlog
from respkv.commands.context import Client, Context, Request
from respkv.commands.table import COMMANDS, Command, Where, find
from respkv.commands.values import PASSED_ON_TIMEOUTS, PassedWrite
from respkv.config.quorums import Quorums
from respkv.coordinator.batches import ENDED_SHOWN_MAX, Ended
from respkv.coordinator.coordinator import NEVER_SLOW
from respkv.coordinator.operations import INTERNAL_ERROR, Ask, Call, Steps, Write, is_error
from respkv.errors import ClientError, OverloadedError, PeerProtocolError
from respkv.resp.replies import is_one_reply
from respkv.resp.writer import OK
from respkv.server.late_calls import LateCalls
from respkv.transport import border
from respkv.versions.clock import highest_credible
from respkv.versions.records import are_well_formed, is_plain, is_well_formed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from respkv.ids import NodeId
    from respkv.server.session import Session

Cell = list[Any]
AT_ONCE = frozenset(("value", "waits"))
"""Calls that wait for nothing, not even for what came before them and needs the disk."""
COUNT_BYTES_MAX = 22
HAS_WRITTEN = b"\x01"
"""Before the reply of a command that was passed on and has replaced what a key held that keeps siblings. No reply begins so."""
DISK_OVERLOADED = "too many requests wait for the disk; nothing was done"
OVERLOADED = "too many requests wait for their quorum (coordinator-in-flight-max); nothing was done"


class PassedOn(msgspec.Struct, array_like=True):
    """A command that another node passes on to the first live primary of its key."""

    resp: int
    quorum: Quorums | None
    arguments: list[bytes]
    seen: bytes | None = None
    """What the connection has read of the key, where the command is a blind write and replaces that."""


_decode_passed = border.reader(PassedOn)
_decode_put = border.reader(PassedWrite)


class Dispatcher:
    """Starts commands for sessions, and for other nodes."""

    def __init__(self, context: Context) -> None:
        """`touched` and `resumable` are the sessions of this turn that have replies, or a backlog to go on with."""
        self.context = context
        self.coordinator = context.coordinator
        self.coordinator.on_ended = self.account_plain
        self.in_flight_max = 1024
        self.overloaded = ""
        """Why commands on keys are refused in this turn, or empty."""
        self.touched: list[Session] = []
        self.resumable: list[Session] = []
        self.later: list[Session] = []
        """Sessions that have had their share of this turn."""
        self.turn_commands_max = 512
        self.broken: list[Session] = []
        self.set_command = COMMANDS["SET"]
        self.get_command = COMMANDS["GET"]
        self.late_calls = LateCalls(context, carry_out=self._carry_out)
        self.calls: dict[str, Callable[[Call], None]] = {
            "command": self._serve_command,
            "put": self._serve_put,
            "waits": self.late_calls.answer_waits,
        }
        self.begin_transaction: Callable[[Any, list[list[bytes]]], Cell]
        """Runs commands for a client; the cell gets the array of their replies."""

    # --- starting

    def start(self, command: Command, request: Request, keys: list[bytes], waiter: Session) -> bytes | Cell | None:
        """Run a command. Returns its reply, or a cell that its reply will come into; `waiter` hears when. Raises ClientError."""
        if self.overloaded and keys and not waiter.is_admitted:
            raise OverloadedError(self.overloaded)
        where = self.where_of(command, request.args, keys)
        if where is Where.EACH_PRIMARY:
            return self.run(command, request, self._on_each_primary(request, keys), waiter)
        # What is wrong with the arguments is said here, before anybody else is asked.
        result = command.handler(request)
        if isinstance(result, list):
            command.statistics.calls += 1
            return result
        if result is None or isinstance(result, bytes):
            return result
        if where is Where.HERE:
            return self.run(command, request, result, waiter)
        # Commands on the same keys meet at one node, in whatever order they name them.
        first = min(keys)
        primary = self.coordinator.primary_of(first)
        if primary == self.context.me:
            request.held = frozenset(keys)
            return self.run(command, request, result, waiter, exclusive=keys)
        return self.run(command, request, self._pass_on(command, request, primary, first), waiter)

    def run(self, command: Command, request: Request, steps: Steps, waiter: Session, *, exclusive: Sequence[bytes] = ()) -> Cell:
        """Run a generator of steps; its reply comes into the cell."""
        cell: Cell = [None]
        silent = waiter.silent
        started = self.context.turn.now

        def done(reply: bytes) -> None:
            self._account(command, request, reply, started)
            cell[0] = b"" if silent else reply
            waiter.drain()

        self.context.operations.start(steps, on_done=done, quorum=request.quorum, exclusive=exclusive, client=request.client)
        return cell

    def where_of(self, command: Command, arguments: list[bytes], keys: list[bytes]) -> Where:
        """Where a command line runs: a value that replaces what was seen is written by a node that holds the key."""
        where = command.where_of(arguments)
        policy = self.coordinator.succession.policy
        if policy.is_used and where is Where.HERE and command.is_write and len(keys) == 1 and policy.keeps_siblings(keys[0]):
            return Where.PRIMARY
        return where

    def _pass_on(self, command: Command, request: Request, node: NodeId, key: bytes) -> Steps:
        # Only a blind write is made of what was seen before: whoever looks first replaces what it finds.
        seen = request.seen_of(key)
        is_blind = command.where_of(request.args) is Where.HERE
        passed = PassedOn(request.resp, request.quorum, request.args, seen if is_blind else None)
        if request.client is not None:
            request.client.last = node
        timeout_s = PASSED_ON_TIMEOUTS * self.coordinator.request_timeout_s
        answers = yield Ask([node], "command", msgspec.msgpack.encode(passed), timeout_s, _read_reply)
        answer: bytes | None = answers[node]
        if answer is None:
            return b"-TIMEOUT the key's primary did not answer in time; the command may still take effect\r\n"
        if answer.startswith(HAS_WRITTEN):
            request.use_up(key, seen)
            return answer[len(HAS_WRITTEN) :]
        return answer

    def _on_each_primary(self, request: Request, keys: list[bytes]) -> Steps:
        """Split a command by the primaries of its keys, and add up what they reply."""
        coordinator = self.coordinator
        coordinator.check_read(keys, request.quorum)
        coordinator.check_write(keys, request.quorum)
        shares: dict[NodeId, list[bytes]] = {}
        for key in keys:
            shares.setdefault(coordinator.primary_of(key), []).append(key)
        name, resp, quorum = request.args[0], request.resp, request.quorum
        arguments = {node: msgspec.msgpack.encode(PassedOn(resp, quorum, [name, *share])) for node, share in shares.items()}
        timeout_s = PASSED_ON_TIMEOUTS * coordinator.request_timeout_s
        answers = yield Ask(list(shares), "command", arguments, timeout_s, _read_count)
        return _added_up(list(answers.values()))

    # --- for other nodes

    def _serve_command(self, call: Call) -> None:
        passed = _decode_passed(call.argument)
        request = Request(self.context, passed.arguments, client=None, resp=passed.resp, quorum=passed.quorum)
        command = _found(passed.arguments)
        if command is None or not (command.is_write or command.where_of(passed.arguments) is not Where.HERE):
            call.answer(b"-ERR this node does not know the command that was passed on to it\r\n")
            return
        _check_seen([passed.seen])
        keys = command.keys.of(passed.arguments)
        request.seen, request.held = passed.seen, frozenset(keys)
        # The node that the client asked accounts for the command.
        result = command.handler(request)
        if isinstance(result, bytes):
            call.answer(result)
            return
        assert result is not None
        assert not isinstance(result, list)
        self._start(call, _marked(request, result), passed.quorum, keys)

    def _serve_put(self, call: Call) -> None:
        """Write values for another node: this one holds copies of their keys."""
        passed = _decode_put(call.argument)
        keys = [key for key, _, _ in passed.values]
        _check_seen([seen for _, seen, _ in passed.values])
        found = [record for _, _, record in passed.values]
        stamp_max = highest_credible(self.context.turn.wall_ms)
        if not are_well_formed(found, stamp_max=stamp_max) or not all(map(is_plain, found)):
            msg = "values that are no plain records"
            raise PeerProtocolError(msg)
        self._start(call, _put(passed), passed.quorum, keys)

    def _start(self, call: Call, steps: Steps, quorum: Quorums | None, keys: list[bytes]) -> None:
        """Run what a call asks for, which writes nothing once its caller has told its client that it took too long."""
        write_by = math.inf if call.source == self.context.me else call.came_at + PASSED_ON_TIMEOUTS * self.coordinator.request_timeout_s
        self.context.operations.start(steps, on_done=call.answer, quorum=quorum, exclusive=keys, write_by=write_by)

    def serve(self, call: Call) -> None:
        """Carry out a call that another node, or this one, makes of this node."""
        if call.name not in self.calls:
            call.answer(b"-ERR unknown call\r\n")
        elif call.name in AT_ONCE:
            self._serve(call)
        elif not self.late_calls.keeps(call):
            self._carry_out(call)

    def _carry_out(self, call: Call) -> None:
        if self.coordinator.parking.is_full and call.name != "release":
            # What gives a place back is let in, or others would wait for nobody.
            call.answer(OverloadedError(DISK_OVERLOADED).reply())
        else:
            self.coordinator.parking.behind_all(lambda: self._serve(call))

    def _serve(self, call: Call) -> None:
        try:
            self.calls[call.name](call)
        except ClientError as error:
            call.answer(error.reply())
        except PeerProtocolError as error:
            self.context.turn.events.append(("warning", f"{call.source[:8]} made a malformed call ({call.name}): {error}"))
            call.answer(b"-ERR malformed call\r\n")
        except Exception as error:
            call.answer(self.internal_error(error))

    # --- transactions

    def run_transaction(self, client: Any, queued: list[tuple[Command, list[bytes]]]) -> Cell:
        """Begin queued commands in one turn, in order; the cell gets the array of their replies.

        The quorum of all their keys is checked first: then either all are begun, or none.
        """
        if self.overloaded:
            raise OverloadedError(self.overloaded)
        lines = [(command, arguments, command.keys.of(arguments)) for command, arguments in queued]
        writing = [key for command, _, keys in lines if command.is_write for key in keys]
        updating = [key for command, line, keys in lines if command.is_write and command.where_of(line) is not Where.HERE for key in keys]
        reading = [key for command, _, keys in lines if not command.is_write for key in keys]
        quorum = client.quorum_of(self.context, is_write=True)
        self.coordinator.check_write(writing, quorum)
        self.coordinator.check_read(updating, quorum)
        self.coordinator.check_read(reading, client.quorum_of(self.context, is_write=False))
        return self.begin_transaction(client, [arguments for _, arguments in queued])

    # --- accounts

    def count_plain(self, sets: int, gets: int) -> None:
        """Count the commands that took the short way."""
        if sets:
            self.set_command.statistics.calls += sets
        if gets:
            self.get_command.statistics.calls += gets
        self.context.statistics.commands_total += sets + gets

    def _account(self, command: Command, request: Request, reply: bytes, started: float) -> None:
        microseconds = int((self.context.turn.now - started) * 1_000_000)
        statistics = command.statistics
        statistics.calls += 1
        statistics.latencies.record(microseconds)
        if command is self.get_command:
            self.context.statistics.get_operations_total += 1
        if reply.startswith(b"-"):
            statistics.failed += 1
            self._count_error(reply)
        settings = self.context.settings
        if 0 <= settings.slowlog_log_slower_than <= microseconds:
            slowlog.note(self.context, request.args, request.client, microseconds)
        if 0 < settings.latency_monitor_threshold * 1000 <= microseconds:
            self.context.slow_events.record("command", unix_s=self.context.turn.wall_ms // 1000, milliseconds=microseconds // 1000)

    def account_plain(self, ended: Ended) -> None:
        """Account for plain GETs or SETs that were slow or failed; nobody looks at those that are well."""
        context, settings = self.context, self.context.settings
        if ended.error and ended.count:
            COMMANDS[ended.name].statistics.failed += ended.count
            self._count_error(ended.error, ended.count)
        if 0 < settings.slowlog_log_slower_than <= ended.microseconds:
            for waiter, arguments in ended.lines[:ENDED_SHOWN_MAX]:
                slowlog.note(context, arguments, waiter if isinstance(waiter, Client) else None, ended.microseconds)
        if 0 < settings.latency_monitor_threshold * 1000 <= ended.microseconds:
            event = "quorum-timeout" if ended.error else "command"
            context.slow_events.record(event, unix_s=context.turn.wall_ms // 1000, milliseconds=ended.microseconds // 1000)

    def slow_us(self) -> int:
        """How long plain commands may take before anybody is told."""
        settings = self.context.settings
        bounds = (settings.slowlog_log_slower_than, settings.latency_monitor_threshold * 1000)
        return min((bound for bound in bounds if bound > 0), default=NEVER_SLOW)

    def refused(self, command: Command | None, error: ClientError) -> bytes:
        """Account for a command that is not even begun; its reply."""
        if command is not None:
            command.statistics.rejected += 1
        return self._told(error)

    def failed(self, command: Command, error: ClientError) -> bytes:
        """Account for a call that ended with an error at once; its reply."""
        command.statistics.failed += 1
        return self._told(error)

    def _told(self, error: ClientError) -> bytes:
        reply = error.reply()
        self._count_error(reply)
        return reply

    def _count_error(self, reply: bytes, count: int = 1) -> None:
        statistics = self.context.statistics
        statistics.error_replies_total += count
        code = reply[1:].split(b" ", 1)[0][:32].decode("ascii", "replace")
        if code in statistics.errors or len(statistics.errors) < 128:
            statistics.errors[code] = statistics.errors.get(code, 0) + count

    def internal_error(self, error: Exception) -> bytes:
        """Account for a bug; the reply to whoever met it."""
        self.context.statistics.internal_errors_total += 1
        text = "".join(traceback.format_exception(error))[-1500:]
        self.context.turn.events.append(("warning", f"internal error: {text}"))
        return INTERNAL_ERROR

    def cross_protocol(self, session: Session) -> None:
        """A web page was made to talk to this node in somebody's browser: close its connection without a word, as Redis does."""
        context = self.context
        context.statistics.protocol_errors_total += 1
        context.turn.events.append(
            ("warning", f"closing client {session.address}: it sent POST or Host:, as web pages do that attack servers through a browser")
        )
        session.out = []
        context.close_client(session.id)

    def protocol_error(self, session: Session) -> None:
        """A client sent what is no request: its connection is to be closed behind the error."""
        self.broken.append(session)


def _found(arguments: list[bytes]) -> Command | None:
    """The command of a line that was passed on, if it can be one."""
    command = find(arguments[0]) if arguments else None
    if command is not None and command.subcommands and len(arguments) > 1:
        command = command.subcommands.get(arguments[1].upper())
    return command if command is not None and command.accepts(len(arguments)) else None


def _check_seen(contexts: Iterable[bytes | None]) -> None:
    """Raise PeerProtocolError unless these are what writers can have seen."""
    if not all(is_well_formed(context) for context in contexts if context):
        msg = "has seen what is no record"
        raise PeerProtocolError(msg)


def _put(passed: PassedWrite) -> Steps:
    yield Write([(key, record) for key, _, record in passed.values], seen={key: seen for key, seen, _ in passed.values})
    return OK


def _marked(request: Request, steps: Steps) -> Steps:
    """The steps of a command that was passed on; the node that its client asked is told whether it has written."""
    reply = yield from steps
    return HAS_WRITTEN + reply if request.has_written and not is_error(reply) else reply


def _read_reply(answer: bytes) -> bytes:
    """A reply that another node made: it goes to the client as it is, but for the mark before it."""
    if not is_one_reply(answer.removeprefix(HAS_WRITTEN)):
        msg = "answers a command with what is no reply"
        raise PeerProtocolError(msg)
    return answer


def _read_count(answer: bytes) -> bytes:
    """A reply that is the number of some keys."""
    answer = answer.removeprefix(HAS_WRITTEN)
    if not (answer.startswith(b":") and answer[1:-2].isdigit() and answer.endswith(b"\r\n") and len(answer) <= COUNT_BYTES_MAX):
        msg = "answers with what is no count"
        raise PeerProtocolError(msg)
    return answer


def _added_up(answers: list[bytes | None]) -> bytes:
    """One reply from those of the primaries of several keys.

    A refusal says that nothing was done, so it may be passed on only if all have refused.
    """
    failures = [answer for answer in answers if answer is None or not answer.startswith(b":")]
    if not failures:
        return b":%d\r\n" % sum(int(answer[1:-2]) for answer in answers if answer is not None)
    refusals = [answer for answer in failures if answer is not None and not answer.startswith(b"-TIMEOUT")]
    if len(refusals) == len(answers):
        return refusals[0]
    if refusals:
        return b"-TIMEOUT done for some of the keys and refused for others: %b" % refusals[0][1:]
    return b"-TIMEOUT a key's primary did not answer in time; the command may still take effect\r\n"
