"""Requests out of the bytes of one connection: exact, resumable, bounded.

Rule 1: however the bytes were cut into chunks, the same commands come out.
Rule 2: nothing is reserved for what a header promises; what is held was sent.
Rule 3: every byte of an argument is looked at a bounded number of times, however slowly it drips in.

Small whole commands, which are nearly all traffic, go through `pipeline`. The parser here takes what that leaves: inline
requests, empty ones, big values, values that hold CRLF, halves, and everything that is an error.

It is stricter than Redis in three places: a header ends with CRLF (Redis takes any byte for the LF), the two
bytes behind a value must be CRLF (Redis skips them), and NUL in a header is an error at once (Redis waits for ever).
"""

from __future__ import annotations

import re
from typing import Final

from respkv.errors import NotAnIntegerError, ProtocolError
from respkv.resp.inline import split_arguments
from respkv.resp.numbers import parse_integer
from respkv.resp.pipeline import COUNT_MAX, COUNTS, CRLF, SIZE_LINES, SIZE_MAX, SIZES, is_dense, take_commands

_UNAUTHENTICATED_COUNT_MAX = 10
_UNAUTHENTICATED_BULK_BYTES_MAX = 16 * 1024
_ASTERISK: Final = ord("*")

# A flood of them must not cost a step each.
_empty_lines = re.compile(rb"[\r\n]*\n").match


