from __future__ import annotations

import pytest

from respkv.config.directives import BY_NAME, DIRECTIVES
from respkv.config.settings import Settings


def matches(pattern: bytes, name: bytes) -> bool:
    """A glob with stars at its ends alone."""
    return pattern.strip(b"*") in name


def test_values_are_in_the_unit_of_the_directive() -> None:
    settings = Settings()
    assert settings.request_timeout == 1000
    assert settings.proto_max_bulk_len == 64 << 20
    assert settings.sloppy_quorum is True
    assert settings.read_quorum == "quorum"
    assert settings.bind == ("127.0.0.1",)
    assert settings.client_output_buffer_limit.normal.soft_s == 60


def test_shows_as_config_get_prints() -> None:
    settings = Settings()
    assert settings.show("sloppy-quorum") == "yes"
    assert settings.show("proto-max-bulk-len") == "67108864"
    assert settings.show("n-val") == "3"
    assert settings.show("save") == ""
    assert settings.show("client-output-buffer-limit").startswith("normal 268435456 67108864 60 slave ")


def test_exact_names_come_back_as_they_were_asked() -> None:
    found = Settings().matching([b"w", b"TIMEOUT", b"nothing", b"n-val"], matches=matches)
    assert found == [(b"w", b"quorum"), (b"TIMEOUT", b"0"), (b"n-val", b"3")]


def test_patterns_find_names_and_aliases_once() -> None:
    found = Settings().matching([b"*QUORUM*", b"read-quorum", b"*-val*"], matches=matches)
    names = [name for name, _ in found]
    assert names == [
        b"read-quorum",
        b"write-quorum",
        b"primary-read-quorum",
        b"primary-write-quorum",
        b"sloppy-quorum",
        b"n-val",
    ]


def test_everything_answers_a_star() -> None:
    assert len(Settings().matching([b"*"], matches=matches)) == len(BY_NAME)


def test_redis_benchmark_finds_what_it_asks_for() -> None:
    assert Settings().matching([b"save", b"appendonly"], matches=matches) == [(b"save", b""), (b"appendonly", b"yes")]


def test_the_cluster_secret_is_told_to_nobody() -> None:
    settings = Settings()
    settings.assign(BY_NAME["cluster-secret"], ["sixteen-characters"])
    told = dict(settings.matching([b"cluster-secret", b"*"], matches=matches))
    assert told[b"cluster-secret"] == b""
    assert not any(b"sixteen" in value for value in told.values())


def test_bytes_that_are_no_text_survive() -> None:
    settings = Settings()
    settings.assign(BY_NAME["requirepass"], [b"\xff\x00".decode("utf-8", "surrogateescape")])
    assert settings.matching([b"requirepass"], matches=matches) == [(b"requirepass", b"\xff\x00")]


def test_a_copy_is_changed_alone() -> None:
    settings = Settings()
    twin = settings.copy()
    twin.assign(BY_NAME["timeout"], ["5"])
    assert (settings.timeout, twin.timeout) == (0, 5)
    assert settings != twin
    assert twin.changed() == {"timeout": "5"}


def test_misspelled_attributes_are_refused() -> None:
    with pytest.raises(AttributeError):
        Settings().request_timeuot = 5  # type: ignore[attr-defined]


def test_each_directive_has_an_attribute() -> None:
    assert set(Settings.__slots__) == {directive.attribute for directive in DIRECTIVES}
