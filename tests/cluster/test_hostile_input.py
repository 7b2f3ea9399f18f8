"""Bytes that no decent client sends, to a real node: the exact reply, what becomes of the connection, and of everybody else's."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from respkv.commands.server import NO_DEBUG
from tests.cluster.cases import CLOSED, Case, check, check_redis, protocol_error, unknown
from tests.cluster.harness import Cluster, running_cluster, wait_until
from tests.cluster.load import Load
from tests.cluster.wire import Wire, packed
from tests.commands.stock import stock_server

pytestmark = pytest.mark.cluster

MB = 1 << 20


BAD_COUNT = protocol_error("invalid multibulk length")
BAD_SIZE = protocol_error("invalid bulk length")
NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
SYNTAX = b"-ERR syntax error\r\n"

CASES = [
    Case("inline", b"PING\r\n", b"+PONG\r\n"),
    Case("inline, LF alone", b"PING\n", b"+PONG\r\n"),
    Case("nothing, in many ways", b"\r\n\r\n*0\r\n*-1\r\n*-10\r\n*-99999999999999\r\nPING\r\n", b"+PONG\r\n"),
    Case("open quote", b'SET k "abc\r\n', protocol_error("unbalanced quotes in request"), CLOSED),
    Case("letter behind a quote", b'"a"b\r\n', protocol_error("unbalanced quotes in request"), CLOSED),
    Case("line without end", b"A" * 65537, protocol_error("too big inline request"), CLOSED),
    Case("long line with its end", b"A" * 70000 + b"\r\n", unknown("A" * 128)),
    *(
        Case(f"count {count!r}", b"*%b\r\n" % count, BAD_COUNT, CLOSED)
        for count in (b"abc", b"", b"+1", b" 1", b"01", b"1.5", b"2147483648", b"20000000000000000000")
    ),
    # proto-max-multibulk-len is 1048576; Redis reserves room for as many as the header says.
    Case("count above the limit", b"*1048577\r\n", BAD_COUNT, CLOSED, is_redis=False),
    Case("count without end", b"*" + b"1" * 65600, protocol_error("too big mbulk count string"), CLOSED),
    Case("no size", b"*1\r\nPING\r\n", protocol_error("expected '$', got 'P'"), CLOSED),
    Case("number for a size", b"*1\r\n:1\r\n", protocol_error("expected '$', got ':'"), CLOSED),
    Case("array in an array", b"*1\r\n*1\r\n$4\r\nPING\r\n", protocol_error("expected '$', got '*'"), CLOSED),
    *(
        Case(f"size {size!r}", b"*1\r\n$%b\r\n" % size, BAD_SIZE, CLOSED)
        for size in (b"-1", b"abc", b"", b"+4", b"04", b"99999999999999999999", b"536870913")
    ),
    # proto-max-bulk-len is 64 MB; Redis allows 512.
    Case("size above the limit", b"*1\r\n$%d\r\n" % (64 * MB + 1), BAD_SIZE, CLOSED, is_redis=False),
    Case("size without end", b"*1\r\n$" + b"1" * 65600, protocol_error("too big bulk count string"), CLOSED),
    # Redis skips two bytes unseen where the line break should be, and reads on in the middle of something.
    Case("value longer than its size", b"*1\r\n$2\r\nPING\r\n", BAD_SIZE, CLOSED, is_redis=False),
    Case("no line break behind a value", b"*1\r\n$4\r\nPINGXX", BAD_SIZE, CLOSED, is_redis=False),
    Case("size as an inline command", b"$4\r\n", unknown("$4")),
    Case("other types of RESP", b":1\r\n(123\r\n%1\r\n", unknown(":1") + unknown("(123") + unknown("%1")),
    Case("empty name", b"*1\r\n$0\r\n\r\n", unknown("")),
    Case("line break in a name", packed("a\r\n+OK\r\n"), unknown("a  +OK  ")),
    Case("line break in an argument", packed("nope", "a\r\nb"), unknown("nope", "a  b")),
    Case("name of 1000 letters", packed("x" * 1000, "y" * 1000), unknown("x" * 128, "y" * 128)),
    Case("too few arguments", packed("GET"), b"-ERR wrong number of arguments for 'get' command\r\n"),
    Case("too few for a subcommand", packed("CLIENT", "SETNAME"), b"-ERR wrong number of arguments for 'client|setname' command\r\n"),
    Case("unknown subcommand", packed("CLIENT", "foo"), b"-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"),
    Case("HTTP POST", b"POST / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"", CLOSED),
    Case("HTTP POST in the form of a command", packed("POST"), b"", CLOSED),
    # The reply to the first line is lost, as both come in one packet.
    Case("HTTP GET", b"GET / HTTP/1.1\r\nHost: example.org\r\n", b"", CLOSED),
    Case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", unknown("SSH-2.0-OpenSSH_9.2")),
    Case("HELLO 4", packed("HELLO", "4"), b"-NOPROTO unsupported protocol version\r\n"),
    Case("HELLO of many", packed("HELLO", "9" * 30), b"-ERR Protocol version is not an integer or out of range\r\n"),
    Case(
        "line break in a client's name",
        packed("CLIENT", "SETNAME", "a\nb"),
        b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
    ),
    Case("INCR of words", packed("SET", "h:w", "abc") + packed("INCR", "h:w"), b"+OK\r\n" + NOT_AN_INTEGER),
    *(
        Case(f"INCRBY {text!r}", packed("INCRBY", "h:n", text), NOT_AN_INTEGER)
        for text in ("1_000", " 12", "12 ", "+1", "01", "\u0663", "1.0", "9" * 30, "")
    ),
    Case(
        "INCR at the end of 64 bits",
        packed("SET", "h:max", 2**63 - 1) + packed("INCR", "h:max"),
        b"+OK\r\n-ERR increment or decrement would overflow\r\n",
    ),
    Case("DECRBY of the least number", packed("DECRBY", "h:min", -(2**63)), b"-ERR decrement would overflow\r\n"),
    Case("APPEND and STRLEN", packed("SET", "h:a", "x") + packed("APPEND", "h:a", "\r\n"), b"+OK\r\n:3\r\n"),
    Case(
        "SETRANGE far out",
        packed("SETRANGE", "h:r", 536870911, "xx"),
        b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
    ),
    Case("SETRANGE before the start", packed("SETRANGE", "h:r", -1, "x"), b"-ERR offset is out of range\r\n"),
    Case(
        "EXPIRE beyond time",
        packed("SET", "h:e", "x") + packed("EXPIRE", "h:e", 2**63 - 1),
        b"+OK\r\n-ERR invalid expire time in 'expire' command\r\n",
    ),
    Case("SET EX 0", packed("SET", "h:e", "x", "EX", 0), b"-ERR invalid expire time in 'set' command\r\n"),
    Case("SET EX and PX", packed("SET", "h:e", "x", "EX", 5, "PX", 5), SYNTAX),
    Case("SET NX and XX", packed("SET", "h:e", "x", "NX", "XX"), SYNTAX),
    Case("INCRBYFLOAT nan", packed("INCRBYFLOAT", "h:f", "nan"), b"-ERR value is not a valid float\r\n"),
    Case("INCRBYFLOAT inf", packed("INCRBYFLOAT", "h:f", "inf"), b"-ERR increment would produce NaN or Infinity\r\n"),
    Case("INCRBYFLOAT 1_0", packed("INCRBYFLOAT", "h:f", "1_0"), b"-ERR value is not a valid float\r\n"),
    Case("EXEC alone", packed("EXEC"), b"-ERR EXEC without MULTI\r\n"),
    Case("DISCARD alone", packed("DISCARD"), b"-ERR DISCARD without MULTI\r\n"),
    Case(
        "MULTI in MULTI",
        packed("MULTI") + packed("MULTI") + packed("DISCARD"),
        b"+OK\r\n-ERR MULTI calls can not be nested\r\n+OK\r\n",
    ),
    Case(
        "bad command in MULTI",
        packed("MULTI") + packed("NOPE") + packed("SET", "h:m", 1) + packed("EXEC"),
        b"+OK\r\n" + unknown("NOPE") + b"+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n",
    ),
    # As in a Redis cluster.
    Case("SELECT 99", packed("SELECT", 99), b"-ERR SELECT is not allowed in cluster mode\r\n", is_redis=False),
    Case("SELECT of words", packed("SELECT", "abc"), NOT_AN_INTEGER),
    Case("SCAN of words", packed("SCAN", "abc"), b"-ERR invalid cursor\r\n"),
    Case("SCAN COUNT 0", packed("SCAN", 0, "COUNT", 0), SYNTAX),
    # Redis names a directive that would allow it.
    Case("DEBUG SEGFAULT", packed("DEBUG", "SEGFAULT"), b"-ERR %b\r\n" % NO_DEBUG.encode(), is_redis=False),
    Case(
        "AUTH without a password",
        packed("AUTH", "x"),
        b"-ERR AUTH <password> called without any password configured for the default user. "
        b"Are you sure your configuration is correct?\r\n",
    ),
    Case("pattern that would explode", packed("KEYS", "a*" * 30 + "b"), b"*0\r\n"),
    Case("several commands before a bad one", packed("PING") * 3 + b"*x\r\n", b"+PONG\r\n" * 3 + BAD_COUNT, CLOSED),
    Case("nothing is read behind an error", b"*x\r\n" + packed("SET", "h:behind", 1), BAD_COUNT, CLOSED),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=3) as found:
        yield found


@pytest.fixture(scope="module")
def decent_clients(cluster: Cluster) -> Iterator[Load]:
    """Others who work on all the while. Whatever strangers send, no write of theirs may fail."""
    with Load(cluster.nodes, pause_s=0.02) as load:
        yield load
        load.stop()
        assert set(load.outcomes()) == {"acknowledged"}
        load.check_replicas(cluster)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact_reply(cluster: Cluster, decent_clients: Load, case: Case) -> None:
    del decent_clients
    with cluster[0].connect(timeout_s=10) as wire:
        check(wire, case)


@pytest.mark.stock("redis-server")
def test_the_table_is_true_of_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    with stock_server(tmp_path_factory.mktemp("redis")) as path:
        check_redis(path, CASES)


def test_a_command_that_drips_in_is_answered(cluster: Cluster) -> None:
    with cluster[0].connect() as wire:
        for byte in packed("SET", "h:drip", "v" * 1000):
            wire.send(bytes((byte,)))
        assert wire.reply() == b"OK"
        assert wire.ask("STRLEN", "h:drip") == 1000


def test_what_was_asked_before_the_end_of_input_is_answered(cluster: Cluster) -> None:
    """`printf ... | nc -N` shuts its side at once, and the quorum's answer comes after that."""
    for node in cluster.nodes:
        with node.connect() as wire:
            wire.send(packed("SET", "h:fin", "x") + packed("GET", "h:fin") + packed("INCR", "h:fin:n") + packed("DBSIZE") + packed("GET"))
            wire.socket.shutdown(socket.SHUT_WR)
            received = wire.bytes_until_close()
        assert re.fullmatch(rb"\+OK\r\n\$1\r\nx\r\n:\d+\r\n:\d+\r\n-ERR wrong number [^\r]*\r\n", received), received
        with node.connect() as wire:
            wire.send(b"*2\r\n$3\r\nGET\r\n$100\r\nh:")
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.bytes_until_close() == b""


