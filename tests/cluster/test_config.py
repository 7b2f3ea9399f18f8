"""CONFIG on a live cluster: all pairs or none, on all nodes, for good, and known to a node that was away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, NodeProcess, running_cluster, wait_until
from tests.cluster.load import Load
from tests.cluster.wire import is_error

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=3) as found:
        yield found


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Every test begins with all nodes up and the default quorums."""
    cluster.start()
    defaults = {
        "read-quorum": "quorum",
        "write-quorum": "quorum",
        "sloppy-quorum": "yes",
        "hinted-handoff": "yes",
        "request-timeout": "1000",
    }
    assert cluster[0].ask("CONFIG", "SET", *(word for pair in defaults.items() for word in pair)) == b"OK"


def values_of(node: NodeProcess, *names: str) -> list[str]:
    """What CONFIG GET says of each directive."""
    reply = node.ask("CONFIG", "GET", *names)
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    return [found[name.encode()].decode() for name in names]


def test_what_is_set_on_one_node_holds_on_all_when_it_is_answered(cluster: Cluster) -> None:
    for number, node in enumerate(cluster.nodes):
        r, w = [("one", "all"), ("all", "one"), ("2", "2")][number]
        assert node.ask("CONFIG", "SET", "read-quorum", r, "write-quorum", w) == b"OK"
        assert [values_of(each, "read-quorum", "write-quorum") for each in cluster.nodes] == [[r, w]] * 3


def test_an_alias_is_the_same_directive(cluster: Cluster) -> None:
    assert cluster[1].ask("CONFIG", "SET", "w", "3") == b"OK"
    assert values_of(cluster[2], "write-quorum") == ["3"]
    assert cluster[0].ask("CONFIG", "GET", "w") == [b"w", b"3"]


