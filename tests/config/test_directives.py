from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

from respkv.config.conf_lines import lines_of
from respkv.config.directive import Directive, Kind, Scope
from respkv.config.directives import BY_NAME, DIRECTIVES, GROUPS, SHARED, lookup
from respkv.config.reference import reference_conf
from respkv.config.settings import Settings
from respkv.config.start import configure
from respkv.config.values import BufferLimits, arguments_of, parse, show

CONF = Path(__file__).parents[2] / "conf" / "respkv.conf"
TYPES: dict[Kind, object] = {
    Kind.BOOL: bool,
    Kind.INTEGER: int,
    Kind.MEMORY: int,
    Kind.ENUM: str,
    Kind.STRING: str,
    Kind.LIST: tuple[str, ...],
    Kind.QUORUM: str,
    Kind.BUFFER_LIMITS: BufferLimits,
}
each_directive = pytest.mark.parametrize("directive", DIRECTIVES, ids=lambda directive: directive.name)


def test_names_and_aliases_are_unique() -> None:
    names = [name for directive in DIRECTIVES for name in (directive.name, directive.alias) if name]
    assert len(names) == len(set(names)) == len(BY_NAME)


def test_settings_declare_what_the_table_holds() -> None:
    declared = {name: hint for name, hint in get_type_hints(Settings).items() if name in inspect.get_annotations(Settings)}
    assert declared == {directive.attribute: TYPES[directive.kind] for directive in DIRECTIVES}


@each_directive
def test_default_is_an_argument_that_it_takes(directive: Directive) -> None:
    value = parse(directive, arguments_of(directive, directive.default))
    assert Settings().value(directive) == value
    assert parse(directive, arguments_of(directive, show(value))) == value


@each_directive
def test_help_says_in_which_direction_to_turn_it(directive: Directive) -> None:
    assert directive.help.endswith(".")
    has_range = directive.kind in {Kind.INTEGER, Kind.MEMORY, Kind.QUORUM} and directive.minimum < directive.maximum
    is_address = directive.name.endswith("port")
    if has_range and not is_address and directive.name != "cluster-node-timeout":
        assert "raise it" in directive.help.lower() or "lower it" in directive.help.lower()


@each_directive
def test_numbers_have_a_unit(directive: Directive) -> None:
    is_count_of_itself = directive.name in {"databases", "phi-threshold"} or directive.name.endswith("port")
    if directive.kind in {Kind.INTEGER, Kind.MEMORY} and not is_count_of_itself:
        assert directive.unit


@each_directive
def test_help_names_only_directives_that_exist(directive: Directive) -> None:
    words = {word.strip("`.,:;()") for word in directive.help.split()}
    tails = {name.rsplit("-", 1)[-1] for name in BY_NAME if "-" in name}
    suspects = {word for word in words if "-" in word and word.islower() and word.rsplit("-", 1)[-1] in tails}
    assert suspects <= set(BY_NAME) | {"anti-entropy", "set-timeout"}


def test_lookup_takes_any_case_and_aliases() -> None:
    assert lookup("N-Val") is lookup("replication-factor") is not None
    assert lookup("nothing") is None


def test_what_is_shared_can_be_changed_while_running() -> None:
    assert SHARED
    assert all(directive.scope is Scope.CLUSTER and not directive.immutable for directive in SHARED)


def test_groups_hold_each_directive_once() -> None:
    assert sum(len(group.directives) for group in GROUPS) == len(set(DIRECTIVES))


def test_conf_file_is_generated_from_the_table() -> None:
    assert CONF.read_text() == reference_conf(), "run tools/generate_conf.py"


def test_conf_file_sets_every_directive_to_its_default() -> None:
    start = configure(["respkv.conf"], read=lambda path: [(path, CONF.read_text())])
    assert start.settings == Settings()
    assert list(start.given) == [directive.name for directive in DIRECTIVES]
    assert start.settings.changed() == {}


def test_conf_file_explains_each_line() -> None:
    text = CONF.read_text()
    lines = text.split("\n")
    for line in lines_of(text, source="respkv.conf"):
        assert lines[line.number - 2].startswith("#"), line.text
