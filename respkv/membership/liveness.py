"""The state of each peer: where evidence arrives, verdicts take effect, and changes are told.

Rule 1: `heard` runs once per frame on the hot path and stays at one lookup and one assignment.
Rule 2: nobody is removed. DOWN ends with the first sign of life.
Rule 3: suspicion starts from one's own evidence. What others say only hastens or refutes it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from respkv.membership.detector import NEVER, Detector, Health
from respkv.membership.members import Member, MemberState
from respkv.membership.messages import ENTRIES_MAX, Accusation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from respkv.ids import NodeId
    from respkv.membership.options import MembershipOptions

Change = tuple["NodeId", MemberState, MemberState, str]
"""(node, old state, new state, reason); a restart that nobody noticed is UP to UP."""

CHECK_INTERVAL_S = 0.1
"""How often suspects are judged, whatever the gossip interval."""
ACCUSATION_AGE_MAX_S = 2.0
REVIVAL_S = 1.0
"""Heartbeats of this long after the verdict, passed on by others, lift it: earlier ones may just have been on their way."""


_REACHABLE = frozenset((MemberState.UP, MemberState.SUSPECT))


class Peer:
    """What is kept for a member other than this node."""

    __slots__ = ("accused", "accused_at", "health", "member")

    def __init__(self, member: Member, *, now: float) -> None:
        """Nothing is known yet."""
        self.member = member
        self.health = Health(now=now)
        self.accused: frozenset[Accusation] = frozenset()
        self.accused_at = NEVER


class Liveness:
    """Who is up, for one node."""

    def __init__(self, me: NodeId, options: MembershipOptions) -> None:
        """Start without peers."""
        self._me = me
        self._options = options
        self._peers: dict[NodeId, Peer] = {}
        self._healths: dict[NodeId, Health] = {}
        self._detector = Detector(
            options.detector, gossip_interval_s=options.gossip_interval_s, direct_interval_s=self._direct_interval_s()
        )
        self._checked_at = NEVER
        self._changes: list[Change] = []
        self._up: frozenset[NodeId] | None = None
        self._prompt: frozenset[NodeId] | None = None
        self._suspects_len = 0
        self.suspicions_total = 0
        self.downs_total = 0
        self.late_answers_total = 0

    def __iter__(self) -> Iterator[Peer]:
        """In the order in which they were admitted."""
        return iter(self._peers.values())

    def __getitem__(self, node: NodeId) -> Peer:
        """The peer of this id, which exists."""
        return self._peers[node]

    def get(self, node: NodeId) -> Peer | None:
        """The peer of this id."""
        return self._peers.get(node)

    def admit(self, member: Member, *, now: float) -> None:
        """Watch a member from now on."""
        peer = Peer(member, now=now)
        self._peers[member.node] = peer
        self._healths[member.node] = peer.health
        self._up = self._prompt = None
        self.set_options(self._options)

    def set_options(self, options: MembershipOptions) -> None:
        """Judge by these from now on."""
        self._options = options
        self._detector.set_options(
            options.detector, gossip_interval_s=options.gossip_interval_s, direct_interval_s=self._direct_interval_s()
        )

    def _direct_interval_s(self) -> float:
        """The longest time between two rounds in which one peer is spoken to."""
        options = self._options
        if options.protocol == "broadcast":
            return options.gossip_interval_s
        return options.gossip_interval_s * -(-max(1, len(self._peers)) // options.fanout_count)

    # Evidence.

    def heard(self, node: NodeId, now: float) -> None:
        """A frame of this node arrived: it lives."""
        health = self._healths.get(node)
        if health is None:
            return
        health.heard_at = now
        if health.troubled:
            self._heard_from_troubled(self._peers[node])

    def link_opened(self, node: NodeId, now: float) -> None:
        """Our link to this node takes frames."""
        peer = self._peers[node]
        self._up = self._prompt = None
        peer.health.link_open = True
        peer.health.refused_at = NEVER
        peer.health.heard_at = now
        # One that was never heard cannot answer yet: its own link to this node is still to come, and a greeting with it.
        if peer.health.troubled and peer.member.state is not MemberState.UNKNOWN:
            self._heard_from_troubled(peer)

    def link_closed(self, node: NodeId, now: float, *, refused: bool) -> None:
        """Our link to this node broke, was closed, or could not be opened."""
        peer = self._peers[node]
        self._up = self._prompt = None
        peer.health.link_open = False
        if refused and peer.health.refused_at == NEVER:
            peer.health.refused_at = now
        if peer.member.state is MemberState.UP:
            self._move(peer, MemberState.SUSPECT, "refuses connections" if refused else "the link to it broke")

    def late_answer(self, node: NodeId, now: float) -> None:
        """An answer is late. A slow peer is still heard; one that is not heard is avoided at once."""
        peer = self._peers[node]
        self.late_answers_total += 1
        if peer.member.state is MemberState.UP and self._detector.is_late(peer.health, now=now):
            peer.health.late_at = now
            self._move(peer, MemberState.SUSPECT, "answers are late and nothing else is heard")

    def heartbeat_passed_on(self, member: Member, now: float) -> None:
        """Another node knew a newer heartbeat of this member: it lives, or did a moment ago."""
        peer = self._peers[member.node]
        peer.health.news_at = now
        if member.state is MemberState.DOWN and member.heartbeat - peer.health.mark > REVIVAL_S / self._options.gossip_interval_s:
            self._move(peer, MemberState.SUSPECT, "others hear it")

    def restarted(self, member: Member) -> None:
        """A newer incarnation became known. That it was born says nothing about whether it lives."""
        self._peers[member.node].health.mark = member.heartbeat
        if member.state is MemberState.UP:
            self._changes.append((member.node, MemberState.UP, MemberState.UP, "restarted"))

    def stalled(self, *, now: float, seconds: float) -> float:
        """This node did not run for so long: no silence counts for that time. Returns what was not known of it before."""
        since, forgiven = self._detector.stalled(now=now, seconds=seconds)
        if forgiven > 0.0:
            for peer in self._peers.values():
                peer.health.forgive(since=since, seconds=forgiven)
        return forgiven

    # Verdicts.

    @property
    def check_due(self) -> float:
        """When the suspects should be judged; infinity if there are none."""
        return self._checked_at + CHECK_INTERVAL_S if self._suspects_len else math.inf

    def check(self, now: float, *, sample: bool) -> None:
        """Judge every peer by what is known now; `sample` once per round."""
        self._checked_at = now
        for peer in self._peers.values():
            state = peer.member.state
            if state is MemberState.DOWN:
                continue
            if sample:
                self._detector.sample(peer.health)
            confirmations = 0 if state is MemberState.UP else self._confirmations(peer, now)
            verdict = self._detector.judge(peer.health, state=state, now=now, confirmations=confirmations)
            if verdict.state is not state:
                self._move(peer, verdict.state, verdict.reason)

    def _heard_from_troubled(self, peer: Peer) -> None:
        """A peer that is not UP gave a sign of life."""
        if peer.health.link_open:
            self._move(peer, MemberState.UP, "heard")
        elif peer.member.state is not MemberState.SUSPECT:
            self._move(peer, MemberState.SUSPECT, "heard, but there is no link to it")

    def _move(self, peer: Peer, state: MemberState, reason: str) -> None:
        member, health = peer.member, peer.health
        old = member.state
        self._changes.append((member.node, old, state, reason))
        self._suspects_len += (state is MemberState.SUSPECT) - (old is MemberState.SUSPECT)
        member.state = state
        health.troubled = state is not MemberState.UP
        self._up = self._prompt = None
        if state is MemberState.DOWN:
            self.downs_total += 1
            health.mark = member.heartbeat
        elif old is MemberState.DOWN:
            # The outage is no interval between two signs of life.
            health.sampled_at = max(health.heard_at, health.news_at)
        if state is MemberState.SUSPECT and old is MemberState.UP:
            self.suspicions_total += 1

    # What others suspect.

    def accusations(self, now: float) -> list[Accusation]:
        """The peers that this node takes for away and of which it hears nothing, not just those without a link."""
        accused = [
            (peer.member.short_id, peer.member.generation)
            for peer in self._peers.values()
            if peer.health.troubled
            and peer.member.generation
            and (peer.member.state is MemberState.DOWN or self._detector.is_unheard(peer.health, now=now))
        ]
        return accused[:ENTRIES_MAX]

    def take_accusations(self, source: NodeId, accusations: Sequence[Accusation], now: float) -> None:
        """Remember whom this node accuses; what it said before is void."""
        peer = self._peers[source]
        peer.accused = frozenset(accusations)
        peer.accused_at = now

    def _confirmations(self, peer: Peer, now: float) -> int:
        """How many living peers accuse this one as well."""
        accusation = (peer.member.short_id, peer.member.generation)
        return sum(
            accusation in other.accused and now - other.accused_at <= ACCUSATION_AGE_MAX_S and other.member.state is MemberState.UP
            for other in self._peers.values()
        )

    # Answers.

    def up(self) -> frozenset[NodeId]:
        """This node, and all that were heard, are not DOWN and whose link is open."""
        if self._up is None:
            self._up = frozenset([self._me, *(node for node in self._peers if self.usable(node))])
        return self._up

    def prompt(self) -> frozenset[NodeId]:
        """Those of `up` that are not even suspect."""
        if self._prompt is None:
            peers = self._peers
            self._prompt = frozenset(node for node in self.up() if node == self._me or peers[node].member.state is MemberState.UP)
        return self._prompt

    def usable(self, node: NodeId) -> bool:
        """Whether a peer's link is open, and the peer was heard and is not DOWN."""
        peer = self._peers.get(node)
        if peer is None:
            return node == self._me
        return peer.health.link_open and peer.member.state in _REACHABLE

    def phi(self, node: NodeId, now: float) -> float:
        """The level of suspicion against a peer; 0 for this node and for strangers."""
        health = self._healths.get(node)
        return 0.0 if health is None else self._detector.suspicion(health, now=now)

    def probe_after_s(self) -> float:
        """A peer that was silent for so long is spoken to out of turn."""
        return self._detector.probe_after_s

    def mute_links(self, now: float) -> list[NodeId]:
        """Open links on which nothing was heard for so long that they should be dialled anew."""
        return [node for node, health in self._healths.items() if self._detector.is_mute(health, now=now)]

    def changes(self) -> list[Change]:
        """The changes of state since the last call."""
        changes, self._changes = self._changes, []
        return changes
