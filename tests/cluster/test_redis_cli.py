"""redis-cli in all its modes, through every node of a cluster of five."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, NodeProcess, running_cluster, wait_until
from tests.cluster.wire import packed

pytestmark = [pytest.mark.cluster, pytest.mark.stock("redis-cli")]

KEYS_COUNT = 130


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), count=5) as found:
        with found[0].connect() as wire:
            assert set(wire.ask_all([("SET", f"key:{index}", "x" * (index + 1)) for index in range(KEYS_COUNT)])) == {b"OK"}
        yield found


@pytest.fixture(params=range(5), ids=lambda index: f"n{index + 1}")
def node(cluster: Cluster, request: pytest.FixtureRequest) -> NodeProcess:
    return cluster[request.param]


def cli(node: NodeProcess, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    """What redis-cli prints, with its exit code checked and nothing on its standard error."""
    done = subprocess.run(["redis-cli", "-p", str(node.port), *arguments], input=stdin, capture_output=True, timeout=60, check=False)
    output = done.stdout.decode()
    assert done.returncode == code, output + done.stderr.decode()
    assert done.stderr == b"", done.stderr
    return output


def test_plain(node: NodeProcess) -> None:
    assert cli(node, "SET", f"plain:{node.name}", "hello") == "OK\n"
    assert cli(node, "GET", f"plain:{node.name}") == "hello\n"
    assert cli(node, "INCR", f"plain:n:{node.name}") == "1\n"
    assert cli(node, "DEL", f"plain:{node.name}", f"plain:n:{node.name}", "plain:none") == "2\n"
    assert cli(node, "GET", f"plain:{node.name}") == "\n"
    assert cli(node, "NOPE") == "ERR unknown command 'NOPE', with args beginning with: \n\n"
    assert cli(node, "-n", "0", "PING") == "PONG\n"


def test_resp3(node: NodeProcess) -> None:
    assert cli(node, "-3", "--no-raw", "SET", f"three:{node.name}", "x") == "OK\n"
    assert cli(node, "-3", "--no-raw", "GET", "three:none") == "(nil)\n"
    assert '1# "maxmemory" => "0"\n' in cli(node, "-3", "--no-raw", "CONFIG", "GET", "maxmemory")
    assert "redis_version" in cli(node, "-3", "INFO", "server")
    assert cli(node, "-3", "DEL", f"three:{node.name}") == "1\n"


def test_cluster_mode_is_never_redirected(node: NodeProcess) -> None:
    commands = "".join(f"SET moved:{index} {index}\nGET moved:{index}\n" for index in range(50)).encode()
    output = cli(node, "-c", stdin=commands)
    assert output.split() == [word for index in range(50) for word in ("OK", str(index))]
    assert cli(node, "-c", stdin=b"".join(b"DEL moved:%d\n" % index for index in range(50))).split() == ["1"] * 50


def test_pipe(node: NodeProcess) -> None:
    commands = b"".join(packed("SET", f"piped:{index}", index) for index in range(5000))
    output = cli(node, "--pipe", stdin=commands)
    assert "errors: 0, replies: 5000" in output
    assert cli(node, "GET", "piped:4999") == "4999\n"
    output = cli(node, "--pipe", stdin=b"".join(packed("DEL", f"piped:{index}") for index in range(5000)))
    assert "errors: 0, replies: 5000" in output


def test_scan(node: NodeProcess) -> None:
    """Every key once, whichever node is asked."""
    found = cli(node, "--scan", "--pattern", "key:*").split()
    assert sorted(found) == sorted(f"key:{index}" for index in range(KEYS_COUNT))
    assert sorted(cli(node, "--scan", "--pattern", "key:11?").split()) == [f"key:11{digit}" for digit in range(10)]


def test_bigkeys_and_memkeys(node: NodeProcess) -> None:
    output = cli(node, "--bigkeys")
    assert f"Sampled {KEYS_COUNT} keys in the keyspace!" in output
    assert f"Biggest string found '\"key:{KEYS_COUNT - 1}\"' has {KEYS_COUNT} bytes" in output
    assert f"Sampled {KEYS_COUNT} keys in the keyspace!" in cli(node, "--memkeys")


def test_stat(cluster: Cluster) -> None:
    """It prints a line each interval until it is stopped; into a pipe, only when there are 4 KB of them."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(["redis-cli", "-p", str(node.port), "-i", "0.01", "--stat"], stdout=subprocess.PIPE))
            for node in cluster.nodes
        ]
        for process in processes:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(4)]
            process.kill()
            assert lines[0].startswith("------- data ------")
            assert lines[1].split()[0] == "keys"
            for line in lines[2:]:
                keys, memory, clients, blocked, requests = line.split()[:5]
                # Of those that the node holds copies of.
                assert 0 < int(keys) < KEYS_COUNT
                assert blocked == "0"
                assert re.fullmatch(r"[0-9.]+[BKMG]", memory)
                assert int(clients) >= 1
                assert int(requests) > 0


def test_latency(node: NodeProcess) -> None:
    assert re.fullmatch(r"\d+ \d+ \d+\.\d+ \d+\n", cli(node, "--raw", "-i", "0.2", "--latency"))


@pytest.mark.parametrize("command", ["check", "info", "call"])
def test_cluster_commands(cluster: Cluster, node: NodeProcess, command: str) -> None:
    address = f"127.0.0.1:{node.port}"
    done = subprocess.run(
        ["redis-cli", "--cluster", command, address, *(["PING"] if command == "call" else [])], capture_output=True, timeout=60, check=False
    )
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, output
    for each in cluster.nodes:
        assert f"127.0.0.1:{each.port}" in output
    if command == "call":
        assert output.count("PONG") == 5
    else:
        assert "in 5 primaries" in output or "in 5 masters" in output
    if command == "check":
        assert "[OK] All nodes agree about slots configuration." in output
        assert "[OK] All 16384 slots covered." in output
        assert "[ERR]" not in output
        assert "[WARNING]" not in output


def test_on_a_terminal(node: NodeProcess) -> None:
    """There it asks for COMMAND DOCS first, and knows by it what to show of a command."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb"}
    try:
        with subprocess.Popen(["redis-cli", "-p", str(node.port)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            shown = ""
            lines = {
                "SET typed 1": "OK",
                "GET typed": '"1"',
                "help getex": "Returns the string value of a key after setting its expiration time.",
                "DEL typed": "(integer) 1",
            }
            for line, expected in lines.items():
                os.write(ours, line.encode() + b"\n")
                while expected not in shown.partition(line)[2]:
                    shown += os.read(ours, 65536).decode()
            os.write(ours, b"QUIT\n")
            assert process.wait(20) == 0
    finally:
        os.close(ours)


def test_a_cluster_with_a_node_down_is_still_whole(cluster: Cluster) -> None:
    """Slots of a node that is down are shown under the next of their replicas."""
    cluster[4].kill()
    try:
        cluster.wait_seen_down(cluster[4])
        output = check_of(cluster[0])
        assert "[OK] All 16384 slots covered." in output
        assert "[OK] All nodes agree about slots configuration." in output
        found = cli(cluster[0], "--scan", "--pattern", "key:*").split()
        assert len(set(found)) == len(found) == KEYS_COUNT
    finally:
        cluster.start()
    wait_until("all agree again", lambda: "[OK] All nodes agree about slots configuration." in check_of(cluster[4]))


def check_of(node: NodeProcess) -> str:
    """What `redis-cli --cluster check` says, whatever its verdict."""
    command = ["redis-cli", "--cluster", "check", f"127.0.0.1:{node.port}"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout.decode()
