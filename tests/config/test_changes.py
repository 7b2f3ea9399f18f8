from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from respkv.config.changes import Staged, apply, stage
from respkv.config.checks import combination_problem
from respkv.config.directives import DIRECTIVES, SHARED
from respkv.config.settings import Settings
from respkv.errors import ClientError
from tests.config.strategies import arguments, changed_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.config.directive import Directive

FAILED = "CONFIG SET failed (possibly related to argument '{}') - {}"
IMMUTABLE = "can't set immutable config"
MUTABLE = [directive for directive in DIRECTIVES if not directive.immutable]


def pairs_of(*words: str) -> list[tuple[bytes, bytes]]:
    encoded = [word.encode() for word in words]
    return list(zip(encoded[::2], encoded[1::2], strict=True))


def refused(*words: str, settings: Settings | None = None, members: int | None = None) -> str:
    """What CONFIG SET answers; and that it changed nothing."""
    settings = settings or Settings()
    before = settings.copy()
    with pytest.raises(ClientError) as caught:
        stage(settings, pairs_of(*words), members=members)
    assert settings == before
    assert caught.value.code == "ERR"
    return str(caught.value)


def after(*words: str) -> Settings:
    settings = Settings()
    staged = stage(settings, pairs_of(*words))
    apply(settings, staged.cluster)
    apply(settings, staged.node)
    return settings


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["foo", "1"], "Unknown option or number of arguments for CONFIG SET - 'foo'"),
        (["timeout", "zz", "foo", "1"], "Unknown option or number of arguments for CONFIG SET - 'foo'"),
        (["databases", "4"], FAILED.format("databases", IMMUTABLE)),
        (["timeout", "zz", "databases", "4"], FAILED.format("databases", IMMUTABLE)),
        (["timeout", "5", "timeout", "6", "foo", "7"], FAILED.format("timeout", "duplicate parameter")),
        (["timeout", "1", "TIMEOUT", "2"], FAILED.format("TIMEOUT", "duplicate parameter")),
        (["TIMEOUT", "x"], FAILED.format("timeout", "argument couldn't be parsed into an integer")),
        (["maxmemory", "1k", "timeout", "z"], FAILED.format("timeout", "argument couldn't be parsed into an integer")),
        (["dir", "/tmp"], FAILED.format("dir", "can't set protected config")),
        (["tcp-backlog", "1"], FAILED.format("tcp-backlog", IMMUTABLE)),
        (["cluster-enabled", "yes"], FAILED.format("cluster-enabled", IMMUTABLE)),
        (["maxmemory", "1x"], FAILED.format("maxmemory", "argument must be a memory value")),
    ],
)
def test_refuses_as_redis_does(words: list[str], answer: str) -> None:
    assert refused(*words) == answer


