"""A node's directory: what is missing is noticed at the next start, whatever it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from respkv.errors import ConfigurationError, DamageError
from respkv.storage.directory import COMPLETE_NAME, TABLES_DAMAGED_NAME, DataDirectory, pack_watermark, state_path
from respkv.storage.files import write_atomic
from respkv.storage.log import CommitLog
from respkv.storage.tables import Tables

OWNER = b"o" * 20


class Node:
    """What a node does with its directory between a start and its end."""

    def __init__(self, path: Path, *, owner: bytes = OWNER) -> None:
        self.directory = DataDirectory(path)
        try:
            self.recovery = self.directory.recover(owner=owner)
        except ConfigurationError:
            self.directory.close()
            raise
        self.replayed = [body for _, body, _ in self.recovery.replay()]
        self.damages = self.recovery.damages
        self.tables: Tables = self.recovery.tables
        self.log: CommitLog = self.recovery.open_log(segment_bytes_max=1 << 20)

    @property
    def is_complete(self) -> bool:
        return state_path(self.directory.path, COMPLETE_NAME).exists()

    def keys(self) -> set[bytes]:
        """Everything it knows: a record of this test's log is a key."""
        return {key for _, key, _ in self.tables.rows()} | set(self.replayed)

    def write(self, *keys: bytes) -> None:
        self.log.append_all([(1, key) for key in keys])
        self.log.sync()

    def freeze(self, *keys: bytes) -> None:
        segment = self.log.rotate()
        assert self.tables.write([(1, key, b"record") for key in keys])
        assert self.tables.write_watermark(pack_watermark(self.log, segment))
        self.tables.flush()
        self.log.drop_below(segment)

    def save(self, name: str) -> None:
        write_atomic(state_path(self.directory.path, name), b"1")

    def stop(self) -> None:
        self.log.close()
        self.tables.close()
        self.directory.close()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A complete node that froze `a` and `b`, and has `c` in its log alone."""
    node = Node(tmp_path / "node")
    assert node.damages == []
    node.write(b"a", b"b")
    node.freeze(b"a", b"b")
    node.write(b"c")
    node.save(COMPLETE_NAME)
    node.stop()
    yield tmp_path / "node"
    node = Node(tmp_path / "node")
    assert node.damages == [], "said once"
    node.stop()


def restart(path: Path, *, damage: str, keys: set[bytes], damages_count: int = 1) -> None:
    node = Node(path)
    assert len(node.damages) == damages_count
    assert damage in node.damages[0]
    assert node.keys() == keys
    assert not node.is_complete
    node.stop()


def test_a_healthy_directory_is_read_back(path: Path) -> None:
    node = Node(path)
    assert node.damages == []
    assert node.replayed == [b"c"]
    assert node.keys() == {b"a", b"b", b"c"}
    assert node.is_complete
    assert node.directory.small_files[COMPLETE_NAME] == b"1"
    node.stop()


def test_one_process_at_a_time(path: Path) -> None:
    node = Node(path)
    with pytest.raises(ConfigurationError, match="in use"):
        DataDirectory(path)
    node.stop()


def test_missing_tables_are_noticed(path: Path) -> None:
    shutil.rmtree(path / "tables")
    restart(path, damage="lack what the log had before segment 2", keys={b"c"})


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT", "*.sst"])
def test_tables_without_one_of_their_files_are_noticed_and_kept(path: Path, name: str) -> None:
    next((path / "tables").glob(name)).unlink()
    restart(path, damage="set aside", keys={b"c"}, damages_count=2)
    assert (path / "tables.damaged-1").is_dir()


def test_tables_of_an_earlier_day_are_noticed(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path / "tables", tmp_path / "backup")
    node = Node(path)
    node.write(b"d")
    node.freeze(b"c", b"d")
    node.stop()
    shutil.rmtree(path / "tables")
    (tmp_path / "backup").rename(path / "tables")
    restart(path, damage="the tables end at segment 2", keys={b"a", b"b"})


def test_a_missing_log_is_noticed(path: Path) -> None:
    shutil.rmtree(path / "log")
    node = Node(path)
    assert node.damages == ["the log is missing", "the log is not the one that the tables go with"]
    assert node.keys() == {b"a", b"b"}
    assert not node.is_complete
    node.stop()


def test_a_missing_log_is_noticed_before_anything_was_frozen(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write(b"a")
    node.stop()
    shutil.rmtree(tmp_path / "log")
    node = Node(tmp_path)
    assert node.damages == ["the log is missing"]
    node.stop()


def test_a_damaged_log_is_news_once_and_leaves_the_node_incomplete(path: Path) -> None:
    segment = sorted((path / "log").glob("log-*.seg"))[0]
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    restart(path, damage="is unreadable", keys={b"a", b"b"})
    node = Node(path)
    assert node.recovery.report.is_damaged, "the segment is still there"
    assert node.damages == []
    assert not node.is_complete
    node.save(COMPLETE_NAME)
    node.freeze()
    node.stop()
    node = Node(path)
    assert not node.recovery.report.is_damaged
    assert node.is_complete
    node.stop()


def test_a_lost_mark_is_news_each_time_it_is_lost(path: Path) -> None:
    for _ in range(2):
        (path / "log" / "mark").unlink()
        node = Node(path)
        assert len(node.damages) == 1
        assert not node.is_complete
        node.save(COMPLETE_NAME)
        node.stop()


def test_a_damaged_small_file_is_noticed(path: Path) -> None:
    write_atomic(state_path(path, "ring"), b"content")
    state_path(path, "ring").write_bytes(b"other")
    restart(path, damage="state/ring fails its checksum", keys={b"a", b"b", b"c"})
    state_path(path, "ring").unlink()


def test_damage_met_while_serving_is_repaired_from_what_can_be_read(path: Path) -> None:
    node = Node(path)
    node.freeze(b"c", *(b"%d" % number for number in range(400)))
    node.stop()
    write_atomic(state_path(path, TABLES_DAMAGED_NAME), b"Corruption: somewhere")
    node = Node(path)
    assert node.damages == ["the tables are damaged: Corruption: somewhere", "404 rows were saved, 0 partitions lost some"]
    assert len(node.keys()) == 403
    assert not node.is_complete
    node.stop()
    assert (path / "tables.damaged-1").is_dir()


def test_damage_met_while_starting_is_repaired_by_recovering_again(path: Path) -> None:
    node = Node(path)
    keys = [b"key:%d" % number for number in range(400)]
    node.freeze(b"c", *keys)
    node.stop()
    for table in (path / "tables").glob("*.sst"):
        content = bytearray(table.read_bytes())
        content[60] ^= 255
        table.write_bytes(content)
    directory = DataDirectory(path)
    recovery = directory.recover(owner=OWNER)
    assert recovery.damages == []
    with pytest.raises(DamageError, match="Corruption"):
        list(recovery.rows())
    recovery.close()
    recovery = directory.recover(owner=OWNER)
    assert "Corruption" in recovery.damages[0]
    assert len(list(recovery.rows())) < len(keys)
    recovery.close()
    directory.close()
    Node(path).stop()


@pytest.mark.parametrize("how", ["gone", "unreadable", "spoilt"])
def test_damage_of_the_tables_is_told_until_a_start_has_gone_on_with_it(path: Path, how: str) -> None:
    """Looking at them uses up the evidence, and the process may be killed, or refuse to go on, before anything came of it."""
    match how:
        case "gone":
            shutil.rmtree(path / "tables")
        case "unreadable":
            (path / "tables" / "CURRENT").unlink()
        case _:
            write_atomic(state_path(path, TABLES_DAMAGED_NAME), b"Corruption:\nsomewhere")
    told = []
    for _ in range(3):
        directory = DataDirectory(path)
        recovery = directory.recover(owner=OWNER)
        list(recovery.replay())
        told.append(recovery.damages)
        recovery.close()
        directory.close()
    assert told[0]
    assert told == [told[0]] * 3
    node = Node(path)
    assert node.damages == told[0]
    assert not node.is_complete
    node.stop()


def test_what_is_set_aside_takes_what_was_missing_from_it_along(path: Path) -> None:
    shutil.rmtree(path / "tables")
    directory = DataDirectory(path)
    directory.recover(owner=OWNER).close()
    directory.close()
    directory = DataDirectory(path)
    directory.set_aside_data()
    directory.close()
    node = Node(path)
    assert node.damages == []
    node.stop()


@pytest.mark.parametrize("renamed", [1, 2])
def test_an_interrupted_rebuilding_of_tables_goes_on(path: Path, renamed: int) -> None:
    """Stopped behind the first rename, or behind the second."""
    write_atomic(state_path(path, TABLES_DAMAGED_NAME), b"Corruption: somewhere")
    if renamed == 1:
        (path / "tables").rename(path / "tables.new")
    node = Node(path)
    assert node.damages[0] == "the tables are damaged: Corruption: somewhere"
    assert node.keys() == {b"a", b"b", b"c"}
    assert not node.is_complete
    node.stop()


def test_the_tables_of_another_node_are_refused(path: Path, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", owner=b"x" * 20)
    other.stop()
    with pytest.raises(ConfigurationError, match="holds the log of node"):
        Node(tmp_path / "other")
    shutil.copytree(path / "tables", tmp_path / "stolen")
    shutil.rmtree(tmp_path / "other" / "tables")
    (tmp_path / "stolen").rename(tmp_path / "other" / "tables")
    with pytest.raises(ConfigurationError, match="holds the tables of node"):
        Node(tmp_path / "other", owner=b"x" * 20)


def test_what_is_set_aside_is_not_read_again_and_is_no_damage(path: Path) -> None:
    state = path / "state"
    write_atomic(state / "node-id", b"me")
    for _ in range(2):
        directory = DataDirectory(path)
        directory.set_aside_data("node-id-of-nobody")
        assert directory.small_files["node-id"] == b"me"
        directory.close()
        node = Node(path)
        assert node.damages == []
        assert node.keys() == set()
        assert not node.is_complete
        node.write(b"new")
        node.freeze(b"newer")
        node.save(COMPLETE_NAME)
        node.stop()
    assert sorted(each.name for each in path.iterdir() if each.name.endswith("aside")) == ["log.set-aside", "tables.set-aside"]
    node = Node(path)
    assert node.keys() == {b"newer"}
    node.stop()


def test_what_was_set_aside_outlives_a_crash_before_that_was_noted(path: Path) -> None:
    node = Node(path)
    node.write(b"old")
    node.freeze(b"older")
    node.save(COMPLETE_NAME)
    node.stop()
    for _ in range(2):
        directory = DataDirectory(path)
        directory.set_aside_data()
        directory.close()
    assert list((path / "log.set-aside").iterdir())
    assert list((path / "tables.set-aside").iterdir())
