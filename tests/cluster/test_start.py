"""Starting and stopping a node: what it refuses, how it says so, and the exit codes that a supervisor may count on."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from respkv.placement.ring import Ring, decode_ring
from respkv.server.cluster import RING_FILE
from respkv.server.main import EXIT_DAMAGE, EXIT_DISK, EXIT_REFUSED, EXIT_STOPPED
from respkv.storage.directory import state_path
from respkv.storage.files import read_checked, write_atomic
from respkv.storage.log_format import segment_path
from tests.cluster.harness import HOST, NodeProcess, free_ports, running_cluster, wait_until
from tests.cluster.wire import packed

pytestmark = pytest.mark.cluster


def lone_node(folder: Path, *directives: str, host: str = HOST) -> NodeProcess:
    port, cluster_port = free_ports(2)
    node = NodeProcess("n1", folder=folder / "n1", port=port, cluster_port=cluster_port, host=host)
    node.arguments = ["--port", str(port), "--cluster-port", str(cluster_port), "--dir", str(node.folder), *directives]
    return node


def refused(node: NodeProcess, *directives: str) -> str:
    """Start it in vain; what it said."""
    node.start(*directives)
    try:
        assert node.wait_ended(20) == EXIT_REFUSED, node.log_tail()
    finally:
        node.kill()
    return node.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running_cluster(tmp_path, count=1) as cluster:
        node = cluster[0]
        assert node.ask("SET", "k", "kept") == b"OK"
        node.signal(number)
        assert node.wait_ended() == EXIT_STOPPED
        assert f"received {number.name}, shutting down" in node.log()
        cluster.start()
        assert node.ask("GET", "k") == b"kept"


def test_shutdown_ends_it_in_order(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=1) as cluster:
        node = cluster[0]
        with node.connect() as wire:
            assert wire.ask("SET", "k", "kept") == b"OK"
            with pytest.raises(ConnectionError):
                wire.ask("SHUTDOWN")
        assert node.wait_ended() == EXIT_STOPPED
        cluster.start()
        assert node.ask("GET", "k") == b"kept"


@pytest.mark.parametrize(
    ("directives", "sentence"),
    [
        (["--nonsense", "1"], "'nonsense \"1\"'"),
        (["--maxmemory", "much"], "'maxmemory \"much\"'"),
        (["--replication-factor", "0"], "'replication-factor \"0\"'"),
        (["--write-quorum", "4", "--replication-factor", "3"], "write-quorum"),
        (["--hinted-handoff", "no"], "hinted-handoff"),
        (["--ring-size", "1000"], "argument must be a power of two"),
        (["--cluster-secret", "short"], "cluster-secret"),
        (["--include", "/nowhere/respkv.conf"], "can't open config file '/nowhere/respkv.conf'"),
        (["stray"], "wrong number of arguments"),
        (["--logfile", "/nowhere/respkv.log"], "cannot open the logfile /nowhere/respkv.log: No such file or directory"),
        (["--logfile", "/"], "cannot open the logfile /: Is a directory"),
        (["--dir", "/proc/nowhere"], "dir: cannot make the directory /proc/nowhere: No such file or directory"),
        (["--dir", "/dev/null"], "dir: cannot make the directory /dev/null: File exists"),
    ],
)
def test_nonsense_is_refused_with_the_line_at_fault(tmp_path: Path, directives: list[str], sentence: str) -> None:
    node = lone_node(tmp_path)
    said = refused(node, *directives)
    assert sentence in said
    assert "Traceback" not in said
    assert not node.folder.exists(), "refused before anything is written"


def test_a_secret_is_not_repeated_in_a_refusal(tmp_path: Path) -> None:
    said = refused(lone_node(tmp_path), "--cluster-secret", "hush-hush")
    assert "hush-hush" not in said


def test_a_configuration_file_that_is_missing(tmp_path: Path) -> None:
    node = lone_node(tmp_path)
    node.arguments.insert(0, str(tmp_path / "nowhere.conf"))
    assert "can't open config file" in refused(node)


def test_a_port_in_use(tmp_path: Path) -> None:
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        node = lone_node(folder)
        with socket.socket() as other:
            other.bind((HOST, (node.port, node.cluster_port)[index]))
            other.listen()
            assert f"cannot listen on {HOST}:{(node.port, node.cluster_port)[index]}" in refused(node)


def test_a_directory_in_use(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "first", count=1) as cluster:
        second = lone_node(tmp_path)
        assert f"{cluster[0].folder} is in use" in refused(second, "--dir", str(cluster[0].folder))
        assert cluster[0].ask("SET", "k", "x") == b"OK"


def test_a_list_of_nodes_that_lacks_this_one(tmp_path: Path) -> None:
    ports = free_ports(2)
    said = refused(lone_node(tmp_path), "--cluster-nodes", f"{HOST}:{ports[0]}@{ports[1]}")
    assert "cluster-nodes does not name this node" in said


def test_a_directory_of_another_node_or_ring(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", count=3) as cluster:
        cluster.kill_all()
        node = cluster[0]
        address = f"{HOST}:{node.port}@{node.cluster_port}"
        assert "but this directory was founded with" in refused(node, "--cluster-nodes", address)
        assert "ring-size is 2048, but this directory was founded with 1024" in refused(node, "--ring-size", "2048")
        assert "belongs to node" in refused(lone_node(tmp_path), "--dir", str(node.folder))


def test_a_directory_whose_partitions_another_release_has_shared_out(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", count=3) as cluster:
        cluster.kill_all()
        for node in cluster.nodes:
            path = state_path(node.folder, RING_FILE)
            kept = read_checked(path)
            assert kept is not None
            ring = decode_ring(kept)
            write_atomic(path, Ring(ring.epoch, ring.members, ring.owners[1:] + ring.owners[:1]).encode())
        cluster.start()
        assert cluster[0].ask("SET", "k", "v") == b"OK"
        assert cluster[1].ask("GET", "k") == b"v"


def test_two_rings_of_one_epoch_refuse_each_other(tmp_path: Path) -> None:
    """A node that comes back empty, with another list of founders, is none of theirs: both sides say so, the others serve on."""
    with running_cluster(tmp_path, count=3) as cluster:
        *right, odd = cluster.nodes
        odd.kill()
        shutil.rmtree(odd.folder)
        first = odd.arguments.index("--cluster-nodes") + 1
        odd.arguments[first : first + 3] = [right[0].address, odd.address]
        cluster.wait_seen_down(odd)
        odd.start()
        for node in cluster.nodes:
            wait_until(f"{node.name} complains", lambda node=node: "neither serves the other" in node.log())  # type: ignore[misc]
        keys = [f"k{index}" for index in range(100)]
        assert {right[0].ask("SET", key, "x") for key in keys} == {b"OK"}
        assert {right[1].ask("GET", key) for key in keys} == {b"x"}
        assert {str(odd.ask("GET", key))[:8] for key in keys} == {"NOQUORUM"}
        assert [node.info("respkv")["respkv_nodes_counting"] for node in right] == ["2", "2"]


def test_a_disk_that_fails(tmp_path: Path) -> None:
    node = lone_node(tmp_path)
    node.folder.mkdir()
    (node.folder / "log").write_text("not a directory")
    node.start()
    try:
        assert node.wait_ended() == EXIT_DISK
    finally:
        node.kill()
    assert "the disk failed" in node.log()


def test_damage_that_nobody_can_repair(tmp_path: Path) -> None:
    """One node, N=1: nobody has copies of what is lost, so only an explicit word of the operator's starts it."""
    with running_cluster(tmp_path, count=1, directives=["--appendfsync", "always"]) as cluster:
        node = cluster[0]
        replies = [node.ask("SET", f"k{index}", "x" * 1000) for index in range(20)]
        assert set(replies) == {b"OK"}
        cluster.kill_all()
        (segment,) = sorted((node.folder / "log").glob("log-*.seg"))
        content = bytearray(segment.read_bytes())
        content[5000:5100] = bytes(100)
        segment.write_bytes(content)
        node.start()
        assert node.wait_ended() == EXIT_DAMAGE
        assert "accept-data-loss" in node.log()
        node.start("--accept-data-loss", "yes")
        wait_until("it serves", lambda: node.ask("SET", "new", "x") == b"OK")
        kept = [node.ask("GET", f"k{index}") for index in range(20)].count(b"x" * 1000)
        assert 15 <= kept < 20
        # The word was for one start; what was lost is known, so no further word is needed.
        node.signal(signal.SIGTERM)
        assert node.wait_ended() == EXIT_STOPPED
        cluster.start()
        assert node.ask("GET", "new") == b"x"


