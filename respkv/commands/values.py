"""New values of keys: written where it was asked, or, of keys that keep siblings, by a node that holds a copy.

Who has read a key on this connection replaces what it read; who has not, what the coordinating replica holds.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from respkv.config.quorums import Quorums
from respkv.coordinator.operations import Ask, Step, Write
from respkv.errors import ClientError, PeerProtocolError, QuorumTimeoutError
from respkv.resp.writer import OK

if TYPE_CHECKING:
    from respkv.commands.context import Request
    from respkv.ids import NodeId

Nothing = Generator[Step, Any, None]
PASSED_ON_TIMEOUTS = 2
"""For so many times `request-timeout` whoever passes a command on waits for its end."""


class PassedWrite(msgspec.Struct, array_like=True):
    """Values that another node writes for this one, because it holds copies of their keys."""

    quorum: Quorums | None
    values: list[tuple[bytes, bytes | None, bytes]]
    """(key, what its writer has seen, plain record)."""


def put(request: Request, pairs: list[tuple[bytes, bytes]], seen: Mapping[bytes, bytes] | None = None) -> Nothing:
    """Write plain records. `seen` are records that were read to make them; without it, what the connection has read counts.

    Used as `yield from put(...)`; raises ClientError.
    """
    coordinator = request.context.coordinator
    policy = coordinator.succession.policy
    if not policy.is_used:
        yield Write(pairs)
        return
    dotted = {key for key, _ in pairs if policy.keeps_siblings(key)}
    read = {key: request.seen_of(key) for key in dotted}
    contexts: Mapping[bytes, bytes | None] = read if seen is None else seen
    coordinator.check_write([key for key, _ in pairs], request.quorum)
    here: list[tuple[bytes, bytes]] = []
    elsewhere: dict[NodeId, list[tuple[bytes, bytes | None, bytes]]] = {}
    for key, record in pairs:
        if key not in dotted or request.holds(key):
            here.append((key, record))
        else:
            elsewhere.setdefault(coordinator.primary_of(key), []).append((key, contexts[key], record))
    if elsewhere:
        yield from _pass_on(request, elsewhere)
    if here:
        yield Write(here, seen={key: contexts[key] for key, _ in here if key in dotted})
    request.has_written = bool(dotted)
    for key in dotted:
        request.use_up(key, read[key])


def _pass_on(request: Request, shares: Mapping[NodeId, list[tuple[bytes, bytes | None, bytes]]]) -> Nothing:
    arguments = {node: msgspec.msgpack.encode(PassedWrite(request.quorum, share)) for node, share in shares.items()}
    timeout_s = PASSED_ON_TIMEOUTS * request.context.coordinator.request_timeout_s
    answers: dict[NodeId, bytes | None] = yield Ask(list(shares), "put", arguments, timeout_s, _read_ok)
    failures = [answer for answer in answers.values() if answer is None or answer.startswith(b"-")]
    refusals = [answer for answer in failures if answer is not None and not answer.startswith(b"-TIMEOUT")]
    if refusals and len(refusals) == len(answers):
        raise told(refusals[0])
    if failures:
        msg = "a key's primary did not answer in time; the command may still take effect"
        if refusals:
            msg = f"done for some of the keys and refused for others: {told(refusals[0])}"
        raise QuorumTimeoutError(msg)


def _read_ok(answer: bytes) -> bytes:
    if answer != OK:
        msg = "answers a write with what is no answer"
        raise PeerProtocolError(msg)
    return answer


def told(reply: bytes) -> ClientError:
    """The error that another node answered."""
    code, _, text = reply[1:].rstrip(b"\r\n").decode("utf-8", "surrogateescape").partition(" ")
    error = ClientError(text)
    error.code = code
    return error
