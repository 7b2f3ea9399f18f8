"""The checkout is laid out as it says it is: each room opens with a map, and the tests mirror the rooms."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "respkv"
ROOMS = sorted(path for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py")))
# Folders of tests that belong to no single room: scenarios with real processes.
WHOLE_CLUSTER_TESTS = {"cluster"}
TOP = {"pyproject.toml", "respkv", "tests", "conf", "README.md", "tools", ".ci", "LICENSE", "CHANGELOG.md", ".gitignore"}


def room_name(room: Path) -> str:
    return room.name


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("room", ROOMS, ids=room_name)
def test_room_opens_with_its_map_and_nothing_else(room: Path) -> None:
    module = ast.parse((room / "__init__.py").read_text())
    assert ast.get_docstring(module), f"{room.name}/__init__.py has no docstring"
    beyond = [node for node in module.body[1:] if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    assert not beyond, f"{room.name}/__init__.py holds more than its docstring"


@pytest.mark.parametrize("room", ROOMS, ids=room_name)
def test_map_names_each_file_of_the_room(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    named = set(re.findall(r"`([a-z_/]+)`", docstring))
    files = {path.stem for path in room.glob("*.py") if path.stem != "__init__"}
    assert files <= named, f"the map of {room.name} lacks {sorted(files - named)}"


def test_package_names_each_room() -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or ""
    named = set(re.findall(r"`([a-z_]+)`", docstring))
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert {room.name for room in ROOMS} | modules <= named


def test_package_holds_its_version_and_nothing_else() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    targets = [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)]
    assert targets == ["__version__"]
    kinds = {type(node) for node in body}
    assert kinds <= {ast.Expr, ast.Assign, ast.ImportFrom}


@pytest.mark.parametrize("room", ROOMS, ids=room_name)
def test_room_has_tests(room: Path) -> None:
    assert list((ROOT / "tests" / room.name).glob("test_*.py")), f"tests/{room.name} holds no tests"


def test_folders_of_tests_are_named_after_rooms() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert folders - WHOLE_CLUSTER_TESTS <= {room.name for room in ROOMS}


def test_each_room_has_a_layer(project: dict[str, Any]) -> None:
    contract = project["tool"]["importlinter"]["contracts"][0]
    names = {name for layer in contract["layers"] for name in re.findall(r"[a-z]+", layer)}
    assert {room.name for room in ROOMS} <= names


def test_top_of_the_checkout_holds_what_is_agreed() -> None:
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir()} - ignored - {".git"}
    assert found <= TOP


def test_version_is_written_in_one_place(project: dict[str, Any]) -> None:
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