def test_damage_of_the_tables_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    """It is met while they are read: they are rebuilt, and what was lost stays known, however often the start is refused."""
    directives = ["--memtable-size", "1mb", "--commit-log-segment-size", "1mb"]
    with running_cluster(tmp_path, count=1, directives=directives) as cluster:
        node = cluster[0]
        tables = node.folder / "tables"
        with node.connect() as wire:
            for index in range(1000):
                assert wire.ask("SET", f"k{index}", os.urandom(2000)) == b"OK"
        wait_until("the log relies on the tables", lambda: not segment_path(node.folder / "log", 1).exists())
        cluster.kill_all()
        path = max(tables.glob("*.sst"), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[10_000:12_000] = bytes(2000)
        path.write_bytes(content)
        for _ in range(2):
            node.start()
            assert node.wait_ended() == EXIT_DAMAGE, node.log_tail()
        assert "accept-data-loss" in node.log()
        node.start("--accept-data-loss", "yes")
        wait_until("it serves", lambda: node.ask("SET", "new", "x") == b"OK")
        assert int(node.info("respkv")["respkv_damages"]) > 0
        assert 900 <= node.ask("DBSIZE") <= 1000
        damages = node.info("respkv")["respkv_damages"]
        cluster.kill_all()
        cluster.start()
        assert node.info("respkv")["respkv_damages"] == damages


def test_a_disk_that_fails_while_the_node_serves(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=1) as cluster:
        node = cluster[0]
        (node.folder / "state").rename(node.folder / "state.away")
        with node.connect() as wire:
            wire.send(packed("CONFIG", "SET", "request-timeout", "1500"))
            assert node.wait_ended() == EXIT_DISK
        assert f"the disk failed, stopping without a retry: cannot write {node.folder}/state/" in node.log()


def test_tables_that_vanish_while_the_node_serves(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=1, directives=["--memtable-size", "1mb"]) as cluster:
        node = cluster[0]
        tables = node.folder / "tables"
        # The node may write a file there meanwhile.
        while tables.exists():
            shutil.rmtree(tables, ignore_errors=True)
        with node.connect() as wire:
            wire.send(b"".join(packed("SET", f"key:{number}", "x" * 1000) for number in range(3000)))
            assert node.wait_ended() == EXIT_DISK
        assert "the disk failed, stopping without a retry: cannot flush the tables: " in node.log()
        assert "not starting" not in node.log()


def test_few_open_files_leave_half_of_them_to_clients(tmp_path: Path) -> None:
    node = lone_node(tmp_path)
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)); from respkv.server.main import run_server; "
    node.entry = ("-c", limited + "sys.exit(run_server(sys.argv[1:]))")
    node.start()
    try:
        with wait_until("it serves", node.connect) as wire:
            assert wire.ask("CONFIG", "GET", "maxclients") == [b"maxclients", b"256"]
        assert "only 512 open files are allowed: maxclients is now 256" in node.log()
    finally:
        node.kill()