@pytest.fixture(scope="module")
def stock_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A redis-server on a socket file."""
    socket = tmp_path_factory.mktemp("redis") / "socket"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(socket.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("Ready to accept connections" in line or "ready to accept connections at" in line for line in process.stdout)
            with redis.Redis(unix_socket_path=str(socket)) as client:
                yield client
        finally:
            process.terminate()
            process.stdout.read()


@pytest.mark.stock("redis-server")
@pytest.mark.parametrize(
    "words",
    [
        ["foo", "1"],
        ["timeout", "zz", "foo", "1"],
        ["databases", "4"],
        ["timeout", "zz", "databases", "4"],
        ["timeout", "5", "timeout", "6", "foo", "7"],
        ["TIMEOUT", "x"],
        ["dir", "/nowhere"],
        ["maxmemory", "1x"],
        ["maxclients", "0"],
        ["loglevel", "xx"],
        ["appendfsync", "xx"],
        ["protected-mode", "maybe"],
        ["slowlog-log-slower-than", "-2"],
        ["client-query-buffer-limit", "1"],
        ["client-output-buffer-limit", "normal 1"],
        ["client-output-buffer-limit", "other 0 0 0"],
        ["client-output-buffer-limit", "normal 0 0 -1"],
        ["syslog-enabled", "yes"],
    ],
)
def test_words_are_those_of_the_redis_installed_here(stock_redis: redis.Redis, words: list[str]) -> None:
    with pytest.raises(redis.ResponseError) as caught:
        stock_redis.execute_command("CONFIG", "SET", *words)  # type: ignore[no-untyped-call]
    assert refused(*words) == str(caught.value)


def test_splits_what_belongs_to_the_cluster_from_what_belongs_to_the_node() -> None:
    staged = stage(Settings(), pairs_of("n-val", "5", "W", "all", "timeout", "3", "maxmemory", "1kb"))
    assert staged == Staged(cluster={"replication-factor": "5", "write-quorum": "all"}, node={"timeout": "3", "maxmemory": "1024"})


def test_an_alias_and_its_name_are_one_parameter() -> None:
    assert refused("read-quorum", "1", "r", "2") == FAILED.format("r", "duplicate parameter")


def test_protected_directives_open_to_those_who_may() -> None:
    with pytest.raises(ClientError, match=IMMUTABLE):
        stage(Settings(), pairs_of("dir", "/tmp"), may_set_protected=True)


def test_quorums_change_together() -> None:
    settings = after("replication-factor", "5", "read-quorum", "4", "write-quorum", "5", "primary-read-quorum", "4")
    assert (settings.replication_factor, settings.read_quorum, settings.write_quorum, settings.primary_read_quorum) == (5, "4", "5", "4")


@pytest.mark.parametrize(
    ("words", "name", "reason"),
    [
        (["read-quorum", "4"], "read-quorum", "read-quorum 4 is more than replication-factor 3"),
        (["W", "4"], "write-quorum", "write-quorum 4 is more than replication-factor 3"),
        (["pr", "3"], "primary-read-quorum", "primary-read-quorum 3 is more than read-quorum 2"),
        (["pw", "all"], "primary-write-quorum", "primary-write-quorum 3 is more than write-quorum 2"),
        (["w", "one", "pw", "quorum"], "primary-write-quorum", "primary-write-quorum 2 is more than write-quorum 1"),
        (["n-val", "2", "r", "3"], "read-quorum", "read-quorum 3 is more than replication-factor 2"),
        (
            ["hinted-handoff", "no"],
            "hinted-handoff",
            "hinted-handoff no needs sloppy-quorum no: stand-ins would never give back what they hold",
        ),
        (
            ["proto-max-bulk-len", "512mb"],
            "proto-max-bulk-len",
            "peer-queue-limit 268435456 is below proto-max-bulk-len 536870912: the biggest value could not reach a replica",
        ),
        (["handoff-rate-max", "1kb"], "handoff-rate-max", "handoff-rate-min 1048576 is above handoff-rate-max 1024"),
    ],
)
def test_refuses_combinations_that_cannot_be(words: list[str], name: str, reason: str) -> None:
    assert refused(*words) == FAILED.format(name, reason)


def test_points_at_the_argument_that_was_given() -> None:
    settings = after("read-quorum", "3")
    assert refused("replication-factor", "2", settings=settings) == FAILED.format(
        "replication-factor", "read-quorum 3 is more than replication-factor 2"
    )
    strict = after("sloppy-quorum", "no", "hinted-handoff", "no")
    assert "argument 'sloppy-quorum'" in refused("sloppy-quorum", "yes", settings=strict)


def test_a_ring_of_few_members_bounds_n() -> None:
    reason = "read-quorum 3 is more than replication-factor 2 (the ring has 2 members)"
    assert refused("read-quorum", "3", members=2) == FAILED.format("read-quorum", reason)
    assert stage(Settings(), pairs_of("read-quorum", "all"), members=2).cluster == {"read-quorum": "all"}


def test_strict_with_and_without_handoff() -> None:
    assert not after("sloppy-quorum", "no", "hinted-handoff", "no").hinted_handoff
    assert after("hinted-handoff", "yes", "sloppy-quorum", "no").hinted_handoff


def test_what_was_impossible_before_does_not_block_other_changes() -> None:
    settings = Settings()
    apply(settings, {"read-quorum": "3"})
    staged = stage(settings, pairs_of("timeout", "5"), members=2)
    assert staged.node == {"timeout": "5"}
    assert "read-quorum" in refused("write-quorum", "3", "read-quorum", "3", settings=settings, members=2)


def test_names_that_are_no_text_are_unknown() -> None:
    with pytest.raises(ClientError, match="Unknown option") as caught:
        stage(Settings(), [(b"\xff\r\n+OK", b"1")])
    assert caught.value.reply() == b"-ERR Unknown option or number of arguments for CONFIG SET - '\xff  +OK'\r\n"


@given(st.sampled_from(MUTABLE).flatmap(lambda directive: st.tuples(st.just(directive), arguments(directive))))
def test_what_config_get_shows_can_be_set_again(pair: tuple[Directive, str]) -> None:
    directive, text = pair
    settings = Settings()
    try:
        staged = stage(settings, [(directive.name.encode(), text.encode())])
    except ClientError:
        return  # refused for what it would make with the defaults
    apply(settings, staged.cluster)
    apply(settings, staged.node)
    shown = settings.show(directive.name).encode()
    again = stage(settings, [(directive.name.encode(), shown)])
    assert (again.cluster | again.node) == {directive.name: shown.decode()}


@given(
    changed_settings(),
    st.lists(st.sampled_from(SHARED).flatmap(lambda directive: st.tuples(st.just(directive), arguments(directive))), max_size=4),
)
def test_nothing_impossible_ever_comes_out(settings: Settings, chosen: list[tuple[Directive, str]]) -> None:
    before = settings.copy()
    was_possible = combination_problem(settings) is None
    try:
        staged = stage(settings, [(directive.name.encode(), text.encode()) for directive, text in chosen])
    except ClientError:
        assert settings == before
        return
    assert settings == before
    apply(settings, staged.cluster)
    assert not was_possible or combination_problem(settings) is None
