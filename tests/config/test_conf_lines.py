from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.config.conf_lines import in_quotes, line_for, lines_of, quoted, split_line
from respkv.config.directives import BY_NAME
from respkv.config.settings import Settings
from respkv.errors import ConfigurationError

# Bytes of any kind, as they come out of a file: no carriage return or newline cuts them here.
TEXTS = st.binary(max_size=30).map(lambda data: data.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port 7001", ["port", "7001"]),
        ("  a\t b  ", ["a", "b"]),
        ('a "" b', ["a", "", "b"]),
        (r'"a b\x41\n\t\"\\"', ['a bA\n\t"\\']),
        (r'"\q\x4"', ["qx4"]),
        (r"'a \n \' b'", [r"a \n ' b"]),
        ('pre"fix ed"', ["prefix ed"]),
        ('PORT "79\\x397"', ["PORT", "7997"]),
        ("a # b", ["a", "#", "b"]),
        ("", []),
        ("è", ["è"]),
        (r'"\xff"', ["\udcff"]),
    ],
)
def test_cuts_lines_as_redis_does(text: str, words: list[str]) -> None:
    assert split_line(text) == words


@pytest.mark.parametrize("text", ['a "b', "a 'b", '"notice"x', "'a'b", '"a\\', '"a\\"'])
def test_quotes_that_do_not_match(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Unbalanced quotes"):
        split_line(text)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split_line(" ".join(map(quoted, words))) == words
    assert split_line(" ".join(map(in_quotes, words))) == words


@given(TEXTS)
def test_quoted_words_fit_on_one_line_of_ascii(text: str) -> None:
    assert quoted(text).isascii()
    assert quoted(text).isprintable()
    assert not quoted(text).startswith("#")


@given(TEXTS)
def test_any_line_is_cut_or_refused(text: str) -> None:
    try:
        words = split_line(text)
    except ConfigurationError:
        return
    assert split_line(" ".join(map(quoted, words))) == words


def test_only_what_needs_quotes_gets_them() -> None:
    assert [quoted(text) for text in ("yes", "a b", "", "#x", 'a"b', "è")] == ["yes", '"a b"', '""', '"#x"', r'"a\"b"', r'"\xc3\xa8"']


def test_comments_and_blank_lines_are_no_directives() -> None:
    lines = list(lines_of("# hello\n\n  PORT 7001 \r\n\t# more\nbind a b\n", source="my.conf"))
    assert [(line.number, line.name, line.arguments) for line in lines] == [(3, "port", ["7001"]), (5, "bind", ["a", "b"])]
    assert lines[0].place == "my.conf, at line 3"


def test_a_fault_shows_the_line_and_where_it_is() -> None:
    with pytest.raises(ConfigurationError) as caught:
        list(lines_of('port 1\nfoo "a\n', source="my.conf"))
    assert str(caught.value) == "Reading my.conf, at line 2\n>>> 'foo \"a'\nUnbalanced quotes in configuration line"


def test_a_fault_does_not_show_a_password() -> None:
    (line,) = lines_of("requirepass very secret", source="my.conf")
    assert "secret" not in str(line.fault("wrong number of arguments", sensitive=True))


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("maxmemory", ["100mb"], "maxmemory 100mb"),
        ("save", [""], 'save ""'),
        ("cluster-nodes", [""], 'cluster-nodes ""'),
        ("bind", ["127.0.0.1 -::1"], "bind 127.0.0.1 -::1"),
        ("requirepass", ['a b\x01"\\'], r'requirepass "a b\x01\"\\"'),
        ("sloppy-quorum", ["NO"], "sloppy-quorum no"),
        (
            "client-output-buffer-limit",
            ["normal 0 0 0"],
            "client-output-buffer-limit normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60",
        ),
    ],
)
def test_lines_are_written_as_an_operator_would(name: str, arguments: list[str], line: str) -> None:
    settings = Settings()
    settings.assign(BY_NAME[name], arguments)
    assert line_for(BY_NAME[name], settings.value(BY_NAME[name])) == line
