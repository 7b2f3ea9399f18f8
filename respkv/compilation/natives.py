"""What Cython is told about a hot module beside its text, drawn from the text itself: native classes, and which annotations to trust.

A class without decorators, whose bases are native, becomes an extension type: its attributes lie in a C structure, and
whoever knows the class reads them without a dictionary. Annotations that name such classes, or `bytes`, `list`, `dict`
and `set`, are trusted (and checked where values come in); all others are left to mypy: integers stay as long as they like.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BUILTIN = frozenset({"bytes", "list", "dict", "set"})

Natives = Mapping[str, Mapping[str, "NativeClass"]]
"""The native classes of the modules that may be relied upon, by the module's name and their own."""


@dataclass(slots=True)
class NativeClass:
    """A class that becomes an extension type."""

    base: str
    fields: dict[str, str] = field(default_factory=dict)
    """The type of each attribute of its own: a builtin, a native class, or `object`."""
    inherited: frozenset[str] = frozenset()
    """The attributes of its base, and of the bases of that."""


@dataclass(frozen=True, slots=True)
class Told:
    """A module as Cython gets it."""

    source: str
    """Line by line the same text, without what would be misunderstood."""
    declarations: str
    """The `.pxd` beside it."""
    classes: dict[str, NativeClass]


def tell(source: str, known: Natives) -> Told:
    """Draw the declarations of a module. `known` are the modules before it."""
    tree = ast.parse(source)
    imported = {
        (statement.module, alias.name)
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom) and statement.module is not None and statement.module in known
        for alias in statement.names
        if alias.name in known[statement.module] and alias.asname is None
    }
    visible: dict[str, NativeClass] = {name: known[module][name] for module, name in imported}
    classes: dict[str, NativeClass] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _may_be_native(node, visible | classes):
            classes[node.name] = NativeClass(_name_of(node.bases[0]) if node.bases else "")
    names = BUILTIN | visible.keys() | classes.keys()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            own = classes[node.name]
            if own.base:
                base = (visible | classes)[own.base]
                own.inherited = base.inherited | base.fields.keys()
            own.fields = {name: kind for name, kind in _fields(node, names) if name not in own.inherited}
    lines = [f"from {module} cimport {name}" for module, name in sorted(imported)]
    for name, own in classes.items():
        lines += ["", f"cdef class {name}({own.base}):" if own.base else f"cdef class {name}:"]
        lines += [f"    cdef public {kind} {attribute}" for attribute, kind in own.fields.items()] or ["    pass"]
    return Told(_blanked(source, tree, names, {name for _, name in imported}), "\n".join(lines) + "\n", classes)


def _may_be_native(node: ast.ClassDef, natives: Mapping[str, NativeClass]) -> bool:
    if node.decorator_list or node.keywords or len(node.bases) > 1:
        return False
    return not any(isinstance(item, ast.AnnAssign) for item in node.body) and all(_name_of(base) in natives for base in node.bases)


def _fields(node: ast.ClassDef, names: frozenset[str] | set[str]) -> Iterator[tuple[str, str]]:
    """Every attribute of a class and its type: those in `__slots__`, and all that its methods assign."""
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    properties = {method.name for method in methods if method.decorator_list}
    kinds: dict[str, str] = {}
    for item in node.body:
        if isinstance(item, ast.Assign) and _name_of(item.targets[0]) == "__slots__":
            kinds |= dict.fromkeys(ast.literal_eval(item.value), "object")
    for method in methods:
        parameters = {each.arg: each.annotation for each in (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)}
        for statement in ast.walk(method):
            for target, annotation, value in _assigned(statement):
                known = annotation
                if known is None and method.name == "__init__" and isinstance(value, ast.Name):
                    known = parameters.get(value.id)
                if known is None and isinstance(value, ast.Call):
                    known = value.func
                kind = _kind(known, names)
                if kinds.get(target, "object") == "object":
                    kinds[target] = kind
    return ((name, kind) for name, kind in kinds.items() if name not in properties)


def _assigned(statement: ast.AST) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """The attributes of `self` that a statement assigns, with their annotation and value where they have one."""
    if isinstance(statement, ast.AnnAssign):
        if _is_own(statement.target):
            yield statement.target.attr, statement.annotation, statement.value  # type: ignore[union-attr]
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            for part in parts:
                if _is_own(part):
                    yield part.attr, None, statement.value if part is target else None  # type: ignore[attr-defined]


def _is_own(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and _name_of(target.value) == "self"


def _kind(annotation: ast.expr | None, names: frozenset[str] | set[str]) -> str:
    """What an annotation is trusted for. None may stand in for every type, as in C."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        sides = (annotation.left, annotation.right)
        rest = [side for side in sides if not (isinstance(side, ast.Constant) and side.value is None)]
        return _kind(rest[0], names) if len(rest) == 1 else "object"
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    name = _name_of(annotation)
    return name if name in names else "object"


def _name_of(node: ast.expr | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _blanked(source: str, tree: ast.Module, names: frozenset[str] | set[str], imported: set[str]) -> str:
    """The text without the annotations that are not to be trusted, and without imports of what the declarations import."""
    lines = [bytearray(line.encode()) for line in source.split("\n")]

    def blank(node: ast.expr, start: tuple[int, int]) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        line, column = start
        while line <= node.end_lineno:
            end = node.end_col_offset if line == node.end_lineno else len(lines[line - 1])
            lines[line - 1][column:end] = b" " * (end - column)
            line, column = line + 1, 0

    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None and _kind(node.annotation, names) == "object":
            blank(node.annotation, (node.lineno, node.col_offset + len(node.arg.encode())))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            blank(node.returns, _arrow(lines, node.returns))
    for node in _local_annotations(tree):
        if _kind(node.annotation, names) == "object":
            assert node.target.end_lineno is not None
            assert node.target.end_col_offset is not None
            blank(node.annotation, (node.target.end_lineno, node.target.end_col_offset))
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and {alias.name for alias in statement.names} & imported:
            _reimport(lines, statement, imported)
    return b"\n".join(lines).decode()


def _arrow(lines: list[bytearray], returns: ast.expr) -> tuple[int, int]:
    """Where the `->` before a return annotation stands: on its line, as the formatter writes it."""
    return returns.lineno, bytes(lines[returns.lineno - 1]).rindex(b"->", 0, returns.col_offset)


def _local_annotations(tree: ast.Module) -> Iterator[ast.AnnAssign]:
    """Annotated assignments inside functions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in ast.walk(function):
                if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                    yield statement


def _reimport(lines: list[bytearray], statement: ast.ImportFrom, imported: set[str]) -> None:
    """Leave only those names in an import that the declarations do not import."""
    assert statement.end_lineno is not None
    left = [alias for alias in statement.names if alias.name not in imported]
    words = ", ".join(alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in left)
    text = f"from {statement.module} import {words}" if left else "pass"
    lines[statement.lineno - 1][statement.col_offset :] = text.encode()
    for line in range(statement.lineno, statement.end_lineno):
        lines[line] = bytearray()
