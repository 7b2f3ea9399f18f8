from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from respkv.compilation import builder, modules

SLOTS = "respkv.placement.slots"


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of its own, in which nothing is compiled yet."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


@pytest.fixture
def one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one module is hot: compiling them all takes minutes."""
    try:
        builder.find_linker()
    except builder.BuildError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(modules, "HOT", (SLOTS,))
    monkeypatch.setattr(builder, "HOT", (SLOTS,))


def built() -> dict[str, str]:
    """Build; why each module could not be, or ""."""
    results: dict[str, str] = {}

    def note(job: builder.Job, problem: str) -> None:
        results[job.name] = problem

    builder.build(builder.Sources(), linker=builder.find_linker(), on_done=note)
    return results


@pytest.mark.usefixtures("prefix", "one_module")
def test_a_module_is_compiled_once_and_older_ones_are_swept() -> None:
    assert built() == {SLOTS: ""}
    sources = builder.Sources()
    assert sources.missing() == []
    stale = modules.folder() / f"{SLOTS}.0123.so"
    stale.touch()
    sources.sweep()
    assert list(modules.folder().iterdir()) == [sources.paths[SLOTS]]


@pytest.mark.usefixtures("one_module")
def test_what_is_compiled_does_what_its_source_does(prefix: Path) -> None:
    built()
    (compiled,) = (prefix / "respkv-compiled").iterdir()
    program = (
        "import sys\n"
        "from importlib.machinery import ExtensionFileLoader\n"
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        f"spec = spec_from_file_location({SLOTS!r}, sys.argv[1], loader=ExtensionFileLoader({SLOTS!r}, sys.argv[1]))\n"
        "module = module_from_spec(spec); spec.loader.exec_module(module)\n"
        "print(module.key_slot(b'foo{bar}'), module.key_slot(b'bar'))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(compiled)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5061", "5061"]


@pytest.mark.usefixtures("prefix", "one_module")
def test_without_a_compiler_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(builder.BuildError, match="no C compiler"):
        built()


@pytest.mark.usefixtures("one_module")
def test_where_nothing_can_be_written_it_says_where(prefix: Path) -> None:
    (prefix / "respkv-compiled").touch()
    with pytest.raises(builder.BuildError, match=r"cannot write to .*respkv-compiled"):
        built()


@pytest.mark.usefixtures("prefix", "one_module")
def test_what_cython_does_not_take_is_reported_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modules.DIRECTIVES, "no_such_directive", "True")
    assert "no_such_directive" in built()[SLOTS]
    assert list(modules.folder().iterdir()) == []
