"""Reading what another node encoded: what is not of the right shape is no node's, and its link is closed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from respkv.errors import PeerProtocolError

Shape = TypeVar("Shape")


def reader(shape: type[Shape]) -> Callable[[bytes], Shape]:
    """A function that reads a message of one shape. It raises PeerProtocolError for anything else."""
    decode: Callable[[bytes], Shape] = msgspec.msgpack.Decoder(shape).decode

    def read(body: bytes) -> Shape:
        try:
            return decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            msg = f"malformed message: {error}"
            raise PeerProtocolError(msg) from None

    return read
