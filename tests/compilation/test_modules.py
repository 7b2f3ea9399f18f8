from __future__ import annotations

from respkv.compilation.modules import HOT, compiled_paths, needs, read_sources, source_path


def changed(name: str) -> set[str]:
    """The modules whose compiled form is another one once the text of `name` changes."""
    sources = read_sources()
    before = compiled_paths(sources)
    after = compiled_paths(sources | {name: sources[name] + b"#"})
    return {each for each in HOT if before[each] != after[each]}


def test_hot_modules_exist_and_are_named_once() -> None:
    assert len(set(HOT)) == len(HOT)
    assert all(source_path(name).is_file() for name in HOT)


def test_an_edited_module_and_those_that_rely_on_it_are_compiled_anew() -> None:
    touched = changed("respkv.coordinator.batches")
    assert {"respkv.coordinator.batches", "respkv.coordinator.writes", "respkv.coordinator.coordinator"} <= touched
    assert not {"respkv.resp.reader", "respkv.coordinator.routes", "respkv.storage.store"} & touched
    assert changed("respkv.server.reactor") == {"respkv.server.reactor"}


def test_a_module_relies_on_earlier_ones_only() -> None:
    for name, source in read_sources().items():
        assert all(HOT.index(each) < HOT.index(name) for each in needs(name, source))
