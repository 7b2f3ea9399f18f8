"""Combinations of directives that cannot be.

Each rule names the directives it is about, so that a refusal can point at the one that was given,
and says in a sentence what is wrong with the values, or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from respkv.config.founders import CLUSTER_PORT_OFFSET, PORT_MAX
from respkv.config.quorums import Quorums, configured_quorums

if TYPE_CHECKING:
    from respkv.config.settings import Settings

_LOOPBACK_NAMES = frozenset({"localhost", "::1"})
_WILDCARDS = frozenset({"*", "::*", "0.0.0.0", "::"})


class Problem(NamedTuple):
    """What is wrong, and the directives that make it so, the likeliest culprit first."""

    names: tuple[str, ...]
    reason: str


def combination_problem(settings: Settings, *, members: int | None = None) -> Problem | None:
    """The first combination that cannot be, or None. `members` is the size of the ring, where it is known."""
    quorums = configured_quorums(settings, members=members)
    problem = quorum_problem(quorums)
    if problem:
        few = f" (the ring has {members} members)" if quorums.n < settings.replication_factor else ""
        return problem._replace(reason=problem.reason + few)
    if settings.sloppy_quorum and not settings.hinted_handoff:
        return Problem(
            ("hinted-handoff", "sloppy-quorum"),
            "hinted-handoff no needs sloppy-quorum no: stand-ins would never give back what they hold",
        )
    if settings.peer_queue_limit < settings.proto_max_bulk_len:
        return Problem(
            ("peer-queue-limit", "proto-max-bulk-len"),
            f"peer-queue-limit {settings.peer_queue_limit} is below proto-max-bulk-len {settings.proto_max_bulk_len}: "
            "the biggest value could not reach a replica",
        )
    if settings.handoff_rate_min > settings.handoff_rate_max:
        return Problem(
            ("handoff-rate-min", "handoff-rate-max"),
            f"handoff-rate-min {settings.handoff_rate_min} is above handoff-rate-max {settings.handoff_rate_max}",
        )
    return None


def quorum_problem(quorums: Quorums) -> Problem | None:
    """What is impossible about these numbers; `RESPKV QUORUM` asks the same for one connection."""
    n, r, w, pr, pw = quorums
    for name, count, limit_name, limit in (
        ("read-quorum", r, "replication-factor", n),
        ("write-quorum", w, "replication-factor", n),
        ("primary-read-quorum", pr, "read-quorum", r),
        ("primary-write-quorum", pw, "write-quorum", w),
    ):
        if count > limit:
            names = (name, limit_name) if limit_name == "replication-factor" else (name, limit_name, "replication-factor")
            return Problem(names, f"{name} {count} is more than {limit_name} {limit}")
    return None


def start_problem(settings: Settings) -> Problem | None:
    """What keeps a node with these settings from starting, or None."""
    # Without a list the ring may be on disk already: its size is not known here.
    problem = combination_problem(settings, members=len(settings.cluster_nodes) or None)
    if problem:
        return problem
    if not settings.cluster_port and settings.port > PORT_MAX - CLUSTER_PORT_OFFSET:
        return Problem(
            ("cluster-port", "port"),
            f"port {settings.port} is too high to add {CLUSTER_PORT_OFFSET} for the cluster port: set cluster-port",
        )
    if settings.cluster_port and settings.cluster_port == settings.port:
        return Problem(("cluster-port", "port"), f"port and cluster-port are both {settings.port}")
    if len(settings.cluster_nodes) > 1 and not settings.cluster_announce_ip and is_wildcard(settings.bind[0]):
        return Problem(("bind", "cluster-announce-ip"), f"other nodes cannot reach this one at {settings.bind[0]}: set cluster-announce-ip")
    if not settings.cluster_secret:
        beyond = [address for address in settings.bind if not is_loopback(address)]
        if beyond:
            return Problem(
                ("cluster-secret", "bind"),
                f"bind {beyond[0]} is open to other machines, and without a cluster-secret anybody who reaches the cluster port "
                "could read and change everything: set the same cluster-secret on all nodes, or bind 127.0.0.1",
            )
    return None


def is_loopback(address: str) -> bool:
    """Whether an address of `bind` cannot be reached from other machines."""
    bare = address.removeprefix("-")
    parts = bare.split(".")
    # A host name like 127.evil.example is no address.
    is_loopback_v4 = len(parts) == 4 and parts[0] == "127" and all(part.isascii() and part.isdigit() for part in parts)
    return is_loopback_v4 or bare in _LOOPBACK_NAMES


def is_wildcard(address: str) -> bool:
    """Whether an address of `bind` stands for all addresses of the machine."""
    return address.removeprefix("-") in _WILDCARDS
