"""The arithmetic of N, R, W, PR and PW. Pure numbers: who the replicas are is the ring's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from respkv.config.settings import Settings


class Quorums(NamedTuple):
    """How many nodes keep a key, and how many of them have to answer."""

    n: int
    r: int
    w: int
    pr: int
    pw: int

    def larger(self, other: Quorums) -> Quorums:
        """The stricter of both rules, number by number: it overlaps with whatever either of them did."""
        return Quorums(*(max(left, right) for left, right in zip(self, other, strict=True)))

    def cut(self) -> Quorums:
        """The same where numbers above n mean all."""
        return Quorums(*(min(number, self.n) for number in self))


def resolve_quorum(kind: str, n: int) -> int:
    """How many of `n` replicas `one`, `quorum`, `all` or a number asks for. A number is not cut down to `n`."""
    match kind:
        case "one":
            return 1
        case "quorum":
            return n // 2 + 1
        case "all":
            return n
        case _:
            return int(kind)


def configured_quorums(settings: Settings, *, members: int | None = None) -> Quorums:
    """The quorums that are set, in a ring of so many members."""
    n = settings.replication_factor
    return resolve_quorums(
        n if members is None else min(n, members),
        read=settings.read_quorum,
        write=settings.write_quorum,
        primary_read=settings.primary_read_quorum,
        primary_write=settings.primary_write_quorum,
    )


def resolve_quorums(n: int, *, read: str, write: str, primary_read: str, primary_write: str) -> Quorums:
    """The same from words."""
    return Quorums(
        n=n,
        r=resolve_quorum(read, n),
        w=resolve_quorum(write, n),
        pr=resolve_quorum(primary_read, n),
        pw=resolve_quorum(primary_write, n),
    )
