"""What an operator may tune about membership, and presets of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["gossip", "broadcast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorOptions:
    """When silence and other evidence become suspicion, and suspicion a verdict."""

    #: Suspicion level at which a peer is taken for dead when no other node says so too.
    #: phi = -log10(probability that a living peer is silent for so long): 8 is one mistake in 10^8.
    #: Raise it where nodes pause (swap, busy CPUs). With the other defaults 8 is reached 3.6 s after the last news.
    phi_down: float = 8.0
    #: Suspicion level at which a peer is avoided where another will do: about 1 s after the last news.
    phi_suspect: float = 1.0
    #: Part of `phi_down` that is enough when at least one other node suspects the peer as well (3.0 s).
    phi_confirmed_ratio: float = 0.75
    #: Bounds of the spread of arrivals that phi reckons with. The lower one keeps a fast and steady beat
    #: from convicting after a tenth of a second, the upper one keeps a jittery past from hiding a death:
    #:
    #:     latest verdict = mean_max_s + 5.6 * deviation_max_s = 5.6 s   (at phi_down 8)
    #:
    #: Each is at least 3, 4 and 4.25 times the gossip interval.
    deviation_min_s: float = 0.6
    deviation_max_s: float = 0.85
    mean_max_s: float = 0.8
    #: No peer is declared dead for a shorter silence than this, whatever phi says.
    silence_min_s: float = 2.5
    #: A peer whose port refuses connections is dead after this, if another node suspects it as well ...
    refused_confirmed_s: float = 0.1
    #: ... and after this if nobody does, and nobody passes on a newer heartbeat of it.
    refused_alone_s: float = 0.5
    #: An answer that is late makes a peer suspect if nothing else was heard from it for so long.
    late_silence_s: float = 0.3
    #: After a stall of this node itself every deadline is moved by its length, up to this much,
    #: and the allowance halves every `slack_half_life_s` (Lifeguard's local health, in seconds).
    slack_max_s: float = 3.0
    slack_half_life_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipOptions:
    """How nodes keep each other informed."""

    #: `gossip` compares digests with a few peers and passes on what others said;
    #: `broadcast` sends this node's own state to everyone, and nobody passes anything on.
    protocol: Protocol = "gossip"
    #: Seconds between two rounds. Lower finds changes sooner and costs more.
    gossip_interval_s: float = 0.2
    #: Peers per round of gossip. A change reaches n nodes in about log(n) / log(2 * fanout + 1) rounds.
    fanout_count: int = 3
    #: More members than this are refused.
    members_max: int = 1024
    #: Whether a node that is named by gossip alone becomes a member.
    allow_unknown: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def __post_init__(self) -> None:
        """The directives' bounds are the configuration's to enforce."""
        assert self.gossip_interval_s > 0.0
        assert self.fanout_count >= 1


LAN = MembershipOptions()
"""Machines in one place: a silent peer is dead after 3 to 6 s."""

WAN = MembershipOptions(
    gossip_interval_s=0.5,
    fanout_count=4,
    detector=DetectorOptions(
        deviation_min_s=2.0,
        deviation_max_s=3.5,
        mean_max_s=4.0,
        silence_min_s=8.0,
        refused_confirmed_s=0.5,
        refused_alone_s=2.0,
        late_silence_s=1.5,
    ),
)
"""Places apart: round trips of a second, minutes of trouble on the way. Dead after 10 to 25 s."""

LAPTOP = MembershipOptions(
    detector=DetectorOptions(
        deviation_min_s=1.5, deviation_max_s=2.5, mean_max_s=1.5, silence_min_s=5.0, phi_suspect=1.5, late_silence_s=0.6
    )
)
"""Many nodes on one busy machine: processes wait for a processor. Dead after 7 to 16 s."""
