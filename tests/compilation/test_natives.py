from __future__ import annotations

import ast

from respkv.compilation.builder import Sources
from respkv.compilation.modules import HOT
from respkv.compilation.natives import NativeClass, tell

SOURCE = """
from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respkv.first import (
        First,
        Other,
    )


class Colour(Enum):
    RED = 1


class Second(First):
    __slots__ = ("_count", "items", "kept")

    def __init__(self, first: First, *, count: int, items: list[bytes]) -> None:
        self._count = count
        self.items = items
        self.kept: First | None = first
        self.inherited: set[int] = set()
        self.names: dict[str, int] = {}

    @property
    def count(self) -> int:
        return self._count

    def take(self, each: Other, size: float) -> bytes | None:
        found: bytes | None = None
        total: int = 2**70
        self.late = found, total, each, size
        return found
"""
KNOWN = {"respkv.first": {"First": NativeClass("", {"inherited": "set"})}}


def test_classes_become_native_with_the_types_that_are_trusted() -> None:
    told = tell(SOURCE, KNOWN)
    assert list(told.classes) == ["Second"]
    assert told.classes["Second"].base == "First"
    assert told.classes["Second"].fields == {
        "_count": "object",
        "items": "list",
        "kept": "First",
        "names": "dict",
        "late": "object",
    }
    assert told.declarations.startswith("from respkv.first cimport First\n")
    assert "cdef class Second(First):\n    cdef public object _count\n" in told.declarations


def test_attributes_of_a_base_are_not_declared_again() -> None:
    known = {"respkv.first": {"First": NativeClass("Zeroth", {"names": "dict"}, inherited=frozenset({"inherited", "late"}))}}
    told = tell(SOURCE, known)
    assert list(told.classes["Second"].fields) == ["_count", "items", "kept"]
    assert told.classes["Second"].inherited == {"inherited", "late", "names"}


def test_other_annotations_are_left_out_and_no_line_moves() -> None:
    told = tell(SOURCE, KNOWN)
    before, after = SOURCE.split("\n"), told.source.split("\n")
    assert len(before) == len(after)
    text = told.source
    assert "first: First" in text
    assert "items: list[bytes]" in text
    assert "found: bytes | None = None" in text
    assert "total      = 2**70" in text
    assert "float" not in text
    assert "->" not in text
    assert "import Other" in text


def test_what_is_told_is_python_for_every_hot_module() -> None:
    sources = Sources()
    for name in HOT:
        ast.parse(sources.told[name].source)
        lines = sources.texts[name].decode().split("\n")
        assert len(sources.told[name].source.split("\n")) == len(lines), name


def test_what_a_request_meets_is_native() -> None:
    told = Sources().told
    assert {"Route", "RouteTable"} <= told["respkv.coordinator.routes"].classes.keys()
    assert told["respkv.server.session"].classes["Session"].base == "Client"
    assert told["respkv.commands.context"].classes["Client"].base == "Waiter"
    assert told["respkv.coordinator.coordinator"].classes["Coordinator"].fields["store"] == "Store"
