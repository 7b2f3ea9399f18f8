"""House rules that no linter checks: sizes, names, and where waiting is allowed."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("respkv", "tools", "tests") for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sh", ""})
SOURCES = [path for path in FILES if path.is_file()]
PYTHON = [path for path in SOURCES if path.suffix == ".py"]
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def pure_modules() -> list[str]:
    """What the import contract calls pure, as dotted names without wildcards."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["id"] == "pure")
    return [name.removesuffix(".**") for name in contract["source_modules"]]


def is_shell(path: Path) -> bool:
    """Shells live in `server` and `cli`, and are whatever the contract there does not call pure."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:2] in {("respkv", "server"), ("respkv", "cli")} and ".".join(parts) not in pure_modules()


SERVER = [path for path in PYTHON if path.is_relative_to(ROOT / "respkv" / "server")]
MACHINES = [path for path in PYTHON if path.is_relative_to(ROOT / "respkv") and not is_shell(path)]


def test_files_are_read_in_one_sitting() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES_MAX} == {}


def test_what_calls_itself_pure_is_held_to_it() -> None:
    claims = {path for path in SERVER if "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")}
    assert [relative(path) for path in claims if is_shell(path)] == [], "add it to the contract `pure` in pyproject.toml"


def test_functions_fit_on_a_screen() -> None:
    lengths = {f"{relative(path)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for path in PYTHON for node in functions_of(path)}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES_MAX} == {}


def test_names_say_what_is_inside() -> None:
    words = {path: {word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")} for path in PYTHON}
    assert [relative(path) for path, found in words.items() if found & BANNED_NAMES] == []


def test_only_shells_wait_and_start_tasks() -> None:
    waiting = [
        f"{relative(path)}: {node.name}" for path in MACHINES for node in functions_of(path) if isinstance(node, ast.AsyncFunctionDef)
    ]
    assert waiting == []
    starting = [
        f"{relative(path)}:{node.lineno}"
        for path in MACHINES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "start_soon"
    ]
    assert starting == []
