from __future__ import annotations

import sys
from pathlib import Path

import pytest

from respkv.cli.compilation import compile_hot_modules
from respkv.compilation import builder, modules

SLOTS = "respkv.placement.slots"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of its own, in which nothing is compiled yet; one module is hot."""
    try:
        builder.find_linker()
    except builder.BuildError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(modules, "HOT", (SLOTS,))
    monkeypatch.setattr(builder, "HOT", (SLOTS,))


def test_it_says_what_it_does_and_nothing_when_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_hot_modules() == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "compiling 1 of the 1 files" in told.err
    assert "compiled in" in told.err
    assert compile_hot_modules() == 0
    assert capsys.readouterr() == ("", "")


def test_without_a_compiler_it_says_so_in_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert compile_hot_modules() == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_one_module_that_cannot_be_compiled_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modules.DIRECTIVES, "no_such_directive", "True")
    assert compile_hot_modules() == 1
    assert f"1 files could not be compiled and are interpreted, which is slower; {SLOTS}:" in capsys.readouterr().err
