"""One node, asked by redis-py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

EXIT_UNREACHABLE = 2
CONNECT_TIMEOUT_S = 3.0
REPLY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """Which node to ask, and the password it wants."""

    host: str
    port: int
    password: str | None = None

    def __str__(self) -> str:
        """As `redis-cli` shows it in its prompt."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def connect(address: Address, *, timeout_s: float = CONNECT_TIMEOUT_S, reply_timeout_s: float = REPLY_TIMEOUT_S) -> redis.Redis:
    """A client of one node, which reports a failure at once instead of trying again."""
    return redis.Redis(
        host=address.host,
        port=address.port,
        password=address.password,
        socket_connect_timeout=timeout_s,
        socket_timeout=reply_timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn whatever redis-py raises into one sentence and exit code 2."""
    try:
        yield
    except redis.AuthenticationError as error:
        _give_up(f"{address} refused the password: {str(error).rstrip('.')}. Give it with -a, or in REDISCLI_AUTH.")
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        _give_up(f"no answer from {address}: {error}")
    except redis.ResponseError as error:
        _give_up(f"{address} answered: {error}")
    except msgspec.DecodeError as error:
        _give_up(f"{address} sent a reply of another form ({error}): is it respkv, and of this version?")


def ask(address: Address, *command: str | bytes) -> bytes:
    """The bulk string that one command answers."""
    with connect(address) as client:
        reply: Any = client.execute_command(*command)
    if not isinstance(reply, bytes):
        msg = f"{type(reply).__name__} instead of a bulk string"
        raise msgspec.DecodeError(msg)
    return reply


def _give_up(sentence: str) -> None:
    print(f"respkv: {sentence}", file=sys.stderr)
    raise SystemExit(EXIT_UNREACHABLE)