class RequestReader:
    """The request parser of one connection.

    After each `feed`, run the commands it returned and look at `error`, `awaits_authentication` and `pending_bytes`;
    each says what it asks for. The limits may change at any time.
    """

    __slots__ = (
        "_accelerate",
        "_arguments",
        "_authenticated",
        "_bulk_bytes",
        "_command_bytes",
        "_held",
        "_missing",
        "_quick_bytes_max",
        "arguments_max",
        "awaits_authentication",
        "bulk_bytes_max",
        "error",
        "inline_bytes_max",
        "pending_bytes",
        "unauthenticated_bulk_bytes_max",
        "unauthenticated_count_max",
    )

    def __init__(
        self,
        *,
        bulk_bytes_max: int = 512 * 1024 * 1024,
        inline_bytes_max: int = 64 * 1024,
        arguments_max: int = 1024 * 1024,
        authenticated: bool = True,
        accelerate: bool = True,
    ) -> None:
        """Start at the boundary between two commands."""
        assert bulk_bytes_max >= SIZE_MAX
        assert arguments_max >= COUNT_MAX
        self.bulk_bytes_max = bulk_bytes_max
        """The longest argument (`proto-max-bulk-len`); never below 4096, up to which `pipeline` does not ask."""
        self.inline_bytes_max = inline_bytes_max
        """How long a line may grow before its end must have come."""
        self.arguments_max = arguments_max
        """The most arguments of a command; never below 1024, up to which `pipeline` does not ask."""
        self.unauthenticated_count_max = _UNAUTHENTICATED_COUNT_MAX
        """The most arguments of a command of a stranger."""
        self.unauthenticated_bulk_bytes_max = _UNAUTHENTICATED_BULK_BYTES_MAX
        """The longest argument of a stranger."""
        self.error: ProtocolError | None = None
        """Set once and for all: answer the commands, then this, then close. Nothing more is read."""
        self.awaits_authentication = False
        """Run the commands, which may include AUTH, then call `feed(b"")`: the rest needs more than a stranger may send."""
        self.pending_bytes = 0
        """Received for the command that is not complete yet; the caller has a limit for it."""
        self._authenticated = authenticated
        self._accelerate = accelerate
        self._quick_bytes_max = 0
        """Chunks shorter than this are tried as a pipeline of whole commands; 0 while anything forbids it."""
        self._held = bytearray()
        """Unparsed bytes: the beginning of a line, or of a value."""
        self._arguments: list[bytes] = []
        self._command_bytes = 0
        """How many bytes of the incomplete command are parsed."""
        self._missing = 0
        """How many arguments the incomplete command still lacks; 0 between commands."""
        self._bulk_bytes = -1
        """The length of the value that is awaited; -1 while a header is."""
        self._settle()

    @property
    def authenticated(self) -> bool:
        """False: the sizes that a stranger may send are small."""
        return self._authenticated

    @authenticated.setter
    def authenticated(self, value: bool) -> None:
        self._authenticated = value
        if self.error is None:
            self._settle()

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take what arrived; the commands that are complete, in order, each with at least one word."""
        if len(data) >= self._quick_bytes_max:
            return self._feed_any(data)
        lines = data.split(CRLF)
        # One SET or one GET, whole, is the commonest chunk of all.
        if len(lines) == 8:
            count, size_0, name, size_1, key, size_2, value, rest = lines
            if (
                count == b"*3"
                and SIZE_LINES[len(name)] == size_0
                and SIZE_LINES[len(key)] == size_1
                and SIZE_LINES[len(value)] == size_2
                and not rest
            ):
                return [[name, key, value]]
        elif len(lines) == 6:
            count, size_0, name, size_1, key, rest = lines
            if count == b"*2" and SIZE_LINES[len(name)] == size_0 and SIZE_LINES[len(key)] == size_1 and not rest:
                return [[name, key]]
        commands: list[list[bytes]] = []
        rest = take_commands(lines, commands)
        if rest:
            self._parse(rest, commands, dense=False)
        return commands

    def _feed_any(self, data: bytes) -> list[list[bytes]]:
        """Take a big chunk, or one that continues another."""
        commands: list[list[bytes]] = []
        if self.error is None:
            if self._held:
                self._resume(data, commands)
            else:
                self._parse(data, commands, dense=self._accelerate)
        return commands

    def _resume(self, data: bytes, commands: list[list[bytes]]) -> None:
        """Join what arrived to what is held; go on parsing if that completes a line or a value."""
        held = self._held
        searched = len(held)
        held += data
        if self._bulk_bytes >= 0:
            if len(held) < self._bulk_bytes + 2:
                self.pending_bytes += len(data)
                return
            # The value is copied once: it may be nearly all that is held.
            with memoryview(held) as view:
                value, rest = bytes(view[: self._bulk_bytes]), bytes(view[self._bulk_bytes :])
            self._held = bytearray()
            if rest[:2] != CRLF:
                self._fail("invalid bulk length")
                return
            self._arguments.append(value)
            self._command_bytes += len(value) + 2
            self._missing -= 1
            self._bulk_bytes = -1
            if not self._missing:
                self._complete(commands)
            self._parse(rest[2:], commands, dense=self._accelerate)
            return
        if not self.awaits_authentication and len(held) <= self.inline_bytes_max:
            line_end = CRLF if self._missing or held[0] == _ASTERISK else b"\n"
            if held.find(line_end, max(0, searched - 1)) < 0:
                self.pending_bytes += len(data)
                return
        self._held = bytearray()
        self._parse(bytes(held), commands, dense=self._accelerate)

    def _parse(self, buffer: bytes, commands: list[list[bytes]], *, dense: bool) -> None:
        """Read all that is complete from `buffer` on top of the current state, and hold the rest."""
        position = 0
        self.awaits_authentication = False
        while position < len(buffer):
            start = position
            if self._missing:
                position = self._read_arguments(buffer, position)
                if not self._missing:
                    self._complete(commands)
            elif buffer[position] != _ASTERISK:
                position = self._read_inline(buffer, position, commands)
            elif dense and self._authenticated:
                # Once in a chunk only: each try splits all that is left.
                dense = False
                if is_dense(buffer, position):
                    position = len(buffer) - len(take_commands(buffer[position:].split(CRLF), commands))
                continue
            else:
                position = self._read_count(buffer, position)
            if position == start or self.error is not None:
                break
        if self.awaits_authentication and not commands:
            self.awaits_authentication = False
            self._fail("unauthenticated bulk length" if self._missing else "unauthenticated multibulk length")
        elif self.error is None:
            if position < len(buffer):
                self._held += memoryview(buffer)[position:]
            self._settle()

    def _read_count(self, buffer: bytes, position: int) -> int:
        """Read a line like `*3`; the position behind it, or the same one if it is incomplete or refused."""
        line_end = buffer.find(CRLF, position)
        if line_end < 0:
            if len(buffer) - position > self.inline_bytes_max:
                self._fail("too big mbulk count string")
            return position
        line = buffer[position:line_end]
        count = COUNTS.get(line)
        if count is None:
            count = _number_after_type(line)
            if count is None or count > self.arguments_max:
                self._fail("invalid multibulk length")
                return position
        if count > self.unauthenticated_count_max and not self._authenticated:
            self.awaits_authentication = True
            return position
        if count > 0:  # zero and less are passed over, as in Redis
            self._missing = count
            self._command_bytes = line_end + 2 - position
        return line_end + 2

    def _read_arguments(self, buffer: bytes, position: int) -> int:
        """Read arguments of the current command until it is complete or the bytes end; the position behind them."""
        start = position
        received = len(buffer)
        arguments = self._arguments
        missing, size = self._missing, self._bulk_bytes
        while missing:
            if size < 0:
                line_end = buffer.find(CRLF, position)
                if line_end < 0:
                    if received - position > self.inline_bytes_max:
                        self._fail("too big bulk count string")
                    break
                line = buffer[position:line_end]
                known = SIZES.get(line)
                size = self._strict_size(line) if known is None else known
                if size < 0:
                    break
                position = line_end + 2
            end = position + size
            if received < end + 2:
                break
            if not buffer.startswith(CRLF, end):
                self._fail("invalid bulk length")
                break
            arguments.append(buffer[position:end])
            position = end + 2
            missing -= 1
            size = -1
        self._missing, self._bulk_bytes = missing, size
        self._command_bytes += position - start
        return position

    def _strict_size(self, line: bytes) -> int:
        """The length in a line like `$5`, or -1 if it is refused."""
        if not line.startswith(b"$"):
            # Redis prints the byte as it is; only line breaks become blanks.
            found = line[:1].decode("utf-8", "surrogateescape") or "\r"
            self._fail(f"expected '$', got '{found}'")
            return -1
        size = _number_after_type(line)
        if size is None or not 0 <= size <= self.bulk_bytes_max:
            self._fail("invalid bulk length")
            return -1
        if size > self.unauthenticated_bulk_bytes_max and not self._authenticated:
            self.awaits_authentication = True
            return -1
        return size

    def _read_inline(self, buffer: bytes, position: int, commands: list[list[bytes]]) -> int:
        """Read a line of words; the position behind it, or the same one if it is incomplete or refused."""
        line_end = buffer.find(b"\n", position)
        # C's strchr stops at NUL: Redis finds no end in such a line, and neither a TLS handshake
        # nor other binary data is taken for commands.
        if line_end < 0 or buffer.find(0, position, line_end) >= 0:
            if len(buffer) - position > self.inline_bytes_max:
                self._fail("too big inline request")
            return position
        arguments = split_arguments(buffer[position:line_end])
        if arguments is None:
            self._fail("unbalanced quotes in request")
            return position
        if not arguments:
            empty_lines = _empty_lines(buffer, line_end)
            return empty_lines.end() if empty_lines else line_end + 1
        commands.append(arguments)
        return line_end + 1

    def _complete(self, commands: list[list[bytes]]) -> None:
        commands.append(self._arguments)
        self._arguments = []
        self._command_bytes = 0

    def _fail(self, text: str) -> None:
        """Read nothing more, and let go of what was read."""
        self.error = ProtocolError(f"Protocol error: {text}")
        self._held = bytearray()
        self._arguments = []
        self.pending_bytes = 0
        self._quick_bytes_max = 0

    def _settle(self) -> None:
        """Count what is held, and see whether the next chunk may take the quick way."""
        self.pending_bytes = self._command_bytes + len(self._held)
        between = not (self._held or self._missing)
        self._quick_bytes_max = SIZE_MAX if between and self._accelerate and self._authenticated else 0


def _number_after_type(line: bytes) -> int | None:
    """The number in a header, strict, or None."""
    try:
        return parse_integer(line[1:])
    except NotAnIntegerError:
        return None
