from __future__ import annotations

from typing import Any

import hiredis
import pytest

from respkv.commands.command_info import categories, key_flags
from respkv.commands.syntax import SYNTAX, arguments_of
from respkv.commands.table import COMMANDS, Command
from respkv.commands.tips import tips
from tests.commands.node_alone import World
from tests.commands.recorded import load

RECORDED = load()["commands"]
OURS = {"RESPKV"}
# What Redis says otherwise: 7.2 documents the first, the next three take options that are not here, the last two it lets be a block of one.
OTHERWISE = {"COMMAND|GETKEYS", "COMMAND|GETKEYSANDFLAGS", "CLIENT|KILL", "MODULE|LOADEX", "CLIENT|LIST", "CONFIG|GET"}


def entries() -> list[Command]:
    return [each for entry in COMMANDS.values() if entry.name not in OURS for each in (entry, *entry.subcommands.values())]


RECORDED_ENTRIES = [entry for entry in entries() if entry.shown_name in RECORDED]


def essence(argument: dict[str, Any]) -> dict[str, Any]:
    """An argument without what no client reads: since when it is there."""
    kept: dict[str, Any] = {key: argument.get(key) for key in ("type", "token")}
    kept |= {"name": argument["name"].replace("_", "-"), "flags": sorted(argument.get("flags", []))}
    if "arguments" in argument:
        kept["arguments"] = [essence(each) for each in argument["arguments"]]
    return kept


@pytest.mark.parametrize("entry", RECORDED_ENTRIES, ids=lambda entry: entry.shown_name)
def test_arguments_are_those_of_redis(entry: Command) -> None:
    if entry.name in OTHERWISE or "arguments" not in RECORDED[entry.shown_name]:
        return
    assert [essence(each) for each in arguments_of(entry.name)] == [essence(each) for each in RECORDED[entry.shown_name]["arguments"]]


@pytest.mark.parametrize("entry", RECORDED_ENTRIES, ids=lambda entry: entry.shown_name)
def test_categories_are_those_of_redis(entry: Command) -> None:
    assert sorted(categories(entry)) == RECORDED[entry.shown_name]["categories"]


@pytest.mark.parametrize("entry", [entry for entry in RECORDED_ENTRIES if entry.name != "WAIT"], ids=lambda entry: entry.shown_name)
def test_tips_are_those_of_redis_where_nodes_speak_for_their_own_keys(entry: Command) -> None:
    assert sorted(tips(entry.name, scan_scope="primary")) == RECORDED[entry.shown_name]["tips"]


def test_where_any_node_speaks_for_all_clients_are_not_told_to_add_up() -> None:
    assert tips("DBSIZE", scan_scope="cluster") == []
    assert tips("KEYS", scan_scope="cluster") == ["nondeterministic_output_order"]
    assert tips("DEL", scan_scope="cluster") == ["request_policy:multi_shard", "response_policy:agg_sum"]


def test_syntax_is_of_commands_that_exist() -> None:
    names = {entry.name for entry in COMMANDS.values()} | {each.name for entry in COMMANDS.values() for each in entry.subcommands.values()}
    assert set(SYNTAX) <= names
    lacking = {entry.name for entry in entries() if not entry.subcommands and entry.arity not in {1, 2 if "|" in entry.name else 1}} - set(
        SYNTAX
    )
    assert lacking <= {"CLIENT|MAINT_NOTIFICATIONS", "DEBUG", "QUIT"}


def test_all_commands_in_the_form_that_redis_py_reads() -> None:
    client = World(1).client()
    told = client("COMMAND")
    assert len(told) == client("COMMAND", "COUNT") == len(COMMANDS)
    by_name = {entry[0]: entry for entry in told}
    assert by_name[b"get"][1:6] == [2, [b"fast", b"readonly"], 1, 1, 1]
    assert [entry[0] for entry in by_name[b"config"][9]][:2] == [b"config|get", b"config|set"]
    begin = [b"type", b"index", b"spec", [b"index", 1]]
    finding = [b"type", b"range", b"spec", [b"lastkey", -1, b"keystep", 2, b"limit", 0]]
    assert by_name[b"mset"][8] == [[b"flags", [b"OW", b"update"], b"begin_search", begin, b"find_keys", finding]]
    assert client("COMMAND", "INFO", "get", "nosuch", "config|set") == [by_name[b"get"], None, by_name[b"config"][9][1]]


def test_documentation_is_a_map_in_both_protocols() -> None:
    client = World(1).client()
    flat = client("COMMAND", "DOCS", "set", "nosuch")
    assert len(flat) == 2
    assert flat[0] == b"set"
    assert flat[1][::2] == [b"summary", b"since", b"group", b"complexity", b"arguments"]
    client("HELLO", "3")
    told = client("COMMAND", "DOCS", "set", "config")
    assert told[b"set"][b"arguments"][0] == {b"name": b"key", b"type": b"key", b"key_spec_index": 0}
    assert told[b"config"][b"subcommands"][b"config|get"][b"arguments"][0][b"flags"] == [b"multiple"]
    assert len(client("COMMAND", "DOCS")) == len(COMMANDS)
    # redis-cli asserts that flags are simple strings.
    client("HELLO", "2")
    assert b"$5\r\nflags\r\n*1\r\n+optional\r\n" in client.raw("COMMAND", "DOCS", "ping")


def test_lists_and_filters() -> None:
    client = World(1).client()
    assert b"getrange" in client("COMMAND", "LIST")
    assert client("COMMAND", "LIST", "FILTERBY", "PATTERN", "GETR*") == [b"getrange"]
    assert client("COMMAND", "LIST", "FILTERBY", "MODULE", "x") == []
    assert b"config|set" in client("COMMAND", "LIST", "FILTERBY", "ACLCAT", "dangerous")
    assert str(client("COMMAND", "LIST", "FILTERBY", "FOO", "x")) == "ERR syntax error"
    assert str(client("COMMAND", "LIST", "FOO")) == "ERR syntax error"


def test_keys_of_a_command_line() -> None:
    client = World(1).client()
    assert client("COMMAND", "GETKEYS", "mset", "a", "1", "b", "2") == [b"a", b"b"]
    assert client("COMMAND", "GETKEYS", "object", "encoding", "a") == [b"a"]
    assert client("COMMAND", "GETKEYSANDFLAGS", "incr", "a") == [[b"a", list(map(str.encode, key_flags(COMMANDS["INCR"])))]]
    for words, text in (
        (("nosuch",), "ERR Invalid command specified"),
        (("ping",), "ERR The command has no key arguments"),
        (("get",), "ERR Invalid number of arguments specified for command"),
    ):
        reply = client("COMMAND", "GETKEYS", *words)
        assert isinstance(reply, hiredis.ReplyError)
        assert str(reply) == text