def test_headers_reserve_nothing(cluster: Cluster) -> None:
    """13 bytes would reserve gigabytes in a parser that believes them."""
    before = cluster[0].rss_bytes()
    with contextlib.ExitStack() as stack:
        for index in range(400):
            wire = stack.enter_context(cluster[0].connect())
            wire.send([b"*1000000\r\n", b"*1048576\r\n$67108864\r\n", b"*3\r\n$3\r\nSET\r\n$67108864\r\nx"][index % 3])
        assert cluster[0].ask("SET", "h:others", "x") == b"OK"
        assert cluster[0].rss_bytes() - before < 50 * MB


def test_many_idle_clients(cluster: Cluster) -> None:
    before = cluster[0].rss_bytes()
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(cluster[0].connect()) for _ in range(1500)]
        assert {wire.ask("PING") for wire in wires} == {b"PONG"}
        assert int(cluster[0].info("clients")["connected_clients"]) >= 1500
        assert cluster[0].rss_bytes() - before < 60 * MB
    wait_until("they are forgotten", lambda: int(cluster[0].info("clients")["connected_clients"]) < 100)


@pytest.fixture
def narrow_limits(cluster: Cluster) -> Iterator[None]:
    """Limits that a test reaches soon."""
    wide = {
        "client-output-buffer-limit": "normal 256mb 64mb 60",
        "client-query-buffer-limit": "256mb",
        "maxmemory-clients": "1gb",
    }
    narrow = {
        "client-output-buffer-limit": "normal 32mb 0 0",
        "client-query-buffer-limit": "16mb",
        "maxmemory-clients": "100mb",
    }
    for node in cluster.nodes:
        assert node.ask("CONFIG", "SET", *(word for pair in narrow.items() for word in pair)) == b"OK"
    yield
    for node in cluster.nodes:
        assert node.ask("CONFIG", "SET", *(word for pair in wide.items() for word in pair)) == b"OK"


