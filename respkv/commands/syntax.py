"""The arguments of each command, written as in Redis's manual: COMMAND DOCS is drawn from it, and redis-cli's hints from that. Pure data.

`[...]` is optional, `<a | b>` a choice, `(...)` a group, `...` behind it means again and again, CAPITALS are a word
to be typed. A name is a string unless it says otherwise, as `count:integer` does; `key` is a key. `condition=` in front of
a choice or a group names it.
"""

from __future__ import annotations

import re
from typing import Any

_EXPIRY = "EX seconds:integer | PX milliseconds:integer | EXAT unix-time-seconds:unix-time | PXAT unix-time-milliseconds:unix-time"
_CONDITION = "condition=[NX | XX | GT | LT]"
_KINDS = "<NORMAL | MASTER | REPLICA | PUBSUB>"

SYNTAX = {
    "APPEND": "key value",
    "AUTH": "[username] password",
    "CLIENT|KILL": "<old-format | (filter value) ...>",
    "CLIENT|LIST": f"[TYPE {_KINDS}] [ID (client-id:integer) ...]",
    "CLIENT|NO-EVICT": "enabled=<ON | OFF>",
    "CLIENT|NO-TOUCH": "<ON | OFF>",
    "CLIENT|REPLY": "on_off_skip=<ON | OFF | SKIP>",
    "CLIENT|SETINFO": "<LIB-NAME libname | LIB-VER libver>",
    "CLIENT|SETNAME": "connection-name",
    "CLUSTER|ADDSLOTS": "slot:integer ...",
    "CLUSTER|ADDSLOTSRANGE": "(start-slot:integer end-slot:integer) ...",
    "CLUSTER|COUNT-FAILURE-REPORTS": "node-id",
    "CLUSTER|COUNTKEYSINSLOT": "slot:integer",
    "CLUSTER|DELSLOTS": "slot:integer ...",
    "CLUSTER|DELSLOTSRANGE": "(start-slot:integer end-slot:integer) ...",
    "CLUSTER|FAILOVER": "options=[FORCE | TAKEOVER]",
    "CLUSTER|FORGET": "node-id",
    "CLUSTER|GETKEYSINSLOT": "slot:integer count:integer",
    "CLUSTER|KEYSLOT": "key:string",
    "CLUSTER|MEET": "ip port:integer [cluster-bus-port:integer]",
    "CLUSTER|REPLICAS": "node-id",
    "CLUSTER|REPLICATE": "node-id",
    "CLUSTER|RESET": "hard_soft=[HARD | SOFT]",
    "CLUSTER|SET-CONFIG-EPOCH": "config-epoch:integer",
    "CLUSTER|SETSLOT": "slot:integer subcommand=<IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
    "CLUSTER|SLAVES": "node-id",
    "COMMAND|DOCS": "[command-name ...]",
    "COMMAND|GETKEYS": "command [arg ...]",
    "COMMAND|GETKEYSANDFLAGS": "command [arg ...]",
    "COMMAND|INFO": "[command-name ...]",
    "COMMAND|LIST": "[FILTERBY filterby=<MODULE module-name | ACLCAT category | PATTERN pattern:pattern>]",
    "CONFIG|GET": "parameter ...",
    "CONFIG|SET": "(parameter value) ...",
    "DECR": "key",
    "DECRBY": "key decrement:integer",
    "DEL": "key ...",
    "ECHO": "message",
    "EXISTS": "key ...",
    "EXPIRE": f"key seconds:integer {_CONDITION}",
    "EXPIREAT": f"key unix-time-seconds:unix-time {_CONDITION}",
    "EXPIRETIME": "key",
    "FLUSHALL": "async=[ASYNC | SYNC]",
    "FLUSHDB": "async=[ASYNC | SYNC]",
    "GET": "key",
    "GETDEL": "key",
    "GETEX": f"key expiration=[{_EXPIRY} | PERSIST]",
    "GETRANGE": "key start:integer end:integer",
    "GETSET": "key value",
    "HELLO": "arguments=[protover:integer [AUTH (username password)] [SETNAME clientname]]",
    "INCR": "key",
    "INCRBY": "key increment:integer",
    "INCRBYFLOAT": "key increment:double",
    "INFO": "[section ...]",
    "KEYS": "pattern:pattern",
    "LATENCY|GRAPH": "event",
    "LATENCY|HISTOGRAM": "[command ...]",
    "LATENCY|HISTORY": "event",
    "LATENCY|RESET": "[event ...]",
    "MEMORY|USAGE": "key [SAMPLES count:integer]",
    "MGET": "key ...",
    "MODULE|LOAD": "path [arg ...]",
    "MODULE|LOADEX": "path [arg ...]",
    "MODULE|UNLOAD": "name",
    "MSET": "(key value) ...",
    "MSETNX": "(key value) ...",
    "OBJECT|ENCODING": "key",
    "OBJECT|FREQ": "key",
    "OBJECT|IDLETIME": "key",
    "OBJECT|REFCOUNT": "key",
    "PERSIST": "key",
    "PEXPIRE": f"key milliseconds:integer {_CONDITION}",
    "PEXPIREAT": f"key unix-time-milliseconds:unix-time {_CONDITION}",
    "PEXPIRETIME": "key",
    "PING": "[message]",
    "PSETEX": "key milliseconds:integer value",
    "PTTL": "key",
    "RESPKV|KEY": "key",
    "RESPKV|PREFLIST": "key",
    "RESPKV|QUORUM": "[DEFAULT] [R r] [W w] [PR pr] [PW pw]",
    "SCAN": "cursor:integer [MATCH pattern:pattern] [COUNT count:integer] [TYPE type]",
    "SELECT": "index:integer",
    "SET": f"key value condition=[NX | XX] [GET] expiration=[{_EXPIRY} | KEEPTTL]",
    "SETEX": "key seconds:integer value",
    "SETNX": "key value",
    "SETRANGE": "key offset:integer value",
    "SHUTDOWN": "nosave_save=[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    "SLOWLOG|GET": "[count:integer]",
    "STRLEN": "key",
    "SUBSTR": "key start:integer end:integer",
    "TOUCH": "key ...",
    "TTL": "key",
    "TYPE": "key",
    "UNLINK": "key ...",
    "WAIT": "numreplicas:integer timeout:integer",
    "WATCH": "key ...",
}
"""Commands that take arguments."""

