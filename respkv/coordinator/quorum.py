"""What is said when too few replicas answer; the arithmetic itself is `config.quorums`. Pure.

Rule 1: nodes are counted once, whatever they stand in for.
Rule 2: a refusal (NOQUORUM) is given before any effect; a TIMEOUT may still take effect. They are never mixed up.
"""

from __future__ import annotations

from respkv.errors import NoQuorumError, OverloadedError, QuorumTimeoutError


def refusal(kind: str, *, needed: int, up: int, primaries_needed: int, primaries_up: int) -> NoQuorumError:
    """The error for too few replicas. `kind` is "read" or "write"."""
    text = f"{kind} needs {needed} replicas, {up} can answer"
    if primaries_needed:
        text += f" (primaries: needs {primaries_needed}, up {primaries_up})"
    return NoQuorumError(text + "; nothing was done")


def read_timeout(*, needed: int, answered: int) -> QuorumTimeoutError:
    """The error for a read that too few answered in time."""
    return QuorumTimeoutError(f"read needed {needed} answers, got {answered} in time")


def crowding() -> OverloadedError:
    """The error for a read for which, or for whose answers, there was no room on the way to enough nodes."""
    return OverloadedError("what was asked for is more than may wait for one node (peer-queue-limit): ask for less at a time")


def repair_timeout(*, needed: int, answered: int) -> QuorumTimeoutError:
    """The error for a read that found what too few primaries have, and could not see to it in time that enough have it."""
    return QuorumTimeoutError(f"read found a version that has to be on {needed} primaries, and {answered} have it in time")


def write_timeout(*, needed: int, answered: int, hinted: int) -> QuorumTimeoutError:
    """The error for a write that too few acknowledged in time."""
    return QuorumTimeoutError(f"write needed {needed} acknowledgements, got {answered} in time (hinted {hinted}); it may still take effect")
