"""What redis-server says of its commands, recorded once: `python -m tests.commands.recorded PORT` asks a server again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import redis

FILE = Path(__file__).parent / "data" / "commands.json"


def load() -> dict[str, Any]:
    """{"version": ..., "commands": {name: what COMMAND and COMMAND DOCS say of it}}; subcommands as `client|list`."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def record(port: int) -> dict[str, Any]:
    """Ask a server."""
    with redis.Redis(port=port, protocol=2, decode_responses=True) as client:
        client.set_response_callback("COMMAND", lambda reply: reply)
        version = client.info("server")["redis_version"]
        commands: dict[str, Any] = {}
        for entry in client.execute_command("COMMAND"):
            _enter(commands, entry)
        _add_docs(commands, _pairs(client.execute_command("COMMAND DOCS")))
    return {"version": version, "commands": dict(sorted(commands.items()))}


def _enter(commands: dict[str, Any], entry: list[Any]) -> None:
    name, arity, flags, first, last, step, categories, tips, _, subcommands = entry
    commands[name] = {
        "arity": arity,
        "flags": sorted(flags),
        "keys": [first, last, step],
        "categories": sorted(categories),
        "tips": sorted(tips),
    }
    for subcommand in subcommands:
        _enter(commands, subcommand)


def _add_docs(commands: dict[str, Any], docs: dict[str, Any]) -> None:
    for name, lines in docs.items():
        told = _pairs(lines)
        commands[name] |= {key: told.get(key, "") for key in ("since", "group", "complexity", "summary")}
        if "arguments" in told:
            commands[name]["arguments"] = _arguments(told["arguments"])
        _add_docs(commands, _pairs(told.get("subcommands", [])))


def _arguments(lines: list[list[Any]]) -> list[dict[str, Any]]:
    arguments = [_pairs(line) for line in lines]
    return [argument | {"arguments": _arguments(argument["arguments"])} if "arguments" in argument else argument for argument in arguments]


def _pairs(flat: list[Any]) -> dict[str, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


if __name__ == "__main__":
    found = record(int(sys.argv[1]))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found["commands"].items())
    FILE.write_text(f'{{"version": {json.dumps(found["version"])}, "commands": {{\n{lines}\n}}}}\n')
