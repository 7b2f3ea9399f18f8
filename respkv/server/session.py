"""One client's connection: commands in, replies out, both in their order. Pure.

Rule 1: replies leave in the order of the commands, and so do effects on one key. A command whose key an earlier,
unfinished command of this connection touches waits, and with it all that come behind it.
Rule 2: a plain GET or SET touches no generator, closure, dataclass or exception on its way.
Rule 3: an error of one command is its reply; only bytes that are no requests close the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from respkv.commands.context import Client, Request
from respkv.commands.table import TABLE, Command, Where, find
from respkv.errors import AuthenticationRequiredError, ClientError, TransactionAbortedError
from respkv.resp.writer import QUEUED

if TYPE_CHECKING:
    from respkv.resp.reader import RequestReader
    from respkv.server.dispatch import Dispatcher

NAME_SHOWN_MAX = 128
ARGUMENTS_SHOWN_BYTES_MAX = 128
RESUMED_AT_ONCE = 64
WINDOW_START = 16
TRANSACTION_WINDOW = 1024
CROSS_PROTOCOL_WORDS = frozenset((b"POST", b"HOST:"))
"""What begins lines of a web page's request. No command may ever have such a name."""
REPLY_BYTES_AHEAD = 4 << 20
"""What the next commands of a long pipeline may ask for at once, by the size of the replies before. A megabyte of GETs
can ask for tens of gigabytes, which would come together from all replicas before the first byte is sent."""


