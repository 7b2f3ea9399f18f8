"""Both ends of a link prove that they know the cluster's secret, before anything else is said.

    dialler   MAGIC, version u8, its id (20), the id it means to reach (20), nonce (32)
    listener  MAGIC, version u8, its nonce (32), HMAC(secret, "listener" | ids | nonces) (32)
    dialler   HMAC(secret, "dialler" | ids | nonces) (32)

Rule 1: nothing is allocated for a stranger beyond these few fixed-size messages.
Rule 2: each side's proof covers both ids and both nonces, so none can be replayed or reflected.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.errors import PeerProtocolError

if TYPE_CHECKING:
    from respkv.ids import NodeId

MAGIC = b"respkv\x00\x01"
VERSION = 1
NONCE_BYTES = 32
_PROOF_BYTES = 32
HELLO_BYTES = len(MAGIC) + 1 + 20 + 20 + NONCE_BYTES
CHALLENGE_BYTES = len(MAGIC) + 1 + NONCE_BYTES + _PROOF_BYTES
PROOF_BYTES = _PROOF_BYTES


def _proof(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.new(secret, role + transcript, hashlib.sha256).digest()


@dataclass(slots=True)
class Dialler:
    """The side that connects. `nonce` is 32 fresh random bytes."""

    secret: bytes
    me: NodeId
    peer: NodeId
    nonce: bytes

    def hello(self) -> bytes:
        """The first message."""
        return MAGIC + bytes((VERSION,)) + bytes.fromhex(self.me) + bytes.fromhex(self.peer) + self.nonce

    def answer(self, challenge: bytes) -> bytes:
        """Check the listener's proof (`CHALLENGE_BYTES` long) and give one. Raises PeerProtocolError."""
        _check_greeting(challenge)
        start = len(MAGIC) + 1
        listener_nonce = challenge[start : start + NONCE_BYTES]
        transcript = self.hello() + listener_nonce
        if not hmac.compare_digest(challenge[start + NONCE_BYTES :], _proof(self.secret, b"listener", transcript)):
            msg = "the node does not know the cluster's secret"
            raise PeerProtocolError(msg)
        return _proof(self.secret, b"dialler", transcript)


class Listener:
    """The side that is connected to. `feed` until `peer` is set; what it returns is to be sent."""

    __slots__ = ("_buffer", "_claimed", "_me", "_nonce", "_secret", "_transcript", "peer", "rest")

    def __init__(self, secret: bytes, *, me: NodeId, nonce: bytes) -> None:
        """Wait for a stranger's hello."""
        self._secret = secret
        self._me = me
        self._nonce = nonce
        self._buffer = b""
        self._transcript = b""
        self._claimed = ""
        self.peer: NodeId | None = None
        """Who it is, once proved."""
        self.rest = b""
        """Bytes that came behind the proof: the link's first packets."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, give the answer to send (may be empty). Raises PeerProtocolError for a stranger."""
        self._buffer += data
        if not self._transcript:
            if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
                msg = "not a respkv node"
                raise PeerProtocolError(msg)
            if len(self._buffer) < HELLO_BYTES:
                return b""
            if len(self._buffer) > HELLO_BYTES:
                msg = "spoke before it was asked"
                raise PeerProtocolError(msg)
            return self._challenge()
        if len(self._buffer) >= PROOF_BYTES:
            if not hmac.compare_digest(self._buffer[:PROOF_BYTES], _proof(self._secret, b"dialler", self._transcript)):
                msg = "the node does not know the cluster's secret"
                raise PeerProtocolError(msg)
            self.peer = self._claimed
            self.rest = self._buffer[PROOF_BYTES:]
            self._buffer = b""
        return b""

    def _challenge(self) -> bytes:
        hello, self._buffer = self._buffer, b""
        _check_greeting(hello)
        start = len(MAGIC) + 1
        self._claimed = hello[start : start + 20].hex()
        if hello[start + 20 : start + 40].hex() != self._me:
            msg = "meant for another node"
            raise PeerProtocolError(msg)
        self._transcript = hello + self._nonce
        return MAGIC + bytes((VERSION,)) + self._nonce + _proof(self._secret, b"listener", self._transcript)


def _check_greeting(message: bytes) -> None:
    if message[: len(MAGIC)] != MAGIC:
        msg = "not a respkv node"
        raise PeerProtocolError(msg)
    if message[len(MAGIC)] != VERSION:
        msg = f"speaks version {message[len(MAGIC)]}, this node {VERSION}"
        raise PeerProtocolError(msg)
