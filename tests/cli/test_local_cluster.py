from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from respkv.cli.local_cluster import HOST, LocalCluster, UnfitFolderError, held_by_this_process, open_cluster
from respkv.config.founders import founders
from respkv.config.settings import Settings
from respkv.config.start import configure
from respkv.errors import ConfigurationError
from respkv.storage.files import DirectoryLock


def open_new(folder: Path, **directives: str) -> LocalCluster:
    given = {name.replace("_", "-"): [value] for name, value in directives.items()}
    return open_cluster(folder, node_count=3, first_port=7101, directives=given)


def settings_of(path: Path) -> Settings:
    return configure([str(path)], read=lambda name: [(name, Path(name).read_text())]).settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_nodes_have_consecutive_ports_and_know_each_other(folder: Path) -> None:
    cluster = open_new(folder)
    cluster.write()
    for index, node in enumerate(cluster.nodes):
        settings = settings_of(node.conf_path)
        assert settings.port == 7101 + index
        assert settings.cluster_port == 17101 + index
        assert settings.dir == str(node.folder)
        assert [founder.port for founder in founders(settings)] == [7101, 7102, 7103]


def test_all_share_one_secret_that_only_the_owner_reads_and_that_stays(folder: Path) -> None:
    cluster = open_new(folder)
    cluster.write()
    cluster.write()
    secrets = {settings_of(node.conf_path).cluster_secret for node in cluster.nodes}
    assert secrets == {cluster.secret_path.read_text().strip()}
    for path in [cluster.secret_path, *(node.conf_path for node in cluster.nodes)]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_folder_remembers_its_nodes_and_ports(folder: Path) -> None:
    open_new(folder).write()
    again = open_cluster(folder, node_count=None, first_port=None, directives={})
    assert [node.port for node in again.nodes] == [7101, 7102, 7103]


def test_a_folder_is_not_opened_as_another_cluster(folder: Path) -> None:
    open_new(folder).write()
    with pytest.raises(UnfitFolderError, match="holds a cluster of 3 nodes from port 7101 on"):
        open_cluster(folder, node_count=5, first_port=None, directives={})


def test_directives_stay_and_so_do_lines_of_the_user(folder: Path) -> None:
    cluster = open_new(folder, maxmemory="100mb")
    cluster.write()
    conf = cluster.nodes[0].conf_path
    conf.write_text(conf.read_text() + "loglevel debug\n")
    open_new(folder, requirepass="a b").write()
    settings = settings_of(conf)
    assert (settings.maxmemory, settings.loglevel, settings.requirepass) == (100 * 2**20, "debug", "a b")
    assert open_new(folder).address_of(cluster.nodes[0]).password == "a b"


def test_a_moved_folder_is_found_again(folder: Path) -> None:
    open_new(folder).write()
    moved = folder.rename(folder.with_name("moved"))
    cluster = open_new(moved)
    cluster.write()
    assert settings_of(cluster.nodes[0].conf_path).dir == str(moved / "n1")


def test_what_no_node_would_take_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(ConfigurationError):
        open_new(folder, maxmemory="plenty").write()
    with pytest.raises(ConfigurationError):
        open_new(folder, read_quorum="5").write()
    assert list(folder.iterdir()) == []


def test_ports_must_leave_room_for_the_cluster_ports(folder: Path) -> None:
    with pytest.raises(UnfitFolderError, match="too high"):
        open_cluster(folder, node_count=5, first_port=55532, directives={})


def test_one_supervisor_at_a_time(folder: Path) -> None:
    cluster = LocalCluster(folder, (), {})
    with held_by_this_process(cluster), pytest.raises(UnfitFolderError, match="another"), held_by_this_process(cluster):
        pass
    with held_by_this_process(cluster):
        pass


def test_what_came_to_nothing_leaves_nothing_behind(folder: Path) -> None:
    cluster = open_cluster(folder / "new" / "data", node_count=1, first_port=None, directives={"maxmemory": ["plenty"]})
    with pytest.raises(ConfigurationError), held_by_this_process(LocalCluster(cluster.folder, (), cluster.directives)):
        cluster.write()
    assert list(folder.iterdir()) == []


def test_a_node_of_this_folder_that_runs_already_is_named(folder: Path) -> None:
    cluster = open_new(folder)
    node = cluster.nodes[1]
    cluster.write()
    assert not node.is_running()
    lock = DirectoryLock(node.folder)
    try:
        assert node.is_running()
        with pytest.raises(UnfitFolderError, match=f"n2  redis-cli -p {node.port} SHUTDOWN"), held_by_this_process(cluster):
            pass
    finally:
        lock.close()
    assert not node.is_running()


def test_a_port_that_somebody_listens_on_is_named(folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        # The listener may be beyond the ports that can be first ones: only its number matters here.
        node = open_new(folder).nodes[0]
        cluster = LocalCluster(folder, (type(node)("n1", port, node.folder),), {})
        with pytest.raises(UnfitFolderError, match=f"port {port} is in use"), held_by_this_process(cluster):
            pass


def test_lines_of_a_node_may_hold_bytes_that_are_no_utf_8(folder: Path) -> None:
    open_new(folder).write()
    path = open_new(folder).nodes[0].conf_path
    path.write_bytes(path.read_bytes() + b'requirepass "caf\xe9"\n')
    open_new(folder).write()
    assert b'requirepass "caf\xe9"\n' in path.read_bytes()


def test_a_damaged_node_file_is_refused_in_a_sentence(folder: Path) -> None:
    open_new(folder).write()
    open_new(folder).nodes[0].conf_path.write_bytes(bytes(range(128, 256)) * 3)
    with pytest.raises(ConfigurationError, match=r"n1/respkv\.conf, at line 1"):
        open_new(folder).write()


def test_a_secret_that_is_damaged_is_named(folder: Path) -> None:
    open_new(folder).write()
    open_new(folder).secret_path.write_text("x\n")
    with pytest.raises(UnfitFolderError, match="cluster-secret is damaged"):
        open_new(folder).write()
