from __future__ import annotations

from pathlib import Path

from respkv.server.config_file import ConfigFile
from tests.commands.node_alone import Caller, World


def shown(client: Caller, *names: str) -> dict[str, str]:
    flat = [word.decode() for word in client("CONFIG", "GET", *names)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_patterns_aliases_and_secrets() -> None:
    client = World(1, requirepass="", cluster_secret="0123456789abcdef").client()
    assert shown(client, "maxmemory*") == {"maxmemory": "0", "maxmemory-policy": "noeviction", "maxmemory-clients": "1073741824"}
    assert shown(client, "save", "appendonly") == {"save": "", "appendonly": "yes"}
    assert shown(client, "R", "n-val") == {"R": "quorum", "n-val": "1"}
    assert shown(client, "databases") == {"databases": "1"}
    assert shown(client, "nosuch") == {}
    assert shown(client, "cluster-secret") == {"cluster-secret": ""}
    assert len(shown(client, "*")) > 60


def test_in_resp3_it_is_a_map() -> None:
    client = World(1).client()
    client("HELLO", "3")
    assert client.raw("CONFIG", "GET", "port") == b"%1\r\n$4\r\nport\r\n$4\r\n7001\r\n"


def test_what_belongs_to_the_cluster_changes_on_all_nodes_and_the_rest_on_one() -> None:
    world = World(3)
    clients = [world.client(index) for index in range(3)]
    assert clients[1]("CONFIG", "SET", "r", "1", "w", "3", "slowlog-max-len", "7") == b"OK"
    assert [shown(client, "read-quorum", "write-quorum") for client in clients] == [{"read-quorum": "1", "write-quorum": "3"}] * 3
    assert [shown(client, "slowlog-max-len")["slowlog-max-len"] for client in clients] == ["128", "7", "128"]


def test_several_pairs_change_together_or_not_at_all() -> None:
    client = World(3).client()
    reply = client("CONFIG", "SET", "slowlog-max-len", "7", "r", "4")
    assert str(reply).startswith("ERR CONFIG SET failed (possibly related to argument 'r")
    assert shown(client, "slowlog-max-len", "r") == {"slowlog-max-len": "128", "r": "quorum"}


def test_refusals_are_worded_as_by_redis() -> None:
    client = World(1).client()
    assert str(client("CONFIG", "SET", "nosuch", "1")) == "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"
    assert str(client("CONFIG", "SET", "port", "1")).endswith("- can't set immutable config")
    assert str(client("CONFIG", "SET", "dir", "/")).endswith("- can't set protected config")
    assert str(client("CONFIG", "SET", "maxclients", "0")).endswith("- argument must be between 1 and 4294967295 inclusive")
    assert str(client("CONFIG", "SET", "maxclients")) == "ERR wrong number of arguments for 'config|set' command"
    assert str(client("CONFIG", "SET", "maxclients", "5", "timeout")) == "ERR syntax error"
    assert str(client("CONFIG", "SET", "timeout", "1", "timeout", "2")).endswith("- duplicate parameter")
    assert str(client("CONFIG", "REWRITE")) == "ERR The server is running without a config file"
    assert str(client("CONFIG", "NOSUCH")) == "ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP."


def test_one_change_of_the_number_of_replicas_at_a_time() -> None:
    world = World(5)
    client = world.client()
    client("SET", "a", "1")
    assert client("CONFIG", "SET", "n-val", "5", "r", "3", "w", "3") == b"OK"
    reply = str(client("CONFIG", "SET", "n-val", "4"))
    assert reply == "BUSY an earlier change of replication-factor, from 3 to 5, is still being carried out; nothing was done"
    # All else may change meanwhile, and so may its target back to where it was.
    assert client("CONFIG", "SET", "n-val", "5", "r", "2") == b"OK"
    assert client("CONFIG", "SET", "n-val", "3") == b"OK"


def test_the_file_is_rewritten_with_its_comments(tmp_path: Path) -> None:
    world = World(1)
    process, client = world.processes[0], world.client()
    path = tmp_path / "respkv.conf"
    path.write_text("# mine\nport 7001\ntimeout 5\n")
    path.chmod(0o640)
    process.node.context.facts["config"] = ConfigFile(str(path))
    process.settings.timeout = 5
    client("CONFIG", "SET", "timeout", "9", "slowlog-max-len", "128")
    assert client("CONFIG", "REWRITE") == b"OK"
    text = path.read_text()
    assert text.startswith("# mine\nport 7001\ntimeout 9\n")
    # Set to its default by hand: that is worth a line.
    assert "slowlog-max-len 128\n" in text
    path.write_text(text + "# edited by hand\n")
    client("CONFIG", "SET", "timeout", "10")
    client("CONFIG", "REWRITE")
    assert "timeout 10\n" in path.read_text()
    assert "# edited by hand\n" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    path.unlink()
    assert str(client("CONFIG", "REWRITE")) == "ERR Rewriting config file: No such file or directory"