Argument = dict[str, Any]
_TOKENS = re.compile(r"\.\.\.|[][<>()|]|[^][<>()|\s]+")
_CLOSING = {"[": "]", "<": ">", "(": ")"}


def arguments_of(name: str) -> list[Argument]:
    """The arguments of a command, as COMMAND DOCS nests them."""
    words = _TOKENS.findall(SYNTAX.get(name, ""))
    arguments, rest = _sequence(words)
    assert not rest, f"{name}: {rest}"
    return arguments


def _sequence(words: list[str]) -> tuple[list[Argument], list[str]]:
    """Arguments one after the other, until a closing bracket, a bar or the end."""
    arguments: list[Argument] = []
    while words and words[0] not in {"]", ">", ")", "|"}:
        if words[0] == "...":
            _flags(arguments[-1]).append("multiple")
            words = words[1:]
            continue
        argument, words = _argument(words)
        arguments.append(argument)
    return arguments, words


def _argument(words: list[str]) -> tuple[Argument, list[str]]:
    word, words = words[0], words[1:]
    if word.endswith("="):
        argument, words = _argument(words)
        return {**argument, "name": word[:-1]}, words
    if word in _CLOSING:
        return _bracket(word, words)
    if not word.isupper():
        return _named(word), words
    # A word to be typed: alone, or in front of what it names.
    if words and (words[0] in {"<", "("} or words[0][0].islower()):
        argument, words = _argument(words)
        return {**argument, "token": word}, words
    return {"name": word.lower(), "type": "pure-token", "token": word}, words


def _bracket(opening: str, words: list[str]) -> tuple[Argument, list[str]]:
    choices: list[Argument] = []
    while True:
        arguments, words = _sequence(words)
        choices.append(_together(arguments))
        bar, words = words[0], words[1:]
        if bar != "|":
            break
    assert bar == _CLOSING[opening], f"{opening} is closed by {bar}"
    argument = choices[0] if len(choices) == 1 else {"name": _name_of(choices), "type": "oneof", "arguments": choices}
    if opening == "[":
        _flags(argument).append("optional")
    return argument, words


def _together(arguments: list[Argument]) -> Argument:
    return (
        arguments[0]
        if len(arguments) == 1
        else {"name": "-".join(each["name"] for each in arguments), "type": "block", "arguments": arguments}
    )


def _name_of(choices: list[Argument]) -> str:
    return "-or-".join(choice["name"] for choice in choices[:2])


def _named(word: str) -> Argument:
    name, _, kind = word.partition(":")
    argument: Argument = {"name": name, "type": kind or ("key" if name == "key" else "string")}
    if argument["type"] == "key":
        argument["key_spec_index"] = 0
    return argument


def _flags(argument: Argument) -> list[str]:
    flags: list[str] = argument.setdefault("flags", [])
    return flags
