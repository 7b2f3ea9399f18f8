"""What a connection remembers, what it is told, and how it ends."""

from __future__ import annotations

import pytest

from respkv.commands.table import REDIS_VERSION
from respkv.server import turns
from tests.commands.harness import Connection, World, packed, split_replies

HELLO_2 = (
    b"*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n%b\r\n"
    b"$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:%d\r\n$4\r\nmode\r\n$7\r\ncluster\r\n"
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect(address="127.0.0.1:50001")


def fields_of(line: bytes) -> dict[str, str]:
    return dict(field.split("=", 1) for field in line.decode().split("\r\n", 1)[1].strip().removeprefix("txt:").split(" "))


# --- HELLO, RESET


def test_hello_tells_who_answers(client: Connection) -> None:
    assert client.ask("HELLO").startswith(HELLO_2 % (REDIS_VERSION.encode(), client.client_id))
    assert client.ask("HELLO 3 SETNAME me").startswith(b"%7\r\n$6\r\nserver\r\n")
    assert client.ask("GET nosuch", "CLIENT GETNAME", "HELLO 2", "GET nosuch")[-5:] == b"$-1\r\n"


def test_a_refused_hello_changes_nothing() -> None:
    client = World(requirepass="secret").connect()
    assert client.ask("HELLO 3 AUTH default wrong SETNAME x").startswith(b"-WRONGPASS")
    assert client.ask("HELLO 3 SETNAME x").startswith(b"-NOAUTH HELLO must be called")
    assert client.ask("AUTH secret", "GET nosuch", "CLIENT GETNAME") == b"+OK\r\n$-1\r\n$-1\r\n"
    assert client.ask("HELLO 3 AUTH default secret SETNAME x").startswith(b"%7")
    assert client.ask("GET nosuch", "CLIENT GETNAME") == b"_\r\n$1\r\nx\r\n"


def test_hello_waits_for_the_replies_of_the_older_protocol() -> None:
    client = World(3).connect()
    replies = split_replies(client.ask("GET nosuch", "HELLO 3", "GET nosuch", "RESET", "GET nosuch"))
    assert [replies[0], replies[2], replies[4]] == [b"$-1\r\n", b"_\r\n", b"$-1\r\n"]


def test_reset_undoes_everything(client: Connection) -> None:
    client.ask("HELLO 3 SETNAME me", "CLIENT NO-EVICT ON", "CLIENT NO-TOUCH ON", "READONLY", "MULTI", "GET a")
    assert client.ask("RESET", "EXEC", "CLIENT GETNAME", "GET nosuch") == b"+RESET\r\n-ERR EXEC without MULTI\r\n$-1\r\n$-1\r\n"
    told = fields_of(client.ask("CLIENT INFO"))
    assert (told["flags"], told["resp"], told["name"], told["multi"]) == ("N", "2", "", "-1")


def test_reset_takes_the_trust_back() -> None:
    client = World(requirepass="secret").connect()
    assert client.ask("AUTH secret", "PING", "RESET", "PING") == b"+OK\r\n+PONG\r\n+RESET\r\n-NOAUTH Authentication required.\r\n"


# --- AUTH


def test_a_stranger_may_send_little_and_after_auth_much() -> None:
    world = World(requirepass="secret")
    big = packed([b"SET", b"k", b"x" * 20000])
    stranger = world.connect()
    stranger.send(big)
    assert stranger.take() == b"-ERR Protocol error: unauthenticated bulk length\r\n"
    assert stranger.is_closed
    friend = world.connect()
    friend.send(packed("AUTH secret") + big + packed("STRLEN k"))
    assert friend.replies(3) == b"+OK\r\n+OK\r\n:20000\r\n"


def test_no_password_is_asked_for_once_it_is_taken_away() -> None:
    world = World(requirepass="secret")
    client = world.connect()
    assert client.ask("GET k") == b"-NOAUTH Authentication required.\r\n"
    world.nodes[0].settings.requirepass = ""
    assert client.ask("GET k") == b"$-1\r\n"


# --- CLIENT


def test_client_list_tells_what_redis_tells(world: World, client: Connection) -> None:
    client.ask("CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME redis-py", "CLIENT SETINFO lib-ver 7.4.1", "MULTI", "GET a")
    other = world.connect(address="127.0.0.1:50002")
    world.run(2.5)
    lines = other.ask("CLIENT LIST").split(b"\r\n", 1)[1].strip().splitlines()
    assert len(lines) == 2
    told = dict(field.split("=", 1) for field in lines[0].decode().split(" "))
    assert told | {"tot-mem": ""} == {
        "id": str(client.client_id), "addr": "127.0.0.1:50001", "laddr": "127.0.0.1:7001", "fd": "-1", "name": "me", "age": "2",
        "idle": "2", "flags": "x", "db": "0", "sub": "0", "psub": "0", "ssub": "0", "multi": "1", "qbuf": "0", "qbuf-free": "0",
        "argv-mem": "0", "multi-mem": "4", "rbs": "0", "rbp": "0", "obl": "0", "oll": "0", "omem": "0", "tot-mem": "", "events": "r",
        "cmd": "get", "user": "default", "redir": "-1", "resp": "2", "lib-name": "redis-py", "lib-ver": "7.4.1",
    }  # fmt: skip
    assert b" cmd=client|list " in lines[1]


def test_client_list_tells_what_a_client_holds(world: World, client: Connection) -> None:
    half = packed("SET k value")[:-5]
    client.send(half)
    told = fields_of(world.connect().ask(f"CLIENT LIST ID {client.client_id}"))
    assert (told["qbuf"], told["tot-mem"]) == (str(len(half)), str(len(half)))


@pytest.mark.parametrize(("line", "name"), [("GET a", "get"), ("SET a 1", "set"), ("SET a 1 NX", "set"), ("CLIENT ID", "client|id")])
def test_client_list_names_the_last_command(world: World, client: Connection, line: str, name: str) -> None:
    client.ask("PING", line)
    told = world.connect().ask(f"CLIENT LIST ID {client.client_id}")
    assert b" cmd=%b " % name.encode() in told


def test_client_list_is_narrowed_by_type_and_id(world: World, client: Connection) -> None:
    other = world.connect()
    assert client.ask("CLIENT LIST TYPE normal").count(b"id=") == 2
    assert client.ask("CLIENT LIST TYPE pubsub") == b"$0\r\n\r\n"
    told = client.ask(f"CLIENT LIST ID {other.client_id} 77")
    assert told.count(b"id=") == 1
    assert b"id=%d " % other.client_id in told
    assert fields_of(other.ask("CLIENT INFO"))["id"] == str(other.client_id)


def test_setinfo_refuses_what_would_break_the_list(client: Connection) -> None:
    assert client.ask("CLIENT SETINFO foo x") == b"-ERR Unrecognized option 'foo'\r\n"
    refusal = b"-ERR lib-name cannot contain spaces, newlines or special characters.\r\n"
    assert client.ask([b"CLIENT", b"SETINFO", b"lib-name", b"a b"]) == refusal
    assert client.ask([b"CLIENT", b"SETINFO", b"LIB-NAME", b""], "CLIENT NO-TOUCH maybe") == b"+OK\r\n-ERR syntax error\r\n"


@pytest.mark.parametrize("subcommand", ["MAINT_NOTIFICATIONS ON", "TRACKING ON", "PAUSE 100", "UNPAUSE", "CACHING YES", "GETREDIR"])
def test_what_is_not_offered_is_an_unknown_subcommand(client: Connection, subcommand: str) -> None:
    name = subcommand.split(maxsplit=1)[0].encode()
    assert client.ask(f"CLIENT {subcommand}") == b"-ERR unknown subcommand '%b'. Try CLIENT HELP.\r\n" % name


def test_help_names_each_subcommand(client: Connection) -> None:
    told = client.ask("CLIENT HELP")
    for name in ("GETNAME", "ID", "INFO", "KILL", "LIST", "NO-EVICT", "NO-TOUCH", "REPLY", "SETINFO", "SETNAME"):
        assert b"\r\n+%b" % name.encode() in told


@pytest.mark.parametrize("line", ["CLIENT KILL ID {id}", "CLIENT KILL ADDR 127.0.0.1:50002 SKIPME no", "CLIENT KILL TYPE normal"])
def test_kill_closes_others_at_once(world: World, client: Connection, line: str) -> None:
    victim = world.connect(address="127.0.0.1:50002")
    assert client.ask(line.format(id=victim.client_id)) == b":1\r\n"
    assert victim.is_closed
    assert client.ask("PING", "CLIENT LIST").count(b"id=") == 1


def test_kill_in_its_old_form(world: World, client: Connection) -> None:
    victim = world.connect(address="127.0.0.1:50002")
    assert client.ask("CLIENT KILL 127.0.0.1:50002") == b"+OK\r\n"
    assert victim.is_closed
    assert client.ask("CLIENT KILL 127.0.0.1:50002") == b"-ERR No such client\r\n"


@pytest.mark.parametrize("line", ["CLIENT KILL 127.0.0.1:50001", "CLIENT KILL ID {id} SKIPME no"])
def test_who_kills_itself_hears_so_first(client: Connection, line: str) -> None:
    reply = client.ask(line.format(id=client.client_id), "PING")
    assert reply in {b"+OK\r\n", b":1\r\n"}
    assert client.is_closed


def test_a_killed_client_in_the_middle_of_its_commands_is_forgotten() -> None:
    world = World(3)
    victim, other = world.connect(0), world.connect(0)
    victim.post("SET a 1", "INCR a", "INCR a", "INCR a")
    assert other.ask(f"CLIENT KILL ID {victim.client_id}") == b":1\r\n"
    world.run(1.0)
    assert victim.take() == b""
    assert other.ask("PING") == b"+PONG\r\n"
    assert len(world.nodes[0].clients) == 1


# --- CLIENT REPLY


@pytest.mark.parametrize("nodes", [1, 3])
def test_reply_off_hushes_also_what_takes_time(nodes: int) -> None:
    client = World(nodes).connect()
    silent = ["CLIENT REPLY OFF", "SET a 1", "INCR a", "GET a", "NOSUCH", "GET", "MULTI", "INCR a", "EXEC", "CLIENT REPLY SKIP"]
    client.post(*silent, "CLIENT REPLY ON", "GET a")
    assert client.replies(2) == b"+OK\r\n$1\r\n3\r\n"


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("skipped", ["INCR a", "GET a", "SET a 5", "PING", "NOSUCH", "GET", "DEL a b", "CLIENT ID"])
def test_reply_skip_hushes_the_next_command_and_no_other(nodes: int, skipped: str) -> None:
    client = World(nodes).connect()
    client.post("ECHO first", "CLIENT REPLY SKIP", skipped, "ECHO last", "PING")
    assert client.replies(3) == b"$5\r\nfirst\r\n$4\r\nlast\r\n+PONG\r\n"


# --- READONLY


def test_readonly_reads_from_one_replica() -> None:
    world = World(3, read_quorum="all", sloppy_quorum="no")
    client = world.connect(0)
    client.ask("SET a 1")
    world.crash(2)
    refusal = b"-NOQUORUM read needs 3 replicas, 2 can answer; nothing was done\r\n"
    assert client.ask("GET a", "MGET a", "MULTI", "GET a", "EXEC") == refusal * 2 + b"+OK\r\n+QUEUED\r\n" + refusal
    assert client.ask("READONLY", "GET a", "MGET a") == b"+OK\r\n$1\r\n1\r\n*1\r\n$1\r\n1\r\n"
    assert client.ask("MULTI", "GET a", "EXEC") == b"+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"
    assert fields_of(client.ask("CLIENT INFO"))["flags"] == "r"
    assert client.ask("READWRITE", "GET a") == b"+OK\r\n" + refusal


def test_readonly_reads_as_configured_where_that_is_told() -> None:
    world = World(3, read_quorum="all", sloppy_quorum="no", readonly_consistency="configured")
    client = world.connect(0)
    world.crash(2)
    assert client.ask("READONLY", "GET a").startswith(b"+OK\r\n-NOQUORUM")


@pytest.fixture
def stale_primary() -> Connection:
    """A connection in whose eyes, and in nobody else's, the first live primary of `k` has missed five increments."""
    world = World(3, sloppy_quorum="no", hinted_handoff="no", read_repair="off")
    primary = next(index for index, node in enumerate(world.nodes) if node.coordinator.primary_of(b"k") == node.me)
    client, name = world.connect((primary + 1) % 3), world.nodes[primary].me
    others = [index for index in range(3) if index != primary]
    client.ask("SET k 10")
    for index in others:
        world.arrive(index, (turns.PEER_CLOSED, name, "reset"))
    assert client.ask(*["INCR k"] * 5).endswith(b":15\r\n")
    for index in others:
        world.arrive(index, (turns.PEER_OPENED, name))
    assert world.run_until(lambda: world.nodes[client.index].coordinator.primary_of(b"k") == name)
    return world.connect(primary)


def test_readonly_is_nothing_to_commands_that_read_and_then_write(stale_primary: Connection) -> None:
    client = stale_primary
    assert client.ask("READONLY", "GET k", "INCR k", "APPEND k 0") == b"+OK\r\n$2\r\n10\r\n:16\r\n:3\r\n"


def test_readonly_is_nothing_to_them_in_a_transaction_either(stale_primary: Connection) -> None:
    client = stale_primary
    assert client.ask("READONLY", "MULTI", "GET k", "INCR k", "EXEC").endswith(b"*2\r\n$2\r\n10\r\n:16\r\n")


def test_what_a_readonly_connection_watched_is_looked_at_in_full_before_anything_is_written(stale_primary: Connection) -> None:
    client = stale_primary
    assert client.ask("READONLY", "WATCH k", "MULTI", "GET k", "EXEC").endswith(b"*1\r\n$2\r\n10\r\n")
    assert client.ask("WATCH k", "MULTI", "GET k", "SET k 11", "EXEC").endswith(b"*-1\r\n")


def test_a_transaction_of_a_readonly_connection_needs_the_quorum_of_what_it_writes_and_one_replica_of_what_it_reads() -> None:
    world = World(3, sloppy_quorum="no", read_quorum="all", write_quorum="one")
    client = world.connect()
    world.crash(2)
    assert client.ask("READONLY", "MULTI", "GET a", "SET b v", "EXEC").endswith(b"*2\r\n$-1\r\n+OK\r\n")
    assert split_replies(client.ask("MULTI", "GET a", "INCR b", "EXEC"))[-1].startswith(b"-NOQUORUM read needs 3")


# --- the end


def test_quit_answers_what_came_before_it_and_nothing_behind_it() -> None:
    world = World(3)
    client = world.connect()
    client.post("SET a 1", "INCR a", "QUIT", "INCR a", "PING")
    world.run(1.0)
    assert client.take() == b"+OK\r\n:2\r\n+OK\r\n"
    assert client.is_closed
    assert world.connect(1).ask("GET a") == b"$1\r\n2\r\n"


def test_bytes_that_are_no_request_end_the_connection_behind_the_replies() -> None:
    world = World(3)
    client = world.connect()
    client.send(packed("INCR a") + packed("GET a") + b"*1\r\n:1\r\n" + packed("INCR a"))
    world.run(1.0)
    assert client.take() == b":1\r\n$1\r\n1\r\n-ERR Protocol error: expected '$', got ':'\r\n"
    assert client.is_closed
