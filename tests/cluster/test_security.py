"""Who gets in: strangers on the port for nodes, clients without the password, more clients than there is room for."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from respkv.server.main import EXIT_REFUSED
from respkv.transport.handshake import CHALLENGE_BYTES, HELLO_BYTES, MAGIC, NONCE_BYTES, VERSION, Dialler
from tests.cluster.cases import CLOSED, Case, check, check_redis, protocol_error, unknown
from tests.cluster.harness import HOST, Cluster, NodeProcess, running_cluster, wait_until
from tests.cluster.wire import Wire, is_error, packed, wire_to
from tests.commands.stock import stock_server

pytestmark = pytest.mark.cluster

SECRET = "a secret of the cluster's own"
PASSWORD = "open sesame"
HANDSHAKE_S = 5.0
MB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=3, directives=["--cluster-secret", SECRET]) as found:
        yield found


def dialler(cluster: Cluster, *, secret: str = SECRET, me: str | None = None, to: int = 0) -> Dialler:
    """What a node, or somebody who poses as one, would say to a node."""
    return Dialler(secret=secret.encode(), me=me or cluster[1].id, peer=cluster[to].id, nonce=os.urandom(NONCE_BYTES))


def dialled(node: NodeProcess) -> Wire:
    """A connection to the port for nodes."""
    return wire_to(node.cluster_port)


def turned_away_count(node: NodeProcess) -> int:
    return int(node.info("respkv")["respkv_strangers_turned_away"])


STRANGERS = [
    packed("PING"),
    b"PING\r\n",
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"RCmb" + b"\xff" * 4 + bytes(100),
    bytes(range(256)) * 16,
    b"\xff" * 4096,
    MAGIC + bytes((VERSION + 1,)) + bytes(HELLO_BYTES),
    MAGIC + bytes((VERSION,)) + bytes(20) + bytes(20) + bytes(NONCE_BYTES),
    MAGIC + bytes((VERSION,)) + b"\xff" * 100_000,
]


def test_a_stranger_gets_nothing_and_is_counted(cluster: Cluster) -> None:
    node = cluster[0]
    before, memory = turned_away_count(node), node.rss_bytes()
    for data in STRANGERS * 10:
        with dialled(node) as wire:
            with contextlib.suppress(ConnectionError):
                wire.send(data)
            assert wire.bytes_until_close() == b""
    assert turned_away_count(node) == before + 10 * len(STRANGERS)
    assert node.rss_bytes() - memory < 5 * MB
    assert cluster[1].ask("SET", "k", "x") == b"OK"


def test_who_does_not_know_the_secret_gets_no_further_than_the_challenge(cluster: Cluster) -> None:
    node = cluster[0]
    before = turned_away_count(node)
    with dialled(node) as wire:
        wire.send(dialler(cluster, secret="another secret altogether").hello())
        assert len(wire.read_exactly(CHALLENGE_BYTES)) == CHALLENGE_BYTES
        wire.send(bytes(32))
        assert wire.bytes_until_close() == b""
    assert turned_away_count(node) == before + 1


def test_a_proof_is_good_for_once(cluster: Cluster) -> None:
    """Whoever overheard a handshake can replay it, and gets nowhere."""
    mine = dialler(cluster, me=cluster[2].id, to=1)
    with dialled(cluster[1]) as wire:
        wire.send(mine.hello())
        proof = mine.answer(wire.read_exactly(CHALLENGE_BYTES))
    before = turned_away_count(cluster[1])
    with dialled(cluster[1]) as wire:
        wire.send(mine.hello())
        wire.read_exactly(CHALLENGE_BYTES)
        wire.send(proof)
        assert wire.bytes_until_close() == b""
    assert turned_away_count(cluster[1]) == before + 1


def test_who_knows_the_secret_and_is_no_member_is_turned_away(cluster: Cluster) -> None:
    stranger = dialler(cluster, me="ab" * 20)
    with dialled(cluster[0]) as wire:
        wire.send(stranger.hello())
        wire.send(stranger.answer(wire.read_exactly(CHALLENGE_BYTES)))
        assert wire.bytes_until_close() == b""


@pytest.mark.parametrize(
    "packet",
    [b"\xff\xff\xff\xff\x00", b"\x00\x04\x00\x01\x00", b"\x00\x00\x00\x01\xff\x00", b"\x00\x00\x00\x05\x00abcde", b"\x00\x00\x00\x00\x00"],
)
def test_nonsense_from_a_member_costs_its_link_alone(cluster: Cluster, packet: bytes) -> None:
    """It may be broken rather than hostile: its link is closed, before anything is allocated, and it can dial again."""
    node = cluster[0]
    memory = node.rss_bytes()
    posing = dialler(cluster)
    with dialled(node) as wire:
        wire.send(posing.hello())
        wire.send(posing.answer(wire.read_exactly(CHALLENGE_BYTES)) + packet)
        assert wire.bytes_until_close() == b""
    cluster.wait_ready()
    assert node.rss_bytes() - memory < 5 * MB
    assert {each.ask("SET", "k", "x") for each in cluster.nodes} == {b"OK"}


def test_strangers_who_say_nothing_are_shown_out_and_keep_nobody_out(cluster: Cluster) -> None:
    node = cluster[0]
    before = turned_away_count(node)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(dialled(node)) for _ in range(300)]
        slow = stack.enter_context(dialled(node))
        started = time.monotonic()
        # Meanwhile clients are served, and a node that starts finds its way in.
        cluster[2].kill()
        cluster[2].start()
        cluster.wait_ready()
        assert {each.ask("SET", "k", "x") for each in cluster.nodes} == {b"OK"}
        hello = MAGIC + bytes((VERSION,))
        for position in range(len(hello)):
            slow.send(hello[position : position + 1])
        for wire in [*silent, slow]:
            assert wire.bytes_until_close() == b""
        assert time.monotonic() - started < HANDSHAKE_S + 10
    assert turned_away_count(node) >= before + 301


def test_a_node_with_another_secret_stays_outside(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=3, directives=["--cluster-secret", SECRET], start=False) as cluster:
        *right, wrong = cluster.nodes
        for node in right:
            node.start()
        wrong.start("--cluster-secret", "another secret altogether")
        wait_until(
            "both sides say so",
            lambda: "does not know the cluster's secret" in wrong.log() + right[0].log() or "turned away" in wrong.log(),
        )
        wait_until("the two see each other", lambda: all(node.info("respkv")["respkv_nodes_up"] == "2" for node in right))
        assert wrong.info("respkv")["respkv_nodes_up"] == "1"
        assert is_error(wrong.ask("SET", "k", "x"), "NOQUORUM")


def test_no_secret_no_foreign_interface(tmp_path: Path) -> None:
    with running_cluster(tmp_path, count=1, start=False) as cluster:
        node = cluster[0]
        node.start("--bind", "0.0.0.0")
        assert node.wait_ended() == EXIT_REFUSED
        assert "cluster-secret" in node.log()
        assert not node.folder.exists()


def foreign_address() -> str:
    """An address of this machine that is not its loopback interface's, or nothing. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if address.startswith("127.") else address