@pytest.mark.usefixtures("narrow_limits")
def test_a_client_that_reads_nothing_is_closed(cluster: Cluster) -> None:
    """A megabyte of GETs asks for tens of gigabytes."""
    assert cluster[0].ask("SET", "h:big", "x" * MB) == b"OK"
    for node in cluster.nodes:
        before, closed = node.rss_bytes(), node.info("respkv")["respkv_clients_closed_for_unread_replies"]
        with node.connect() as wire:
            with contextlib.suppress(ConnectionError, TimeoutError):
                wire.send(packed("GET", "h:big") * 30_000)
            wait_until(
                "it is closed",
                lambda node=node, closed=closed: node.info("respkv")["respkv_clients_closed_for_unread_replies"] > closed,  # type: ignore[misc]
            )
            assert node.rss_bytes() - before < 250 * MB
        assert node.ask("STRLEN", "h:big") == MB


@pytest.mark.usefixtures("narrow_limits")
def test_a_command_that_never_ends_is_cut_off(cluster: Cluster) -> None:
    before = cluster[0].rss_bytes()
    with cluster[0].connect() as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(b"*1000\r\n" + b"$1048576\r\n%b\r\n" % (b"x" * MB) * 40)
        assert wire.received() == b""
    with cluster[0].connect() as wire:
        wire.send(packed("MULTI"))
        with contextlib.suppress(ConnectionError):
            wire.send(packed("SET", "h:multi", "x" * MB) * 40)
        assert wire.bytes_until_close().replace(b"+QUEUED\r\n", b"") in {b"", b"+OK\r\n"}
    assert cluster[0].rss_bytes() - before < 150 * MB


@pytest.mark.usefixtures("narrow_limits")
def test_all_clients_together_have_a_limit(cluster: Cluster) -> None:
    """Each is below its own limit; together they are above that of all."""
    before = cluster[0].rss_bytes()
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(cluster[0].connect(timeout_s=2)) for _ in range(20)]
        for wire in wires:
            with contextlib.suppress(ConnectionError):
                wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$15728640\r\n" + b"x" * (14 * MB))
        wait_until("some are closed", lambda: sum(is_closed(wire) for wire in wires) >= 12)
        assert sum(not is_closed(wire) for wire in wires) >= 3
        assert cluster[0].rss_bytes() - before < 300 * MB
    assert cluster[0].ask("PING") == b"PONG"


def is_closed(wire: Wire) -> bool:
    """Whether the node has closed a connection on which no reply is due."""
    wire.socket.setblocking(False)
    try:
        return wire.received() == b""
    except BlockingIOError:
        return False
