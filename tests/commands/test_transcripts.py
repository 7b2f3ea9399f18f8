"""Fixed lines of commands, all forms and all errors: redis-server's bytes, one command at a time and all in one packet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from respkv.resp.inline import split_arguments
from tests.commands.harness import Connection, World
from tests.commands.stock import Command, StockConnection, differences, stock_server

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data"

# What redis-server 7.0.15 says, and what 7.2 says instead (https://github.com/redis/redis/pull/11809).
NEWER_WORDS = {b"otherwise the HELLO AUTH <user>": b"otherwise the HELLO <proto> AUTH <user>"}


def sections_of(name: str) -> list[list[Command]]:
    """The commands of each connection of a transcript."""
    sections: list[list[Command]] = [[]]
    for line in (DATA / f"{name}.txt").read_text().splitlines():
        words = split_arguments(line.encode())
        assert words is not None, line
        if not words:
            sections.append([])
        elif not line.startswith("#"):
            sections[-1].append(words)
    return sections


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock_server(tmp_path_factory.mktemp("redis"), "--proto-max-bulk-len", "64mb") as path:
        yield path


@pytest.fixture(scope="module")
def stock_with_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock_server(tmp_path_factory.mktemp("redis"), "--requirepass", "secret") as path:
        yield path


def ask(client: Connection | StockConnection, section: list[Command], *, at_once: bool) -> bytes:
    replies = client.ask(*section) if at_once else b"".join(client.ask(command) for command in section if not client.is_closed)
    for older, newer in NEWER_WORDS.items():
        replies = replies.replace(older, newer)
    return replies


@pytest.mark.stock("redis-server")
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("name", ["strings", "keys", "transactions", "connection"])
def test_answers_are_those_of_redis(stock: Path, name: str, nodes: int, protocol: int, *, at_once: bool) -> None:
    world = World(nodes, epoch_ms=time.time_ns() // 1_000_000)
    with StockConnection(stock) as cleaner:
        cleaner.ask("FLUSHALL")
    for number, section in enumerate(sections_of(name)):
        ours = world.connect(number % nodes)
        with StockConnection(stock) as theirs:
            ours.ask(f"HELLO {protocol}")
            theirs.ask(f"HELLO {protocol}")
            assert differences(section, ask(ours, section, at_once=at_once), ask(theirs, section, at_once=at_once)) == []
            assert ours.is_closed == theirs.is_closed


@pytest.mark.stock("redis-server")
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_a_password_is_asked_for_in_the_words_of_redis(stock_with_password: Path, *, at_once: bool) -> None:
    world = World(requirepass="secret")
    for section in sections_of("password"):
        ours = world.connect()
        with StockConnection(stock_with_password) as theirs:
            assert differences(section, ask(ours, section, at_once=at_once), ask(theirs, section, at_once=at_once)) == []
            assert ours.is_closed == theirs.is_closed