def test_all_or_nothing(cluster: Cluster) -> None:
    before = [values_of(node, "read-quorum", "write-quorum", "loglevel", "request-timeout") for node in cluster.nodes]
    for words in (
        ("read-quorum", "one", "write-quorum", "4"),
        ("request-timeout", "500", "nonsense", "1"),
        ("loglevel", "debug", "request-timeout", "soon"),
        ("loglevel", "debug", "port", "1"),
        ("read-quorum", "one", "read-quorum", "all"),
        ("sloppy-quorum", "yes", "hinted-handoff", "no"),
        ("primary-write-quorum", "3", "write-quorum", "2"),
        ("loglevel", "debug", "replication-factor", "2", "write-quorum", "3"),
    ):
        assert is_error(cluster[0].ask("CONFIG", "SET", *words), "ERR "), words
        after = [values_of(node, "read-quorum", "write-quorum", "loglevel", "request-timeout") for node in cluster.nodes]
        assert after == before, words


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nonsense", "1"], "ERR Unknown option or number of arguments for CONFIG SET - 'nonsense'"),
        (["port", "1"], "ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config"),
        (["dir", "/tmp"], "ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config"),
        (
            ["loglevel", "loud"],
            "ERR CONFIG SET failed (possibly related to argument 'loglevel') - argument(s) must be one of the following: ",
        ),
        (["maxclients", "0"], "ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and "),
        (["timeout", "x"], "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer"),
        (["maxmemory", "much"], "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value"),
        (
            ["loglevel", "debug", "loglevel", "notice"],
            "ERR CONFIG SET failed (possibly related to argument 'loglevel') - duplicate parameter",
        ),
        (["loglevel"], "ERR wrong number of arguments for 'config|set' command"),
        (["read-quorum", "0"], "ERR CONFIG SET failed (possibly related to argument 'read-quorum') - "),
        (["read-quorum", "4"], "ERR CONFIG SET failed (possibly related to argument 'read-quorum') - "),
        (["replication-factor", "0"], "ERR CONFIG SET failed (possibly related to argument 'replication-factor') - "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nonsense_is_refused_in_redis_words(cluster: Cluster, words: list[str], error: str) -> None:
    assert str(cluster[0].ask("CONFIG", "SET", *words)).startswith(error)


def test_what_belongs_to_a_node_stays_there(cluster: Cluster) -> None:
    assert cluster[0].ask("CONFIG", "SET", "slowlog-max-len", "7") == b"OK"
    assert [values_of(node, "slowlog-max-len") for node in cluster.nodes] == [["7"], ["128"], ["128"]]


def test_it_survives_restarts_and_beats_the_command_line(cluster: Cluster) -> None:
    assert cluster[2].ask("CONFIG", "SET", "read-quorum", "one", "write-quorum", "all", "request-timeout", "750") == b"OK"
    cluster.kill_all()
    for node in cluster.nodes:
        node.start("--write-quorum", "2")
    cluster.wait_ready()
    for node in cluster.nodes:
        assert values_of(node, "read-quorum", "write-quorum", "request-timeout") == ["one", "all", "750"]
        assert "write-quorum is all, as CONFIG SET made it, not 2 as the file says" in node.log()


def test_a_node_that_was_away_learns_of_it(cluster: Cluster) -> None:
    away = cluster[2]
    away.kill()
    cluster.wait_seen_down(away)
    assert cluster[0].ask("CONFIG", "SET", "request-timeout", "800", "read-quorum", "1") == b"OK"
    away.start()
    wait_until("it learns", lambda: values_of(away, "request-timeout", "read-quorum") == ["800", "1"])
    away.kill()
    away.start()
    wait_until("it still knows", lambda: values_of(away, "request-timeout", "read-quorum") == ["800", "1"])


def test_quorums_change_under_load_and_no_write_fails(cluster: Cluster) -> None:
    """On the way from old to new the larger ones rule, so reads and writes overlap all the while."""
    with Load(cluster.nodes, name="tuned") as load:
        load.wait_more(100)
        for r, w in (("1", "3"), ("3", "1"), ("2", "2"), ("1", "1"), ("quorum", "quorum")):
            assert cluster[0].ask("CONFIG", "SET", "r", r, "w", w) == b"OK"
            load.wait_more(100)
        load.stop()
    assert set(load.outcomes()) == {"acknowledged"}, load.outcomes()
    cluster.wait_settled()
    load.check_replicas(cluster)


def test_two_nodes_that_are_told_different_things_at_once_agree(cluster: Cluster) -> None:
    with cluster[0].connect() as first, cluster[1].connect() as second:
        for turn in range(20):
            first.send(b"CONFIG SET request-timeout %d\r\n" % (600 + turn))
            second.send(b"CONFIG SET request-timeout %d\r\n" % (700 + turn))
            assert (first.reply(), second.reply()) == (b"OK", b"OK")
            wait_until("they agree", lambda: len({tuple(values_of(node, "request-timeout")) for node in cluster.nodes}) == 1)
            assert values_of(cluster[2], "request-timeout")[0] in {str(600 + turn), str(700 + turn)}


def test_a_connection_may_choose_for_itself(cluster: Cluster) -> None:
    with cluster[0].connect() as wire:
        assert wire.ask("RESPKV", "QUORUM", "R", 1, "W", 3) == b"OK"
        assert wire.ask("SET", "own", "x") == b"OK"
        cluster[1].kill()
        cluster.wait_seen_down(cluster[1])
        assert is_error(wire.ask("SET", "own", "y"), "NOQUORUM")
        assert wire.ask("GET", "own") == b"x"
        assert wire.ask("RESPKV", "QUORUM", "DEFAULT") == b"OK"
        assert wire.ask("SET", "own", "y") == b"OK"
        assert is_error(wire.ask("RESPKV", "QUORUM", "R", 4), "ERR")


def test_config_rewrite(tmp_path: Path) -> None:
    conf = tmp_path / "respkv.conf"
    conf.write_text("# a comment\nloglevel notice\ntimeout 0\n")
    with running_cluster(tmp_path / "cluster", count=1, start=False) as cluster:
        node = cluster[0]
        node.arguments.insert(0, str(conf))
        cluster.start()
        assert node.ask("CONFIG", "SET", "timeout", "77", "maxclients", "500") == b"OK"
        assert node.ask("CONFIG", "REWRITE") == b"OK"
        wait_until("it is written", lambda: "timeout 77" in conf.read_text())
        text = conf.read_text()
        assert text.startswith("# a comment\nloglevel notice\ntimeout 77\n")
        assert "maxclients 500" in text
        node.kill()
        cluster.start()
        assert values_of(node, "timeout", "maxclients") == ["77", "500"]
    with running_cluster(tmp_path / "other", count=1) as cluster:
        assert str(cluster[0].ask("CONFIG", "REWRITE")) == "ERR The server is running without a config file"


def test_the_next_replication_factor_waits_for_the_one_before(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=3) as cluster:
        cluster[2].kill()
        cluster.wait_seen_down(cluster[2])
        assert cluster[0].ask("CONFIG", "SET", "replication-factor", "2") == b"OK"
        assert is_error(cluster[0].ask("CONFIG", "SET", "replication-factor", "1"), "BUSY an earlier change of replication-factor")
        cluster.start()
        wait_until("N is 2", lambda: cluster[1].info("quorum")["respkv_n"] == "2")
        wait_until("that is all", lambda: cluster[0].info("quorum")["respkv_resize"] == "")
        assert cluster[0].ask("CONFIG", "SET", "replication-factor", "1") == b"OK"
