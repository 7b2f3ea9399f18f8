"""Decide whether a peer is alive. Pure: no sockets, no clock.

Rule 1: everything that turns evidence into a verdict lives in this file.
Rule 2: silence alone convicts slowly, and only against the peer's own rhythm; a port that refuses convicts fast.
Rule 3: time in which this node itself did not run is nobody's silence.

Sources: Hayashibara et al., "The phi accrual failure detector" (SRDS 2004) for the level of
suspicion; Das et al., "SWIM" (DSN 2002) for SUSPECT before DOWN, and for evidence that comes
through other nodes; Dadgar et al., "Lifeguard" (DSN-W 2018) for doubting oneself first.

Two kinds of silence are told apart. *News* is any sign of life: a frame of the peer, or a newer
heartbeat that another node passes on. Without news a peer is taken for dead. Without frames,
but with news, it is alive and this node cannot hear it: it is suspect, and the link is dialled anew.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from respkv.membership.members import MemberState

if TYPE_CHECKING:
    from respkv.membership.options import DetectorOptions

WINDOW_LEN = 64
PHI_MAX = 300.0
"""Where the probability leaves the range of floats; well above any threshold that can be set."""
DEVIATION_MIN_INTERVALS = 3.0
MEAN_MAX_INTERVALS = 4.0
DEVIATION_MAX_INTERVALS = 4.25
NEVER = -math.inf


class ArrivalWindow:
    """The last intervals between signs of life. Sums are integers, so that they cannot drift."""

    __slots__ = ("_intervals", "_square_sum", "_sum")

    def __init__(self) -> None:
        """Start without a sample."""
        self._intervals: deque[int] = deque(maxlen=WINDOW_LEN)
        self._sum = 0
        self._square_sum = 0

    def add(self, interval_s: float) -> None:
        """Take one interval; the oldest makes room."""
        interval = int(interval_s * 1e6)
        intervals = self._intervals
        if len(intervals) == WINDOW_LEN:
            oldest = intervals[0]
            self._sum -= oldest
            self._square_sum -= oldest * oldest
        intervals.append(interval)
        self._sum += interval
        self._square_sum += interval * interval

    def mean_s(self, *, default: float) -> float:
        """The mean interval, or the default before there is one."""
        count = len(self._intervals)
        return self._sum / count / 1e6 if count else default

    def deviation_s(self) -> float:
        """The standard deviation of the intervals."""
        count = len(self._intervals)
        if count < 2:
            return 0.0
        return math.sqrt(max(0, self._square_sum * count - self._sum * self._sum)) / count / 1e6


class Health:
    """The evidence for and against one peer: moments of this node's monotonic clock."""

    __slots__ = ("heard_at", "late_at", "link_open", "mark", "news_at", "refused_at", "sampled_at", "troubled", "window")

    def __init__(self, *, now: float) -> None:
        """Count silence from now on."""
        self.heard_at = now  # the last frame of the peer
        self.news_at = now  # the last newer heartbeat that came through another node
        self.sampled_at = now
        self.late_at = NEVER  # the last late answer that was no mere slowness
        self.refused_at = NEVER  # the first refusal since the link closed
        self.link_open = False
        self.troubled = True  # the state is not UP: the next frame has to change something
        self.mark = 0  # the heartbeat at the verdict; only clearly later ones revive
        self.window = ArrivalWindow()

    def silence_s(self, now: float) -> float:
        """How long there has been no sign of life of any kind."""
        return now - max(self.heard_at, self.news_at)

    def forgive(self, *, since: float, seconds: float) -> None:
        """Take out of every silence the time since then in which this node did not run."""
        for name in ("heard_at", "news_at", "sampled_at", "late_at", "refused_at"):
            at = getattr(self, name)
            if at <= since:
                setattr(self, name, at + seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state, and why."""

    state: MemberState
    reason: str


ALIVE = Verdict(MemberState.UP, "heard")


class Detector:
    """Turns evidence into verdicts, with the allowances that this node's own health asks for."""

    def __init__(self, options: DetectorOptions, *, gossip_interval_s: float, direct_interval_s: float) -> None:
        """`direct_interval_s` is the longest time between two rounds in which a given peer is spoken to."""
        self._slack_s = 0.0
        self._slack_at = 0.0
        self._forgiven_until = NEVER
        self.set_options(options, gossip_interval_s=gossip_interval_s, direct_interval_s=direct_interval_s)

    def set_options(self, options: DetectorOptions, *, gossip_interval_s: float, direct_interval_s: float) -> None:
        """Judge by these from now on."""
        self._options = options
        self._interval_s = gossip_interval_s
        self._deviation_min_s = max(options.deviation_min_s, DEVIATION_MIN_INTERVALS * gossip_interval_s)
        self._deviation_max_s = max(options.deviation_max_s, DEVIATION_MAX_INTERVALS * gossip_interval_s)
        self._mean_max_s = max(options.mean_max_s, MEAN_MAX_INTERVALS * gossip_interval_s)
        self.probe_after_s = direct_interval_s + 2 * gossip_interval_s
        self._mute_after_s = direct_interval_s + 2 * self._deviation_min_s
        self._redial_after_s = max(options.silence_min_s, direct_interval_s + 4 * self._deviation_min_s)

    def stalled(self, *, now: float, seconds: float) -> tuple[float, float]:
        """This node did not run for so long until now: returns (since, seconds) to forgive.

        A stall that is reported twice (by the shell, and by a tick that came late) counts once.
        """
        since = max(now - seconds, self._forgiven_until)
        if since >= now:
            return now, 0.0
        self._slack_s = min(max(self.slack_s(now), now - since), self._options.slack_max_s)
        self._slack_at = now
        self._forgiven_until = now
        return since, now - since

    def slack_s(self, now: float) -> float:
        """What every deadline is moved by, because this node was not well of late."""
        if not self._slack_s:
            return 0.0
        slack: float = self._slack_s * 0.5 ** ((now - self._slack_at) / self._options.slack_half_life_s)
        return slack if slack > 0.01 else 0.0

    def sample(self, health: Health) -> None:
        """Note the interval that the latest sign of life ended, if there was one since the last sample.

        Called once per round and not per frame: a thousand frames in a busy second say no more
        about the pauses to expect than one, and the hot path pays one assignment.
        """
        latest = max(health.heard_at, health.news_at)
        if latest > health.sampled_at:
            # A gap longer than the detector would ever allow for was an outage, and says little about the rhythm.
            health.window.add(min(latest - health.sampled_at, self._mean_max_s + 2 * self._deviation_max_s))
            health.sampled_at = latest

    def phi(self, health: Health, *, silence_s: float) -> float:
        """-log10 of the probability that the peer lives and was silent for so long, arrivals being normal."""
        mean = min(health.window.mean_s(default=self._interval_s), self._mean_max_s)
        deviation = min(max(health.window.deviation_s(), self._deviation_min_s), self._deviation_max_s)
        probability = 0.5 * math.erfc((silence_s - mean) / (deviation * math.sqrt(2)))
        return min(PHI_MAX, -math.log10(probability)) if probability > 0.0 else PHI_MAX

    def suspicion(self, health: Health, *, now: float) -> float:
        """Phi of the present silence, less what this node's own health asks for."""
        return self.phi(health, silence_s=max(0.0, health.silence_s(now) - self.slack_s(now)))

    def is_late(self, health: Health, *, now: float) -> bool:
        """Whether an answer that is late now means silence, and not just a slow peer."""
        return now - health.heard_at - self.slack_s(now) >= self._options.late_silence_s

    def is_unheard(self, health: Health, *, now: float) -> bool:
        """Whether this node has evidence of its own that the peer is away: enough to confirm another's."""
        if health.refused_at > health.heard_at or self.suspicion(health, now=now) >= self._options.phi_suspect:
            return True
        return now - health.heard_at - self.slack_s(now) >= self._mute_after_s

    def is_mute(self, health: Health, *, now: float) -> bool:
        """Whether the link is open and has been silent for so long that a new one should be dialled."""
        return health.link_open and now - health.heard_at - self.slack_s(now) >= self._redial_after_s

    def judge(self, health: Health, *, state: MemberState, now: float, confirmations: int) -> Verdict:
        """The state that the evidence supports. Only a sign of life ends DOWN, not this."""
        slack = self.slack_s(now)
        phi = self.suspicion(health, now=now)
        down = self._conviction(health, state=state, now=now - slack, confirmations=confirmations, phi=phi)
        if down or state is MemberState.DOWN:
            return Verdict(MemberState.DOWN, down)
        if state is MemberState.UNKNOWN:
            return Verdict(MemberState.UNKNOWN, "not heard yet")
        if not health.link_open:
            return Verdict(MemberState.SUSPECT, "no link to it")
        if phi >= self._options.phi_suspect:
            return Verdict(MemberState.SUSPECT, f"silent for {health.silence_s(now):.1f} s, phi {phi:.1f}")
        if health.late_at > health.heard_at:
            return Verdict(MemberState.SUSPECT, "answers are late")
        direct = now - slack - health.heard_at
        if direct >= self._mute_after_s:
            return Verdict(MemberState.SUSPECT, f"heard through others only for {direct:.1f} s")
        return ALIVE

    def _conviction(self, health: Health, *, state: MemberState, now: float, confirmations: int, phi: float) -> str:
        """Why the peer is dead, or nothing. `now` has the slack taken off."""
        options = self._options
        agreed = f", {confirmations} other(s) agree" if confirmations else ""
        phi_down = options.phi_down * options.phi_confirmed_ratio if confirmations else options.phi_down
        silence = health.silence_s(now)
        if phi >= phi_down and silence >= options.silence_min_s:
            return f"silent for {silence:.1f} s, phi {phi:.1f}{agreed}"
        refused_at = health.refused_at
        if refused_at == NEVER or health.link_open or health.heard_at > refused_at or state is MemberState.UNKNOWN:
            # A node that was never heard may still be starting: no hurry to call it dead.
            return ""
        if confirmations and now - refused_at >= options.refused_confirmed_s:
            return f"refuses connections{agreed}"
        # News that still travels may have been old when the peer died; each piece buys some time.
        if now - max(refused_at, health.news_at) >= options.refused_alone_s:
            return "refuses connections"
        return ""