class Session(Client):
    """A client and what it waits for."""

    is_admitted = False
    """Whether its commands were let in all together: they are refused no more, however much waits for quorums."""

    __slots__ = ("_barrier", "_dispatcher", "_ended", "_touched", "_window", "reader", "subject")

    def __init__(self, client_id: int, *, dispatcher: Dispatcher, reader: RequestReader | None, address: str, local_address: str) -> None:
        """`reader` is None where commands come parsed."""
        super().__init__(client_id, address=address, local_address=local_address, now=dispatcher.context.turn.now)
        self._dispatcher = dispatcher
        self.reader = reader
        self._touched = False
        self._ended = False
        self._barrier = False
        """Whether a plain SET may be among what is pending."""
        self._window = min(WINDOW_START, dispatcher.in_flight_max) if reader is not None else TRANSACTION_WINDOW
        """How many commands of a long pipeline may be under way: more and more, unless their replies are big."""
        self.subject: Client = self
        """Which client the commands speak of and change."""

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a command that has not come as a whole."""
        return self.reader.pending_bytes if self.reader is not None else 0

    def set_authenticated(self, *, authenticated: bool) -> None:
        """Trust the client, or no longer."""
        self.authenticated = authenticated
        if self.reader is not None:
            self.reader.authenticated = authenticated
        self.settle()

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        reader = self.reader
        assert reader is not None
        commands = reader.feed(data)
        self.last_active = self._dispatcher.context.turn.now
        if commands:
            self.enqueue(commands)
        while reader.awaits_authentication:
            reader.authenticated = self.authenticated
            commands = reader.feed(b"")
            if commands:
                self.enqueue(commands)
        if reader.error is not None:
            self._dispatcher.protocol_error(self)

    def enqueue(self, commands: list[list[bytes]]) -> None:
        """Begin commands, behind those that wait already."""
        if self.backlog:
            self.backlog.extend(commands)
            return
        if len(commands) > self._window or len(commands) > self._dispatcher.turn_commands_max:
            self.backlog.extend(commands)
            self.resume()
            return
        begun = self.run(commands)
        if begun < len(commands):
            self.backlog.extend(commands[begun:])

    def run(self, commands: list[list[bytes]]) -> int:
        """Begin commands until one has to wait. Returns how many were begun."""
        dispatcher = self._dispatcher
        coordinator, in_flight_max = dispatcher.coordinator, self._window
        set_command, get_command = dispatcher.set_command, dispatcher.get_command
        out, pending, table = self.out, self.pending, TABLE
        set_plain, get_plain, is_ready = coordinator.set_plain, coordinator.get_plain, coordinator.is_ready
        may_be_plain = not dispatcher.overloaded
        in_memory = coordinator.store.resident and not coordinator.parking.keys
        policy = coordinator.succession.policy
        last_wins = not policy.is_used
        sets = gets = 0
        self._touch()
        command = None
        position = 0
        for arguments in commands:
            command = table.get(arguments[0])
            if len(pending) >= in_flight_max:
                break
            if self.usual and may_be_plain and (command is set_command or command is get_command) and not self._barrier:
                is_set = command is set_command
                if (
                    len(arguments) == (3 if is_set else 2)
                    and (in_memory or is_ready(arguments[1]))
                    and (last_wins or not policy.keeps_siblings(arguments[1]))
                ):
                    key = arguments[1]
                    if pending and (key in self.mutating or key in (self.reading if is_set else self.setting)):
                        break
                    try:
                        if is_set:
                            sets += 1
                            reply = set_plain(self, key, arguments[2])
                        else:
                            gets += 1
                            reply = get_plain(self, key)
                    except ClientError as error:
                        reply = dispatcher.failed(command, error)
                    if reply is not None:
                        if pending:
                            pending.append([reply])
                        else:
                            out.append(reply)
                    position += 1
                    continue
            if not self._begin(command or find(arguments[0]), arguments):
                break
            position += 1
            out = self.out
        if sets or gets:
            self._account(command, sets, gets)
        self.total_commands += position
        return position

    def _account(self, last: Command | None, sets: int, gets: int) -> None:
        """Remember what took the short way; `last` is the last command of all."""
        dispatcher = self._dispatcher
        dispatcher.count_plain(sets, gets)
        if last is dispatcher.set_command or last is dispatcher.get_command:
            self.last_command = last.shown_name

    def _touch(self) -> None:
        if not self._touched:
            self._touched = True
            self._dispatcher.touched.append(self)

    def flushed(self) -> list[bytes]:
        """The replies that can leave now; the session is no longer among those touched in this turn."""
        self._touched = False
        out, self.out = self.out, []
        if self.backlog and out:
            mean_bytes = sum(map(len, out)) // len(out) + 1
            self._window = max(min(REPLY_BYTES_AHEAD // mean_bytes, 2 * self._window, self._dispatcher.in_flight_max), 1)
        return out

    def end(self) -> None:
        """The client sends nothing more: its connection is to be closed behind the last reply."""
        self._ended = True
        self._touch()

    def is_over(self) -> bool:
        """Whether the connection is to be closed now."""
        return not self.pending and (self.closing or (self._ended and not self.backlog))

    def _begin(self, command: Command | None, arguments: list[bytes]) -> bool:
        """Begin one command that is out of the usual. Returns False if it has to wait."""
        if self._barrier:
            return False
        if self.closing:
            return True
        dispatcher = self._dispatcher
        if command is None and arguments[0].upper() in CROSS_PROTOCOL_WORDS:
            dispatcher.cross_protocol(self)
            return True
        try:
            command = self._resolve(command, arguments)
        except ClientError as error:
            if self.pending and command is not None and command.name == "EXEC":
                # A WATCH before it that has not ended yet would outlive it.
                return False
            self._hush()
            self._refuse(command, error)
            return True
        self.last_command = command.shown_name
        if self.transaction is not None and not command.immediate:
            self._hush()
            self._queue(command, arguments)
            return True
        keys = command.keys.of(arguments)
        if self.pending and self._must_wait(command, arguments, keys):
            return False
        self._hush()
        dispatcher.context.statistics.commands_total += 1
        try:
            self._carry_out(command, arguments, keys)
        except ClientError as error:
            command.statistics.calls += 1
            self.reply(dispatcher.failed(command, error))
        except Exception as error:
            self.reply(dispatcher.internal_error(error))
        return True

    def _refuse(self, command: Command | None, error: ClientError) -> None:
        """Answer what is not carried out; a transaction that it was meant for cannot be either."""
        if command is not None and command.name == "EXEC":
            self.transaction = self.watched = None
            self.settle()
            error = TransactionAbortedError(f": {error}" if error.code == "ERR" else f": {error.code} {error}")
        self.transaction_failed = self.transaction is not None
        self.reply(self._dispatcher.refused(command, error))

    def _hush(self) -> None:
        """See whether CLIENT REPLY wants the command that begins now to be answered."""
        self.silent = self.reply_mode != "on"
        if self.reply_mode == "skip":
            self.reply_mode = "on"
            self.settle()

    def _queue(self, command: Command, arguments: list[bytes]) -> None:
        """Keep a command for EXEC."""
        assert self.transaction is not None
        context = self._dispatcher.context
        self.transaction_bytes += sum(map(len, arguments))
        if self.transaction_bytes > context.settings.client_query_buffer_limit:
            context.turn.events.append(("warning", f"closing client {self.address}: its transaction is above client-query-buffer-limit"))
            context.close_client(self.id)
            return
        self.transaction.append((command, arguments))
        self.reply(QUEUED)

    def _resolve(self, command: Command | None, arguments: list[bytes]) -> Command:
        if command is None:
            raise unknown_command(arguments)
        if command.subcommands and len(arguments) > 1:
            found = command.subcommands.get(arguments[1].upper())
            if found is None:
                name = _shown(arguments[1], NAME_SHOWN_MAX)
                msg = f"unknown subcommand '{name}'. Try {command.name} HELP."
                raise ClientError(msg)
            command = found
        if not command.accepts(len(arguments)):
            msg = f"wrong number of arguments for '{command.shown_name}' command"
            raise ClientError(msg)
        if not self.authenticated and "no_auth" not in command.flags:
            if self._dispatcher.context.settings.requirepass:
                msg = "Authentication required."
                raise AuthenticationRequiredError(msg)
            self.set_authenticated(authenticated=True)
        return command

    def _must_wait(self, command: Command, arguments: list[bytes], keys: list[bytes]) -> bool:
        if not keys:
            return command.waits or "fast" not in command.flags
        if not self.mutating.isdisjoint(keys):
            return True
        is_blind = command.is_write and self._dispatcher.where_of(command, arguments, keys) is Where.HERE
        if not is_blind and not self.setting.isdisjoint(keys):
            # What this connection has set before must be found by whoever looks: other replicas may hold a version that still wins over it.
            return True
        return command.is_write and not self.reading.isdisjoint(keys)

    def _carry_out(self, command: Command, arguments: list[bytes], keys: list[bytes]) -> None:
        dispatcher = self._dispatcher
        context = dispatcher.context
        quorum = self.quorum_of(context, is_write=command.is_write)
        request = Request(context, arguments, client=self.subject, resp=self.resp, quorum=quorum)
        result = dispatcher.start(command, request, keys, self)
        if isinstance(result, list):
            self._wait_for(command, result, keys)
            return
        command.statistics.calls += 1
        if result is not None:
            self.reply(result)

    def _wait_for(self, command: Command, cell: list[Any], keys: list[bytes]) -> None:
        """A reply that is to come: `cell` is filled by whoever makes it."""
        if cell[0] is not None:
            self.reply(cell[0])
            return
        self.pending.append(cell)
        if not keys:
            self._barrier = True
        elif command.is_write:
            self.mutating.update(keys)
        else:
            self.reading.update(keys)

    def reply(self, reply: bytes) -> None:
        """Queue a reply behind those that are still to come."""
        if self.silent:
            return
        if self.pending:
            self.pending.append([reply])
        else:
            self.out.append(reply)

    def drain(self) -> None:
        """Some of the pending replies have come: pass on what is first in line, and go on with the backlog."""
        pending, out = self.pending, self.out
        while pending and (reply := pending[0][0]) is not None:
            pending.popleft()
            out.append(reply)
        if not self._touched:
            self._touched = True
            self._dispatcher.touched.append(self)
        if not pending:
            self._barrier = False
            if self.reading:
                self.reading.clear()
            if self.mutating:
                self.mutating.clear()
            if self.setting:
                self.setting.clear()
        if self.backlog:
            self._dispatcher.resumable.append(self)

    def resume(self) -> None:
        """Go on with the commands that had to wait; with more than `turn-commands-max` in the next turn."""
        backlog, dispatcher = self.backlog, self._dispatcher
        left = min(dispatcher.turn_commands_max, self._window)
        while backlog:
            if left <= 0:
                dispatcher.later.append(self)
                return
            commands = [backlog.popleft() for _ in range(min(RESUMED_AT_ONCE, left, len(backlog)))]
            begun = self.run(commands)
            left -= begun
            if begun < len(commands):
                backlog.extendleft(reversed(commands[begun:]))
                break


def unknown_command(arguments: list[bytes]) -> ClientError:
    """The error of Redis for a name that is none."""
    name = _shown(arguments[0], NAME_SHOWN_MAX)
    shown = ""
    for argument in arguments[1:]:
        if len(shown) >= ARGUMENTS_SHOWN_BYTES_MAX:
            break
        shown += f"'{_shown(argument, ARGUMENTS_SHOWN_BYTES_MAX - len(shown))}' "
    return ClientError(f"unknown command '{name}', with args beginning with: {shown}")


def _shown(word: bytes, bytes_max: int) -> str:
    """A word of a client as C prints it: no further than to its first NUL."""
    return word[:bytes_max].partition(b"\0")[0].decode("utf-8", "surrogateescape")
