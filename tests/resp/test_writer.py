"""Replies, byte by byte, in both versions of the protocol."""

from __future__ import annotations

from collections.abc import Callable

import hiredis
import pytest

from respkv.resp import writer


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (writer.simple("Background saving started"), b"+Background saving started\r\n"),
        (writer.error("ERR unknown command 'a\r\nb'"), b"-ERR unknown command 'a  b'\r\n"),
        (writer.error("ERR byte \udcff"), b"-ERR byte \xff\r\n"),
        (writer.integer(0), writer.ZERO),
        (writer.integer(1), writer.ONE),
        (writer.integer(999), b":999\r\n"),
        (writer.integer(1000), b":1000\r\n"),
        (writer.integer(-1), b":-1\r\n"),
        (writer.integer(-(2**63)), b":-9223372036854775808\r\n"),
        (writer.bulk(b""), writer.EMPTY_BULK),
        (writer.bulk(b"\r\n\0"), b"$3\r\n\r\n\0\r\n"),
        (writer.bulk(b"x" * 1023), b"$1023\r\n" + b"x" * 1023 + b"\r\n"),
        (writer.bulk(b"x" * 1024), b"$1024\r\n" + b"x" * 1024 + b"\r\n"),
        (writer.array([]), writer.EMPTY_ARRAY),
        (writer.array([writer.ONE, writer.OK]), b"*2\r\n:1\r\n+OK\r\n"),
        (writer.bulks([b"a", None]), b"*2\r\n$1\r\na\r\n$-1\r\n"),
        (writer.bulks([b"a", None], 3), b"*2\r\n$1\r\na\r\n_\r\n"),
    ],
)
def test_reply(reply: bytes, expected: bytes) -> None:
    assert reply == expected


VERSIONS: dict[str, tuple[Callable[[int], bytes], bytes, bytes]] = {
    "null": (writer.null, b"$-1\r\n", b"_\r\n"),
    "no string": (lambda resp: writer.bulk(None, resp), b"$-1\r\n", b"_\r\n"),
    "no array": (writer.null_array, b"*-1\r\n", b"_\r\n"),
    "map": (lambda resp: writer.mapping([(b"+a\r\n", b":1\r\n")], resp), b"*2\r\n+a\r\n:1\r\n", b"%1\r\n+a\r\n:1\r\n"),
    "set": (lambda resp: writer.set_of([b":1\r\n", b":2\r\n"], resp), b"*2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:2\r\n"),
    "push": (lambda resp: writer.push([b"+a\r\n"], resp), b"*1\r\n+a\r\n", b">1\r\n+a\r\n"),
    "true": (lambda resp: writer.boolean(True, resp), b":1\r\n", b"#t\r\n"),
    "false": (lambda resp: writer.boolean(False, resp), b":0\r\n", b"#f\r\n"),
    "text": (lambda resp: writer.verbatim("grün", resp), b"$5\r\ngr\xc3\xbcn\r\n", b"=9\r\ntxt:gr\xc3\xbcn\r\n"),
    "fraction": (lambda resp: writer.double(0.1, resp), b"$3\r\n0.1\r\n", b",0.1\r\n"),
    "whole": (lambda resp: writer.double(3.0, resp), b"$1\r\n3\r\n", b",3\r\n"),
    "infinity": (lambda resp: writer.double(float("-inf"), resp), b"$4\r\n-inf\r\n", b",-inf\r\n"),
}


@pytest.mark.parametrize("kind", VERSIONS)
def test_each_version_of_the_protocol(kind: str) -> None:
    reply, old, new = VERSIONS[kind]
    assert (reply(2), reply(3)) == (old, new)


def decoded(reply: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def test_nested_values_come_out_of_a_client_as_they_went_in() -> None:
    value = {b"server": [b"redis", 7, None, True, 1.5], b"modules": [], b"more": {b"a": {b"b": b"c"}}}
    assert decoded(writer.encode(value, 3)) == value
    assert decoded(writer.encode(value, 2)) == [b"server", [b"redis", 7, None, 1, b"1.5"], b"modules", [], b"more", [b"a", [b"b", b"c"]]]
    assert writer.encode({"x"}, 3) == b"~1\r\n$1\r\nx\r\n"
    assert writer.encode(("grün", "\udcff"), 2) == b"*2\r\n$5\r\ngr\xc3\xbcn\r\n$1\r\n\xff\r\n"


def test_what_has_no_type_is_a_bug() -> None:
    with pytest.raises(TypeError, match="complex"):
        writer.encode(1j, 3)