def test_a_lock_that_outlives_its_process_is_no_obstacle(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=1) as cluster:
        cluster.kill_all()
        descriptor = os.open(cluster[0].folder / "lock", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        cluster.start()


def test_a_client_that_comes_back_at_once_is_let_in_when_the_node_has_met_the_others(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=5) as cluster:
        node = cluster[0]
        node.kill()
        node.start()
        commands = [words for number in range(50) for words in (("GET", f"none:{number}"), ("SET", f"k:{number}", "x"))]
        with wait_until("it listens", node.connect) as wire:
            assert wire.ask_all(commands) == [None, b"OK"] * 50


def test_a_node_that_meets_nobody_lets_clients_in_all_the_same(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=3) as cluster:
        cluster.kill_all()
        cluster[0].start()
        assert wait_until("it serves", lambda: cluster[0].ask("PING")) == b"PONG"
        assert str(cluster[0].ask("SET", "k", "x")).startswith("NOQUORUM")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_a_client_of_ipv6_is_known_by_its_address_in_brackets(tmp_path: Path) -> None:
    node = lone_node(tmp_path, "--bind", "::1", host="::1")
    node.start()
    try:
        with wait_until("it serves", node.connect) as wire:
            address = f"[::1]:{wire.socket.getsockname()[1]}"
            assert f" addr={address} laddr=[::1]:{node.port} " in wire.ask("CLIENT", "INFO").decode()
            assert node.ask("CLIENT", "KILL", address) == b"OK"
    finally:
        node.kill()
