"""How far this node's wall clock is from the median of its peers'.

Every direct message carries its sender's wall clock. The difference between that and this
node's monotonic clock at the arrival is the peer's clock, too low by the time that the message
took; so of the recent samples the greatest is the best (Cristian 1989 keeps the fastest round trip
for the same reason). The median is not moved by one peer that is wrong: where two are in the middle, as of two peers in all,
this node's own clock is counted with them, for halfway between a right clock and a wrong one lies nobody's.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from respkv.ids import NodeId

SAMPLES_MAX = 16
SAMPLE_AGE_MAX_S = 15.0
PEERS_MIN = 2
"""With one peer nobody can say whose clock is wrong."""


class PeerClocks:
    """The wall clocks of the peers, relative to this node's monotonic clock."""

    def __init__(self) -> None:
        """Start knowing none."""
        self._samples: dict[NodeId, deque[tuple[float, float]]] = {}
        self._distrusted_until = -math.inf

    def observe(self, node: NodeId, *, wall_ms: int, now: float) -> None:
        """A message of `node` that was sent at `wall_ms` of its clock arrived now."""
        if now <= self._distrusted_until:
            return
        samples = self._samples.get(node)
        if samples is None:
            samples = self._samples[node] = deque(maxlen=SAMPLES_MAX)
        samples.append((now, wall_ms - now * 1000.0))

    def distrust(self, *, since: float, until: float) -> None:
        """This node did not read its mail in this time: what it says of clocks is worth nothing."""
        self._distrusted_until = until
        for samples in self._samples.values():
            while samples and samples[-1][0] > since:
                samples.pop()

    def forget(self, node: NodeId) -> None:
        """The peer began anew, maybe with another clock."""
        self._samples.pop(node, None)

    def skew_ms(self, nodes: Iterable[NodeId], *, wall_ms: int, now: float, peers_min: int = PEERS_MIN) -> int | None:
        """This node's clock minus the median of these peers'; None if fewer were heard of late."""
        offsets: list[float] = []
        for node in nodes:
            recent = [offset for at, offset in self._samples.get(node, ()) if now - at <= SAMPLE_AGE_MAX_S]
            if recent:
                offsets.append(max(recent))
        if len(offsets) < peers_min:
            return None
        own = wall_ms - now * 1000.0
        if len(offsets) % 2 == 0:
            offsets.append(own)
        return round(own - statistics.median(offsets))
