"""The table of commands says of each what redis-server says of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import respkv.commands.registry  # noqa: F401 - fills the table
from respkv.commands.table import COMMANDS, Command, Where, find
from tests.commands.recorded import load

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED = load()["commands"]

# Entries that redis-server 7.0.15 does not have, or not with this arity; 7.2 does.
NEWER = {"client|no-touch", "client|setinfo", "cluster|myshardid", "command|getkeys", "command|getkeysandflags"}
OURS = {"respkv"}
# A cluster is asked, or a floor is raised: the work is of another order than in one Redis.
OF_ANOTHER_ORDER = {"dbsize", "randomkey", "flushall", "flushdb", "cluster|countkeysinslot", "cluster|getkeysinslot"}


def entries() -> Iterator[Command]:
    for command in COMMANDS.values():
        if command.name.lower() not in OURS:
            yield command
            yield from command.subcommands.values()


ENTRIES = [command for command in entries() if command.shown_name not in NEWER]


def shown_name(command: Command) -> str:
    return command.shown_name


@pytest.mark.parametrize("command", ENTRIES, ids=shown_name)
def test_entry_agrees_with_redis(command: Command) -> None:
    theirs = RECORDED[command.shown_name]
    ours = {
        "arity": command.arity,
        "flags": sorted(command.flags),
        "keys": [command.keys.first, command.keys.last, command.keys.step],
        "since": command.since,
        "group": command.group,
    }
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize("command", [each for each in ENTRIES if each.shown_name not in OF_ANOTHER_ORDER], ids=shown_name)
def test_complexity_is_of_the_same_order(command: Command) -> None:
    # The sentences around it speak of how Redis does it.
    order = re.compile(r"O\([^)]*\)").findall
    assert order(command.complexity)[:1] == order(RECORDED[command.shown_name]["complexity"])[:1]


@pytest.mark.parametrize("command", list(entries()), ids=shown_name)
def test_entry_tells_what_it_does(command: Command) -> None:
    assert command.summary
    assert command.summary.endswith(".")
    assert command.complexity


def test_names_are_found_in_any_case() -> None:
    assert find(b"get") is find(b"GET") is find(b"gEt") is COMMANDS["GET"]
    assert find(b"nosuch") is None


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("SET k v", Where.HERE),
        ("SET k v EX 10", Where.HERE),
        ("SET k v nx", Where.PRIMARY),
        ("SET k v EX 10 KeepTTL", Where.PRIMARY),
        ("SET k NX", Where.HERE),
        ("SET k v get", Where.PRIMARY),
        ("GETEX k", Where.PRIMARY),
        ("GETEX k PERSIST", Where.PRIMARY),
        ("DEL k", Where.PRIMARY),
        ("DEL k l", Where.EACH_PRIMARY),
        ("GET k", Where.HERE),
        ("INCR k", Where.PRIMARY),
    ],
)
def test_what_looks_before_it_writes_runs_at_the_primary(line: str, where: Where) -> None:
    words = line.encode().split()
    command = find(words[0])
    assert command is not None
    assert command.where_of(words) is where


def test_what_runs_elsewhere_has_keys_to_be_found_by() -> None:
    assert [command.name for command in entries() if not command.keys.first and command.where is not Where.HERE] == []
