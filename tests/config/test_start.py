from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from respkv.config.settings import Settings
from respkv.config.start import INCLUDE_DEPTH_MAX, Reader, Start, configure
from respkv.errors import ConfigurationError


def folder(**files: str) -> Reader:
    """Files by name, `dash` standing for standard input; names have dots for underscores."""
    texts = {"-" if name == "dash" else name.replace("_", "."): text for name, text in files.items()}

    def read(path: str) -> list[tuple[str, str]]:
        if "*" in path:
            return [(name, text) for name, text in sorted(texts.items()) if fnmatchcase(name, path)]
        if path not in texts:
            raise FileNotFoundError(2, "No such file or directory", path)
        return [(path, texts[path])]

    return read


def started(*arguments: str, read: Callable[[str], list[tuple[str, str]]] | Reader | None = None) -> Start:
    return configure(list(arguments), read=read or folder())


def refused(*arguments: str, read: Reader | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(list(arguments), read=read or folder())
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    start = started()
    assert (start.settings, start.conf_file, start.given) == (Settings(), None, {})


def test_options_come_after_the_file() -> None:
    start = started("a.conf", "--port", "2", read=folder(a_conf="port 1\ntimeout 5\n"))
    assert (start.settings.port, start.settings.timeout, start.conf_file) == (2, 5, "a.conf")
    assert start.given["timeout"].place == "a.conf, at line 2"
    assert start.given["port"].place == "the command line"


@pytest.mark.parametrize("arguments", [["-", "--timeout", "5"], ["--timeout", "5", "-"], ["a.conf", "-", "--timeout", "5"]])
def test_a_dash_reads_standard_input_between_file_and_options(arguments: list[str]) -> None:
    start = started(*arguments, read=folder(a_conf="port 1\ntcp-keepalive 1", dash="port 2\ntimeout 3"))
    assert (start.settings.port, start.settings.timeout) == (2, 5)
    assert start.conf_file == ("a.conf" if arguments[0] == "a.conf" else None)


def test_words_after_an_option_are_its_arguments() -> None:
    start = started("--bind", "127.0.0.1", "-::1", "--client-output-buffer-limit", "normal", "1mb", "0", "0", "--N-VAL", "1")
    assert start.settings.bind == ("127.0.0.1", "-::1")
    assert start.settings.client_output_buffer_limit.normal.hard_bytes == 1 << 20
    assert start.settings.replication_factor == 1


def test_an_option_and_its_value_may_come_as_one_word() -> None:
    start = started("--port 7001", "--requirepass 'a b'")
    assert (start.settings.port, start.settings.requirepass) == (7001, "a b")


def test_the_word_after_an_option_is_its_value_whatever_it_looks_like() -> None:
    assert started("--requirepass", "--port", "--port", "1").settings.requirepass == "--port"


def test_words_are_taken_as_they_are() -> None:
    assert started("--requirepass", 'a "b\\').settings.requirepass == 'a "b\\'


def test_repeated_lines_the_last_one_holds() -> None:
    assert started("a.conf", read=folder(a_conf="timeout 1\ntimeout 2\n")).settings.timeout == 2


def test_buffer_limits_of_several_lines_add_up() -> None:
    text = "client-output-buffer-limit normal 1mb 0 0\nclient-output-buffer-limit pubsub 2mb 0 0\n"
    limits = started("a.conf", read=folder(a_conf=text)).settings.client_output_buffer_limit
    assert (limits.normal.hard_bytes, limits.pubsub.hard_bytes) == (1 << 20, 2 << 20)


def test_included_files_are_read_where_their_line_stands() -> None:
    files = folder(a_conf="timeout 1\ninclude inc*.conf\ntcp-keepalive 9", inc1_conf="timeout 2\ntcp-keepalive 2", inc2_conf="port 7")
    start = started("a.conf", read=files)
    assert (start.settings.timeout, start.settings.tcp_keepalive, start.settings.port) == (2, 9, 7)
    assert start.given["port"].place == "inc2.conf, at line 1"


def test_a_pattern_may_name_no_file() -> None:
    assert started("a.conf", read=folder(a_conf="include none*.conf\nport 1")).settings.port == 1


def test_files_that_include_each_other_are_refused() -> None:
    answer = refused("a.conf", read=folder(a_conf="include b.conf", b_conf="include a.conf"))
    assert answer == f"b.conf is included by {INCLUDE_DEPTH_MAX} files that include each other"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("loglevel foo", "argument(s) must be one of the following: debug, verbose, notice, warning"),
        ("foo bar", "Bad directive or wrong number of arguments"),
        ("port", "wrong number of arguments"),
        ("port 1 2", "wrong number of arguments"),
        ('PORT "79" # hi', "wrong number of arguments"),
        ("maxmemory 1x", "argument must be a memory value"),
        ('loglevel "notice"x', "Unbalanced quotes in configuration line"),
        ("include", "wrong number of arguments"),
    ],
)
def test_a_bad_line_is_shown_with_its_place(line: str, reason: str) -> None:
    assert refused("a.conf", read=folder(a_conf=f"# first\n{line}\nport zz")) == f"Reading a.conf, at line 2\n>>> '{line}'\n{reason}"


