"""Errors, and whose fault each is. The `code` is the first word of the reply that a client sees.

`ClientError` and its children become a RESP error and leave the connection open;
`ProtocolError` closes it after the reply; the others never reach a client.
"""

from __future__ import annotations


class RespkvError(Exception):
    """Anything that respkv raises on purpose."""


class ClientError(RespkvError):
    """A command that is refused, with the reason as Redis would word it."""

    code = "ERR"

    def reply(self) -> bytes:
        """The RESP error line, free of line breaks that would split the reply."""
        text = f"{self.code} {self}".replace("\r", " ").replace("\n", " ")
        return b"-%b\r\n" % text.encode("utf-8", "surrogateescape")


class SyntaxProblemError(ClientError):
    """The options of a command make no sense together."""

    def __init__(self) -> None:
        """Word it as Redis does."""
        super().__init__("syntax error")


class WrongTypeError(ClientError):
    """The key holds another kind of value."""

    code = "WRONGTYPE"

    def __init__(self) -> None:
        """Word it as Redis does."""
        super().__init__("Operation against a key holding the wrong kind of value")


class NotAnIntegerError(ClientError):
    """An argument or a value is no 64-bit integer."""

    def __init__(self) -> None:
        """Word it as Redis does."""
        super().__init__("value is not an integer or out of range")


class NotAFloatError(ClientError):
    """An argument or a value is no number."""

    def __init__(self) -> None:
        """Word it as Redis does."""
        super().__init__("value is not a valid float")


class NoQuorumError(ClientError):
    """Too few replicas are up; nothing was done."""

    code = "NOQUORUM"


class QuorumTimeoutError(ClientError):
    """Too few replicas answered in time; a write may still take effect."""

    code = "TIMEOUT"


class OverloadedError(ClientError):
    """Refused early, before any effect, because a bound was reached."""

    code = "BUSY"


class TooManySiblingsError(ClientError):
    """A key has as many concurrent values as `max-siblings` allows: somebody has to resolve them."""

    code = "TOOMANYSIBLINGS"

    def __init__(self, limit: str) -> None:
        """Say what to do. `limit`: what the key has as much of as it may."""
        super().__init__(f"the key has {limit}: read it, or RESPKV RESOLVE it; nothing was done")


class ClockSkewError(ClientError):
    """This node's clock is too far from its peers' to stamp a write."""

    code = "CLOCKSKEW"


class NotReadyError(ClientError):
    """The node still loads or rebuilds what the command needs."""

    code = "LOADING"


class AuthenticationRequiredError(ClientError):
    """A password is set and the connection has not given it."""

    code = "NOAUTH"


class WrongPasswordError(ClientError):
    """The password is not the one that is set."""

    code = "WRONGPASS"


class TransactionAbortedError(ClientError):
    """A command that was refused while queueing makes EXEC fail, and so does what is wrong with EXEC itself."""

    code = "EXECABORT"

    def __init__(self, reason: str = " previous errors.") -> None:
        """Word it as Redis does."""
        super().__init__(f"Transaction discarded because of{reason}")


class UnsupportedProtocolError(ClientError):
    """HELLO asked for a protocol version that is neither 2 nor 3."""

    code = "NOPROTO"

    def __init__(self) -> None:
        """Word it as Redis does."""
        super().__init__("unsupported protocol version")


class ProtocolError(ClientError):
    """Bytes that are no RESP request: answered, then the connection is closed."""


class PeerProtocolError(RespkvError):
    """A node sent what no node should send: its link is closed."""


class StorageError(RespkvError):
    """The disk failed: the node stops, without a retry."""


class DamageError(StorageError):
    """Data that was durable is missing or fails its checksum."""


class ConfigurationError(RespkvError):
    """A file or a command line that a node refuses to start with."""
