from __future__ import annotations

import pytest

from respkv.cli.directives import OWNED, directives_of, with_directives
from respkv.config.directives import lookup
from respkv.errors import ConfigurationError


def test_directives_are_taken_by_their_proper_names() -> None:
    found = directives_of(["--N-VAL", "2", "--w", "all", "--maxmemory", "100mb", "--replication-factor", "3"])
    assert found == {"replication-factor": ["3"], "write-quorum": ["all"], "maxmemory": ["100mb"]}


@pytest.mark.parametrize("arguments", [["--no-such-thing", "1"], ["3"], ["-n", "3"]])
def test_what_is_no_directive_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        directives_of(arguments)


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_up_sets_itself_is_refused(name: str) -> None:
    assert lookup(name) is not None, "no such directive any more"
    with pytest.raises(ConfigurationError, match="sets for each node"):
        directives_of([f"--{name}", "1"])


def test_nodes_stay_on_this_machine() -> None:
    assert directives_of(["--bind", "127.0.0.1"]) == {"bind": ["127.0.0.1"]}
    for addresses in (["0.0.0.0"], ["::1"], ["127.0.0.1", "10.0.0.1"]):
        with pytest.raises(ConfigurationError, match="keeps its nodes on 127"):
            directives_of(["--bind", *addresses])


def test_a_directive_is_set_where_it_stood_and_once() -> None:
    text = "# mine\nport 1\n\nPORT 2\nloglevel debug\n"
    assert with_directives(text, {"port": ["7001"], "requirepass": ["a b"]}) == '# mine\nport 7001\n\nloglevel debug\nrequirepass "a b"\n'


def test_an_alias_in_the_file_is_the_same_directive() -> None:
    assert with_directives("n-val 2\n", {"replication-factor": ["3"]}) == "replication-factor 3\n"


def test_setting_twice_changes_nothing() -> None:
    directives = {"cluster-nodes": ["127.0.0.1:1@2", "127.0.0.1:3@4"], "dir": ["/a b/c"]}
    once = with_directives("", directives)
    assert with_directives(once, directives) == once