@pytest.mark.parametrize(
    ("arguments", "text", "reason"),
    [
        (["--port", "zz"], 'port "zz"', "argument couldn't be parsed into an integer"),
        (["--port", "7997", "--foo"], "foo", "Bad directive or wrong number of arguments"),
        (["--port", "7997", "foo", "--timeout", "x"], 'port "7997" "foo"', "wrong number of arguments"),
        (["--port"], "port", "wrong number of arguments"),
        (["--port=7997"], "port=7997", "Bad directive or wrong number of arguments"),
        (["--loglevel", "--foo"], 'loglevel "--foo"', "argument(s) must be one of the following: debug, verbose, notice, warning"),
        (["-p", "8"], "-p", "Bad directive or wrong number of arguments"),
        (["--"], "--", "Bad directive or wrong number of arguments"),
        (["--save", "3600", "1"], 'save "3600" "1"', "wrong number of arguments"),
    ],
)
def test_a_bad_option_is_shown(arguments: list[str], text: str, reason: str) -> None:
    assert refused(*arguments) == f"Reading the command line\n>>> '{text}'\n{reason}"


def test_a_file_that_is_missing() -> None:
    reason = "Fatal error, can't open config file '{}': No such file or directory"
    assert refused("nofile.conf") == reason.format("nofile.conf")
    assert refused("port", "7997") == reason.format("port")
    assert refused("a.conf", read=folder(a_conf="include nope.conf")) == reason.format("nope.conf")


def test_a_password_is_not_shown() -> None:
    for answer in (refused("--cluster-secret", "hush"), refused("a.conf", read=folder(a_conf="cluster-secret hush"))):
        assert "hush" not in answer
        assert "at least 16 characters" in answer


def test_combinations_that_cannot_be_name_the_line_that_makes_them() -> None:
    answer = refused("a.conf", read=folder(a_conf="port 1\nread-quorum 3\nn-val 2"))
    assert answer == "Reading a.conf, at line 2\n>>> 'read-quorum 3'\nread-quorum 3 is more than replication-factor 2"


def test_order_of_lines_does_not_matter_for_what_must_fit_together() -> None:
    start = started("--read-quorum", "5", "--replication-factor", "5", "--cluster-nodes", *(f"10.0.0.1:{port}" for port in range(5, 10)))
    assert start.settings.read_quorum == "5"


def test_quorums_must_be_possible_among_the_founders() -> None:
    answer = refused("--cluster-nodes", "127.0.0.1:7001", "127.0.0.1:7002", "--write-quorum", "3")
    assert answer.endswith("write-quorum 3 is more than replication-factor 2 (the ring has 2 members)")


def test_beyond_loopback_a_secret_is_needed() -> None:
    assert "cluster-secret" in refused("--bind", "10.0.0.1")
    assert started("--bind", "10.0.0.1", "--cluster-secret", "x" * 16).settings.bind == ("10.0.0.1",)
