"""Many small whole commands in one chunk: one split, then every declared length compared with the real one.

The comparison makes it exact: a command is taken only if its header is canonical and every ``$n`` line is
followed by a line of just n bytes. A value that holds CRLF, an odd header or an unfinished command stops
the run; what is left goes to the parser in `reader`, which knows all the rest of the protocol.

Measured with 64-byte SETs: 0.34 us for a packet of one, 0.34 us a command for packets of 16. hiredis takes 0.33 and 0.23 us, but it
parses replies: it needs a search for huge headers before it (it would reserve the memory) and a check after it that
each element was a bulk string, which make it 0.93 and 0.38 us at best, and still let some requests pass that are none.
"""

from __future__ import annotations

CRLF = b"\r\n"

SIZE_MAX = 4096
"""The longest argument that this path takes: splitting scans every byte, and beyond this it does not pay."""

COUNT_MAX = 1024

SIZE_LINES = [b"$%d" % size for size in range(SIZE_MAX + 1)]
SIZES = {line: size for size, line in enumerate(SIZE_LINES)}
COUNTS = {b"*%d" % count: count for count in range(1, COUNT_MAX + 1)}


def is_dense(data: bytes, position: int) -> bool:
    """Whether what starts here looks like short lines, so that splitting it beats stepping from header to header."""
    return data.count(b"\r", position, position + 1024) > 8


def take_commands(lines: list[bytes], commands: list[list[bytes]]) -> bytes:
    """Append the whole, canonical commands at the start of `lines` (a chunk split at CRLF); the bytes they leave."""
    unfinished = lines.pop()
    end = len(lines)
    position = _take_run(lines, commands)
    line_of_size: list[bytes] = SIZE_LINES
    try:
        while position < end:
            count = COUNTS.get(lines[position])
            if count is None:
                break
            behind = position + 1 + 2 * count
            if behind > end:
                break
            words = lines[position + 1 : behind]
            # Written out for two and three words, which are nearly all traffic: half the time of the general form.
            if count == 3:
                size_0, name, size_1, key, size_2, value = words
                if line_of_size[len(name)] != size_0 or line_of_size[len(key)] != size_1 or line_of_size[len(value)] != size_2:
                    break
                commands.append([name, key, value])
            elif count == 2:
                size_0, name, size_1, key = words
                if line_of_size[len(name)] != size_0 or line_of_size[len(key)] != size_1:
                    break
                commands.append([name, key])
            else:
                arguments = words[1::2]
                if [line_of_size[len(argument)] for argument in arguments] != words[::2]:
                    break
                commands.append(arguments)
            position = behind
    except IndexError:  # an argument longer than the table: nothing of its command was taken
        pass
    if position == end:
        return unfinished
    return CRLF.join([*lines[position:], unfinished])


def _take_run(lines: list[bytes], commands: list[list[bytes]]) -> int:
    """Append the GETs, or the SETs, that `lines` start with; how many lines they took.

    A pipeline is mostly one command over and over: let `zip` do the stepping.
    """
    if not lines:
        return 0
    before = len(commands)
    line = iter(lines)
    line_of_size: list[bytes] = SIZE_LINES
    try:
        if lines[0] == b"*3":
            for count, size_0, name, size_1, key, size_2, value in zip(line, line, line, line, line, line, line, strict=False):
                if count != b"*3" or line_of_size[len(name)] != size_0:
                    break
                if line_of_size[len(key)] != size_1 or line_of_size[len(value)] != size_2:
                    break
                commands.append([name, key, value])
        elif lines[0] == b"*2":
            for count, size_0, name, size_1, key in zip(line, line, line, line, line, strict=False):
                if count != b"*2" or line_of_size[len(name)] != size_0 or line_of_size[len(key)] != size_1:
                    break
                commands.append([name, key])
    except IndexError:
        pass
    return (len(commands) - before) * (7 if lines[0] == b"*3" else 5)