def test_protected_mode(tmp_path: Path) -> None:
    address = foreign_address()
    if not address:
        pytest.skip("this machine has no address but its loopback interface's")
    directives = ["--bind", HOST, address, "--cluster-secret", SECRET]
    with running_cluster(tmp_path, count=1, directives=directives) as cluster:
        node = cluster[0]
        with wire_to(node.port, host=address) as wire:
            said = wire.bytes_until_close()
            assert said.startswith(b"-DENIED ")
            assert said.endswith(b"\r\n")
        assert node.ask("PING") == b"PONG"
        assert node.ask("CONFIG", "SET", "requirepass", PASSWORD) == b"OK"
        with wire_to(node.port, host=address) as wire:
            assert is_error(wire.ask("PING"), "NOAUTH")
            assert wire.ask("AUTH", PASSWORD) == b"OK"
            assert wire.ask("CONFIG", "SET", "requirepass", "", "protected-mode", "no") == b"OK"
        with wire_to(node.port, host=address) as wire:
            assert wire.ask("PING") == b"PONG"


NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
HELLO_NOAUTH = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option "
    b"can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
)
BEFORE_THE_PASSWORD = [
    Case("PING", packed("PING"), NOAUTH, after_ping=NOAUTH),
    Case("GET", packed("GET", "k"), NOAUTH, after_ping=NOAUTH),
    Case("unknown command", packed("NOPE", "x"), unknown("NOPE", "x"), after_ping=NOAUTH),
    Case("wrong number", packed("GET"), b"-ERR wrong number of arguments for 'get' command\r\n", after_ping=NOAUTH),
    Case("wrong password", packed("AUTH", "x"), WRONGPASS, after_ping=NOAUTH),
    Case("wrong user", packed("AUTH", "nobody", PASSWORD), WRONGPASS, after_ping=NOAUTH),
    # As 7.2 words it; 7.0 leaves out <proto>.
    Case("HELLO without AUTH", packed("HELLO", 3), HELLO_NOAUTH, after_ping=NOAUTH, is_redis=False),
    Case("HELLO with a wrong password", packed("HELLO", 3, "AUTH", "default", "x"), WRONGPASS, after_ping=NOAUTH),
    Case("MULTI", packed("MULTI"), NOAUTH, after_ping=NOAUTH),
    Case("RESET", packed("RESET"), b"+RESET\r\n", after_ping=NOAUTH),
    Case("QUIT", packed("QUIT"), b"+OK\r\n", CLOSED),
    Case("11 arguments", b"*11\r\n", protocol_error("unauthenticated multibulk length"), CLOSED),
    Case("16385 bytes", b"*1\r\n$16385\r\n", protocol_error("unauthenticated bulk length"), CLOSED),
    Case("password", packed("AUTH", PASSWORD), b"+OK\r\n"),
    Case("user and password", packed("AUTH", "default", PASSWORD), b"+OK\r\n"),
    Case(
        "more behind the password", packed("AUTH", PASSWORD) + packed("ECHO", "x" * 20_000), b"+OK\r\n$20000\r\n" + b"x" * 20_000 + b"\r\n"
    ),
    Case("RESET forgets the password", packed("AUTH", PASSWORD) + packed("RESET"), b"+OK\r\n+RESET\r\n", after_ping=NOAUTH),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that asks for a password; the harness itself has none, so what it would wait for is waited for here."""
    with running_cluster(tmp_path_factory.mktemp("guarded"), count=1, directives=["--requirepass", PASSWORD], start=False) as cluster:
        node = cluster[0]
        node.start()
        wait_until("it answers", lambda: is_error(node.ask("PING"), "NOAUTH"))
        wait_until("it counts", lambda: counting_count(node) == 1)
        yield node


def counting_count(node: NodeProcess) -> int:
    """How many nodes count, by the account of one that asks for the password."""
    with node.client(password=PASSWORD) as client:
        return int(client.info("respkv")["respkv_nodes_counting"])


@pytest.mark.parametrize("case", BEFORE_THE_PASSWORD, ids=lambda case: case.name)
def test_before_the_password(guarded: NodeProcess, case: Case) -> None:
    with guarded.connect() as wire:
        check(wire, case)


@pytest.mark.stock("redis-server")
def test_the_table_is_true_of_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    with stock_server(tmp_path_factory.mktemp("redis"), "--requirepass", PASSWORD) as path:
        check_redis(path, BEFORE_THE_PASSWORD)


def test_hello_gives_the_password_and_the_protocol(guarded: NodeProcess) -> None:
    with guarded.client(protocol=3, password=PASSWORD) as client:
        assert client.set("k", "x")
        assert client.get("k") == b"x"


@pytest.mark.parametrize("command", [packed("PING"), packed("AUTH", "wrong"), packed("HELLO", 3)])
def test_strangers_who_do_not_read_are_closed(guarded: NodeProcess, command: bytes) -> None:
    memory = guarded.rss_bytes()
    with guarded.connect(timeout_s=10) as wire:
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(200):
                wire.send(command * 2000)
        wait_until("it is closed", lambda: is_reset(wire))
    assert guarded.rss_bytes() - memory < 20 * MB


def test_little_is_sent_to_strangers_who_do_not_read(guarded: NodeProcess) -> None:
    """What their own kernel takes is not ours to limit, so that is kept small here."""
    with guarded.client(password=PASSWORD) as client:
        before = client.info("stats")
        with guarded.connect(timeout_s=10) as wire, contextlib.suppress(ConnectionError):
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(50):
                wire.send(packed("PING") * 2000)
            wait_until("it is closed", lambda: client.info("stats")["evicted_clients"] > before["evicted_clients"])
        assert client.info("stats")["total_net_output_bytes"] - before["total_net_output_bytes"] < 400_000
    assert "bytes of replies unread (unauthenticated-output-buffer-limit)" in guarded.log()


def is_reset(wire: Wire) -> bool:
    """Whether the other side is gone, without reading what it sent."""
    try:
        wire.send(b"\r\n")
    except ConnectionError:
        return True
    return False


def test_who_gives_no_password_in_time_is_closed(guarded: NodeProcess) -> None:
    with guarded.connect() as known:
        assert known.ask("AUTH", PASSWORD) == b"OK"
        assert known.ask("CONFIG", "SET", "unauthenticated-timeout", 1) == b"OK"
        with guarded.connect(timeout_s=20) as stranger:
            assert stranger.bytes_until_close() == b""
        assert known.ask("PING") == b"PONG"
        assert known.ask("CONFIG", "SET", "unauthenticated-timeout", 60) == b"OK"


def test_maxclients(cluster: Cluster) -> None:
    node = cluster[1]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(node.connect())
        assert first.ask("CONFIG", "SET", "maxclients", 5) == b"OK"
        rejected = int(node.info("stats")["rejected_connections"])
        wires = [first, *(stack.enter_context(node.connect()) for _ in range(4))]
        assert {wire.ask("PING") for wire in wires} == {b"PONG"}
        with node.connect() as sixth:
            assert sixth.bytes_until_close() == b"-ERR max number of clients reached\r\n"
        wires.pop().socket.close()

        def may_come_in() -> bool:
            with node.connect() as sixth:
                sixth.send(packed("PING"))
                return sixth.received() == b"+PONG\r\n"

        wait_until("there is room again", may_come_in)
        text = first.ask("INFO", "stats").decode()
        assert int(text.split("rejected_connections:")[1].split()[0]) > rejected
        assert first.ask("CONFIG", "SET", "maxclients", 10000) == b"OK"
