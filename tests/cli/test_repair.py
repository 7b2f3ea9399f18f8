from __future__ import annotations

import msgspec
import pytest

from respkv.cli import repair
from respkv.cli.connection import Address
from respkv.cli.repair import Told, run_repair, sentence, shown, summary

REPLY = b"""{"is_done":false,"total":{"pairs":4,"pairs_done":1,"partitions_compared":2048,"partitions_differing":10,
"partitions_done":5,"keys_compared":80,"keys_repaired":3,"bytes":2048,"failures":[]},"unreached":[]}"""


def test_how_far_it_is() -> None:
    told = msgspec.json.decode(REPLY, type=Told)
    assert shown(told) == (1.5, 4.0)
    assert sentence(told) == "1 of 4 pairs of nodes, 80 keys compared, 3 repaired"


def test_what_was_done_and_what_was_not() -> None:
    told = msgspec.json.decode(REPLY, type=Told)
    total = msgspec.structs.replace(told.total, pairs_done=4, failures=["aaaaaaaa and bbbbbbbb: no answer"])
    assert summary(msgspec.structs.replace(told, total=total, unreached=["c" * 40])) == [
        "3 of 4 pairs of nodes compared: 2048 partitions, of which 10 differed",
        "80 keys compared, 3 records repaired, 2.00 KiB exchanged",
        "not compared: aaaaaaaa and bbbbbbbb: no answer",
        "did not answer: cccccccc",
    ]


class Client:
    """A node that is done when it is asked for the third time."""

    def __init__(self, final: bytes, *, first: bytes = REPLY) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._first, self._final = first, final

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute_command(self, *words: str) -> bytes:
        self.asked.append(words)
        return self._final if len(self.asked) == 3 else REPLY if len(self.asked) == 2 else self._first


@pytest.mark.parametrize(("failures", "code"), [("[]", 0), ('["a and b: no answer"]', 1)])
def test_it_waits_until_all_is_compared(
    failures: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    final = REPLY.replace(b'"is_done":false', b'"is_done":true').replace(b'"failures":[]', b'"failures":' + failures.encode())
    client = Client(final)
    monkeypatch.setattr(repair, "connect", lambda _address: client)
    monkeypatch.setattr(repair, "POLL_S", 0.0)
    assert run_repair(Address("127.0.0.1", 7001), partition=7, node="abc", as_json=False) == code
    assert client.asked == [
        ("RESPKV", "REPAIR", "PARTITION", "7", "NODE", "abc"),
        ("RESPKV", "REPAIR", "STATUS"),
        ("RESPKV", "REPAIR", "STATUS"),
    ]
    assert "80 keys compared, 3 records repaired" in capsys.readouterr().out
    client.asked.clear()
    run_repair(Address("127.0.0.1", 7001), partition=None, node=None, as_json=True)
    assert '"keys_repaired": 3' in capsys.readouterr().out


def test_a_terminal_shows_a_bar_even_if_all_is_done_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = REPLY.replace(b'"is_done":false', b'"is_done":true')
    monkeypatch.setattr(repair, "connect", lambda _address: Client(done, first=done))
    assert run_repair(Address("127.0.0.1", 7001), partition=None, node=None, as_json=False) == 0
    assert "comparing" in capsys.readouterr().err


def test_who_was_away_at_the_beginning_is_not_forgotten(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    final = REPLY.replace(b'"is_done":false', b'"is_done":true')
    client = Client(final, first=REPLY.replace(b'"unreached":[]', b'"unreached":["cccccccccccc"]'))
    monkeypatch.setattr(repair, "connect", lambda _address: client)
    monkeypatch.setattr(repair, "POLL_S", 0.0)
    assert run_repair(Address("127.0.0.1", 7001), partition=None, node=None, as_json=False) == 1
    assert "did not answer: cccccccc" in capsys.readouterr().out
