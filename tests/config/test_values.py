from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.config.directives import BY_NAME, DIRECTIVES
from respkv.config.settings import Settings
from respkv.config.values import (
    BufferLimit,
    UnfitArgumentError,
    arguments_of,
    is_decimal,
    parse,
    parse_memory,
    show,
    show_memory,
)
from tests.config.strategies import arguments

if TYPE_CHECKING:
    from respkv.config.directive import Directive

INT64 = 9223372036854775807
INTEGER = "argument couldn't be parsed into an integer"
MEMORY = "argument must be a memory value"

# Recorded from redis-server 7.0.15, for directives of the same name and range.
REFUSALS_OF_REDIS = [
    ("timeout", "abc", INTEGER),
    ("timeout", "", INTEGER),
    ("timeout", "1.5", INTEGER),
    ("timeout", "010", INTEGER),
    ("timeout", "+10", INTEGER),
    ("timeout", " 10", INTEGER),
    ("timeout", "10 ", INTEGER),
    ("timeout", "0x10", INTEGER),
    ("timeout", "10s", INTEGER),
    ("timeout", "99999999999999999999999", INTEGER),
    ("timeout", "-1", "argument must be between 0 and 2147483647 inclusive"),
    ("maxclients", "0", "argument must be between 1 and 4294967295 inclusive"),
    ("port", "65536", "argument must be between 0 and 65535 inclusive"),
    ("slowlog-log-slower-than", "-5", f"argument must be between -1 and {INT64} inclusive"),
    ("latency-monitor-threshold", "-1", f"argument must be between 0 and {INT64} inclusive"),
    ("client-query-buffer-limit", "1", f"argument must be between 1048576 and {INT64} inclusive"),
    ("maxmemory", "abc", MEMORY),
    ("maxmemory", "1.5gb", MEMORY),
    ("maxmemory", "-1", MEMORY),
    ("maxmemory", "+10", MEMORY),
    ("maxmemory", " 10", MEMORY),
    ("maxmemory", "12kk", MEMORY),
    ("maxmemory", "1t", MEMORY),
    ("maxmemory", "10%", MEMORY),
    ("protected-mode", "maybe", "argument must be 'yes' or 'no'"),
    ("protected-mode", "", "argument must be 'yes' or 'no'"),
    ("loglevel", "xx", "argument(s) must be one of the following: debug, verbose, notice, warning"),
    ("loglevel", "", "argument(s) must be one of the following: debug, verbose, notice, warning"),
    ("appendfsync", "xx", "argument(s) must be one of the following: everysec, always, no"),
    ("client-output-buffer-limit", "normal 1", "Wrong number of arguments in buffer limit configuration."),
    ("client-output-buffer-limit", "foo 0 0 0", "Invalid client class specified in buffer limit configuration."),
    (
        "client-output-buffer-limit",
        "normal 1mb 0 -1",
        "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
    ),
]
# Redis takes these for a number, with a result that nobody meant.
STRICTER_THAN_REDIS = [
    ("maxmemory", "", MEMORY),
    ("maxmemory", "kb", MEMORY),
    ("maxmemory", "18446744073709551616", MEMORY),
]
OWN_REFUSALS = [
    ("timeout", "1_0", INTEGER),
    ("timeout", "٣", INTEGER),
    ("timeout", "-0", INTEGER),
    ("maxmemory", "1_0mb", MEMORY),
    ("maxmemory", "٣mb", MEMORY),
    ("maxmemory", "9999999999999gb", MEMORY),
    ("ring-size", "1000", "argument must be a power of two"),
    ("replication-factor", "0", "argument must be between 1 and 16 inclusive"),
    ("read-quorum", "most", "argument must be 'one', 'quorum', 'all' or a number"),
    ("read-quorum", "02", "argument must be 'one', 'quorum', 'all' or a number"),
    ("read-quorum", "-1", "argument must be 'one', 'quorum', 'all' or a number"),
    ("read-quorum", "0", "argument must be between 1 and 16 inclusive"),
    ("primary-read-quorum", "17", "argument must be between 0 and 16 inclusive"),
    ("cluster-secret", "guess", "argument must have at least 16 characters"),
    ("availability-zone", "a b", "argument may only have letters, digits and -_."),
    ("syslog-ident", "a\nb", "argument must not contain control characters"),
    ("logfile", "a\0b", "argument must not contain control characters"),
    ("bind", "", "wrong number of arguments"),
    ("save", "3600 1", 'argument(s) must be one of the following: ""'),
    ("cluster-nodes", "127.0.0.1", "argument must be HOST:PORT[@CLUSTER-PORT][/ZONE]"),
    ("client-output-buffer-limit", "normal 1 1 1kb", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
]


@pytest.mark.parametrize(("name", "text", "reason"), REFUSALS_OF_REDIS + STRICTER_THAN_REDIS + OWN_REFUSALS)
def test_refuses_in_the_words_of_redis(name: str, text: str, reason: str) -> None:
    directive = BY_NAME[name]
    with pytest.raises(UnfitArgumentError) as caught:
        parse(directive, arguments_of(directive, text))
    assert str(caught.value) == reason


def test_a_scalar_takes_one_argument() -> None:
    for given_arguments in ([], ["1", "2"]):
        with pytest.raises(UnfitArgumentError, match=r"^wrong number of arguments$"):
            parse(BY_NAME["timeout"], given_arguments)


@given(st.sampled_from(DIRECTIVES).flatmap(lambda directive: st.tuples(st.just(directive), arguments(directive))))
def test_what_is_shown_means_the_same(pair: tuple[Directive, str]) -> None:
    directive, text = pair
    value = parse(directive, arguments_of(directive, text))
    shown = show(value)
    assert parse(directive, arguments_of(directive, shown)) == value
    assert show(parse(directive, arguments_of(directive, shown))) == shown


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("010", 10),
        ("1B", 1),
        ("1k", 1000),
        ("1KB", 1024),
        ("3m", 3_000_000),
        ("3Mb", 3 * 1024**2),
        ("1g", 10**9),
        ("2GB", 2 << 30),
    ],
)
def test_units_of_memory(text: str, count: int) -> None:
    assert parse_memory(text) == count


@given(st.integers(0, 2**63 - 1))
def test_memory_is_written_exactly(count: int) -> None:
    assert parse_memory(show_memory(count)) == count


def test_memory_is_written_short() -> None:
    assert [show_memory(count) for count in (0, 1, 1024, 64 << 20, 3 << 30, 1 << 50)] == ["0", "1", "1kb", "64mb", "3gb", "1048576gb"]


@given(st.text(max_size=30))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for directive in DIRECTIVES:
        try:
            value = parse(directive, arguments_of(directive, text))
        except UnfitArgumentError:
            continue
        assert parse(directive, arguments_of(directive, show(value))) == value


def test_buffer_limits_change_class_by_class() -> None:
    settings = Settings()
    settings.assign(BY_NAME["client-output-buffer-limit"], ["normal 1mb 0 0 replica 2kb 1kb 3"])
    assert settings.client_output_buffer_limit.normal == BufferLimit(1 << 20, 0, 0)
    assert settings.client_output_buffer_limit.slave == BufferLimit(2048, 1024, 3)
    assert settings.client_output_buffer_limit.pubsub == Settings().client_output_buffer_limit.pubsub


def test_only_ascii_digits_are_decimal() -> None:
    assert is_decimal("0123")
    assert not any(is_decimal(text) for text in ("", "-1", "1 ", "²", "٣", "1_0"))
