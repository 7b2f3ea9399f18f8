"""`Membership`: who is up, by gossip or by broadcast. Synchronous; the node hands it messages and the time.

Rule 1: arrivals first. The caller reports frames, links and messages of a turn before it calls `tick`,
        so that a node that was stopped reads its mail before it suspects anyone.
Rule 2: messages are sent here, verdicts fall in `liveness`, knowledge is compared in `reconcile`.

Peers are spoken to in shuffled round-robin order (SWIM, section 4.3), so that the time between two
rounds with one peer has a bound; peers that were silent for long are probed besides. Every
exchange brings both sides up to date (push-pull).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.membership.clocks import PEERS_MIN, PeerClocks
from respkv.membership.liveness import Change, Liveness, Peer
from respkv.membership.members import (
    APPLICATION_KEY_LEN_MAX,
    APPLICATION_KEYS_MAX,
    APPLICATION_TEXT_LEN_MAX,
    ApplicationValue,
    MemberAddress,
    MemberState,
    MemberTable,
)
from respkv.membership.messages import Announce, Deltas, Digest, Message, Reply, decode, encode
from respkv.membership.reconcile import News, Reconciler, full_state
from respkv.membership.views import MembershipStatistics, MemberView, RingConflict, Traffic

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from respkv.ids import NodeId
    from respkv.membership.options import MembershipOptions

PROBES_MAX = 3
STALL_MIN_S = 0.1
WAKING_S = 1.0
"""After a stall this long a node speaks to everybody at once: some may be about to give it up."""


class Membership:
    """The members, their states, and the messages that keep them known."""

    def __init__(
        self, me: NodeId, *, generation: int, seeds: Sequence[MemberAddress], options: MembershipOptions, rng: random.Random, now: float
    ) -> None:
        """Begin as `me`, which must be among the seeds; `generation` is the wall clock now, in milliseconds."""
        self._options = options
        self._rng = rng
        self._table = MemberTable(members_max=options.members_max)
        for address in seeds:
            assert self._table.add(address) is not None, f"seed {address.node} is named twice, or there are more than members_max"
        own = self._table.get(me)
        assert own is not None, "this node is among the seeds"
        self._me = own
        own.begin(generation=generation, heartbeat=1)
        own.state = MemberState.UP
        self._reconciler = Reconciler(self._table, own, allow_unknown=options.allow_unknown)
        self._liveness = Liveness(me, options)
        for member in self._table:
            if member is not own:
                self._liveness.admit(member, now=now)
        self._clocks = PeerClocks()
        self._wall_offset_ms = generation - now * 1000.0
        self._gossip_due = now
        self._rotation: list[Peer] = []
        self._greetings: dict[NodeId, None] = {}
        self._greeted_at = now
        self._is_waking = False
        self._gossip = Traffic()
        self._broadcast = Traffic()
        self._refutations_total = 0
        self.heard: Callable[[NodeId, float], None] = self._liveness.heard
        """`heard(node, now)`: a frame of this node arrived. Once per frame; bound here to spare a call."""

    # The clock of the machine.

    @property
    def next_due(self) -> float:
        """When `tick` should be called at the latest. It may lie in the past: call it in this turn."""
        due = min(self._gossip_due, self._liveness.check_due)
        return min(due, self._greeted_at) if self._greetings else due

    def tick(self, now: float, wall_ms: int) -> list[tuple[NodeId, bytes]]:
        """Judge the peers, and return the messages that are due. Call it after the arrivals of the turn."""
        self._wall_offset_ms = wall_ms - now * 1000.0
        if now - self._gossip_due >= STALL_MIN_S:
            self.stalled(now, now - self._gossip_due)
        if now < self._gossip_due:
            if now >= self._liveness.check_due:
                self._liveness.check(now, sample=False)
            targets = [self._liveness[node] for node in self._greetings]
        else:
            self._gossip_due = now + self._options.gossip_interval_s
            self._me.heartbeat += 1
            self._liveness.check(now, sample=True)
            targets = self._targets(now)
        self._greetings.clear()
        return self._round(targets, now) if targets else []

    def stalled(self, now: float, seconds: float) -> None:
        """This node's own loop did not run for so long. `tick` notices by itself when it is called late."""
        forgiven = self._liveness.stalled(now=now, seconds=seconds)
        if forgiven > 0.0:
            # Mail that waited meanwhile makes its senders' clocks look slow.
            self._clocks.distrust(since=now - forgiven, until=now + STALL_MIN_S)
        if forgiven >= WAKING_S:
            self._is_waking = True

    # Evidence.

    def link_opened(self, node: NodeId, now: float) -> None:
        """Our link to this node takes frames."""
        if self._liveness.get(node) is not None:
            self._greetings[node] = None
            self._greeted_at = now
            self._liveness.link_opened(node, now)

    def link_closed(self, node: NodeId, now: float, *, refused: bool) -> None:
        """Our link to this node broke or was closed, or could not be opened.

        `refused` says that its port refuses connections (ECONNREFUSED) and nothing else: a time-out is silence.
        """
        if self._liveness.get(node) is not None:
            self._greetings.pop(node, None)
            self._liveness.link_closed(node, now, refused=refused)

    def late_answer(self, node: NodeId, now: float) -> None:
        """An answer of this node is late: if nothing else is heard from it, it is avoided at once."""
        if self._liveness.get(node) is not None:
            self._liveness.late_answer(node, now)

    def receive(self, source: NodeId, payload: bytes, now: float) -> list[tuple[NodeId, bytes]]:
        """Take a message of `source` and return the answers, for the caller to drop where no link is open.

        Raises `PeerProtocolError` for what no node sends.
        """
        message = decode(payload)
        (self._broadcast if isinstance(message, Announce) else self._gossip).received(len(payload))
        if self._liveness.get(source) is not None:
            self._liveness.heard(source, now)
            self._clocks.observe(source, wall_ms=message.wall_ms, now=now)
            if not isinstance(message, Deltas):
                self._liveness.take_accusations(source, message.accusations, now)
                if (self._me.short_id, self._me.generation) in message.accusations:
                    # Refute: the next message carries a heartbeat that the accuser has not seen.
                    self._refutations_total += 1
                    self._me.heartbeat += 1
        elif not self._options.allow_unknown:
            return []
        news = News()
        answer = self._answer(message, news, now)
        self._take_news(news, source, now)
        return [] if answer is None else [self._send(source, answer)]

    def _answer(self, message: Message, news: News, now: float) -> Message | None:
        reconciler = self._reconciler
        if isinstance(message, Digest):
            newer, deltas, requests = reconciler.compare(message.entries, news)
            return Reply(self._wall_ms(now), newer, self._liveness.accusations(now), deltas, requests)
        if isinstance(message, Reply):
            reconciler.absorb(message.deltas, news)
            reconciler.compare(message.entries, news)
            wanted = reconciler.answer(message.requests)
            return Deltas(self._wall_ms(now), wanted) if wanted else None
        if isinstance(message, Announce):
            reconciler.absorb([message.own], news)
            # Nobody's digest tells an announcer what is held of it: that its clock was set back before it started again.
            later = reconciler.later_life(message.own)
            return None if later is None else Deltas(self._wall_ms(now), [full_state(later)])
        reconciler.absorb(message.deltas, news)
        return None

    def _take_news(self, news: News, source: NodeId, now: float) -> None:
        for member in news.joined:
            self._liveness.admit(member, now=now)
        for member in news.restarted:
            self._liveness.restarted(member)
            self._clocks.forget(member.node)
        for member in news.advanced:
            if member.node != source:
                self._liveness.heartbeat_passed_on(member, now)

    # What this node says.

    def publish(self, key: str, value: ApplicationValue) -> None:
        """Set an entry of this node's own application state. An equal value costs nothing."""
        me = self._me
        assert 0 < len(key) <= APPLICATION_KEY_LEN_MAX
        assert not isinstance(value, str) or len(value) <= APPLICATION_TEXT_LEN_MAX
        assert key in me.versions or len(me.versions) < APPLICATION_KEYS_MAX
        if isinstance(value, bool):
            value = int(value)
        if me.application.get(key) == value:
            return
        me.heartbeat += 1
        me.set(key, value, version=me.heartbeat)
        me.state_version = me.heartbeat

    def set_options(self, options: MembershipOptions, now: float) -> None:
        """Go on by these. `members_max` and what was learned so far stay."""
        self._options = options
        self._reconciler.allow_unknown = options.allow_unknown
        self._liveness.set_options(options)
        self._gossip_due = min(self._gossip_due, now + options.gossip_interval_s)

    def add(self, address: MemberAddress, now: float) -> bool:
        """Add a member; False if it is one already or the table is full."""
        member = self._table.add(address)
        if member is None:
            return False
        self._liveness.admit(member, now=now)
        return True

    def _targets(self, now: float) -> list[Peer]:
        """Whom to speak to in this round."""
        linked = [peer for peer in self._liveness if peer.health.link_open]
        if self._is_waking or self._options.protocol == "broadcast":
            self._is_waking = False
            return linked
        chosen = {node: self._liveness[node] for node in self._greetings}
        count = min(self._options.fanout_count + len(chosen), len(linked))
        while len(chosen) < count:
            if not self._rotation:
                # One shuffle serves every peer once: the time between two visits is bounded.
                self._rotation = linked.copy()
                self._rng.shuffle(self._rotation)
            peer = self._rotation.pop()
            if peer.health.link_open:
                chosen[peer.member.node] = peer
        silent_since = now - self._liveness.probe_after_s()
        silent = [peer for peer in linked if peer.health.heard_at <= silent_since and peer.member.node not in chosen]
        return [*chosen.values(), *silent[:PROBES_MAX]]

    def _round(self, targets: Sequence[Peer], now: float) -> list[tuple[NodeId, bytes]]:
        message: Message
        if self._options.protocol == "broadcast":
            message = Announce(self._wall_ms(now), full_state(self._me), self._liveness.accusations(now))
            traffic = self._broadcast
        else:
            message = Digest(self._wall_ms(now), self._reconciler.digest(self._rng), self._liveness.accusations(now))
            traffic = self._gossip
        payload = encode(message)
        for _ in targets:
            traffic.sent(len(payload))
        return [(peer.member.node, payload) for peer in targets]

    def _send(self, target: NodeId, message: Message) -> tuple[NodeId, bytes]:
        payload = encode(message)
        self._gossip.sent(len(payload))
        return target, payload

    def _wall_ms(self, now: float) -> int:
        return max(0, round(now * 1000.0 + self._wall_offset_ms))

    # What this node knows.

    def up(self) -> frozenset[NodeId]:
        """The nodes that can be spoken to: this one, and all that were heard, are not DOWN and whose link is open."""
        return self._liveness.up()

    def prompt(self) -> frozenset[NodeId]:
        """Those of `up` that are not even suspect: the ones to ask first."""
        return self._liveness.prompt()

    def usable(self, node: NodeId) -> bool:
        """Whether the link to a node is open, and the node was heard and is not DOWN."""
        return self._liveness.usable(node)

    def state_of(self, node: NodeId) -> MemberState:
        """What this node holds of another; UNKNOWN also for one that is no member."""
        member = self._table.get(node)
        return MemberState.UNKNOWN if member is None else member.state

    def phi(self, node: NodeId, now: float) -> float:
        """The level of suspicion against a node; 0 for this one and for strangers."""
        return self._liveness.phi(node, now)

    def changes(self) -> list[Change]:
        """The changes of state since the last call; the caller logs them and draws its routes anew."""
        return self._liveness.changes()

    def mute_links(self, now: float) -> list[NodeId]:
        """Open links on which nothing was heard for so long that the caller should close and dial them anew.

        A healed network must not wait for TCP to try again.
        """
        return self._liveness.mute_links(now)

    def members(self, now: float) -> list[MemberView]:
        """All members, this node included, for status."""
        return [
            MemberView(
                address=member.address,
                state=member.state,
                link_open=(peer := self._liveness.get(member.node)) is None or peer.health.link_open,
                phi=self.phi(member.node, now),
                generation=member.generation,
                heartbeat=member.heartbeat,
                application=dict(member.application),
            )
            for member in self._table
        ]

    def application_value(self, node: NodeId, key: str) -> ApplicationValue | None:
        """What a node published last under this key, as far as it came here."""
        member = self._table.get(node)
        return None if member is None else member.application.get(key)

    def ring_conflicts(self) -> list[RingConflict]:
        """Nodes not DOWN that publish the `ring_epoch` of this node with another `ring_hash`."""
        own = self._me.application
        epoch, own_hash = own.get("ring_epoch"), own.get("ring_hash")
        if epoch is None or own_hash is None:
            return []
        conflicts: list[RingConflict] = []
        for peer in self._liveness:
            theirs = peer.member.application
            if peer.member.state is not MemberState.DOWN and theirs.get("ring_epoch") == epoch:
                their_hash = theirs.get("ring_hash", own_hash)
                if their_hash != own_hash:
                    conflicts.append(
                        RingConflict(node=peer.member.node, epoch=int(epoch), our_hash=str(own_hash), their_hash=str(their_hash))
                    )
        return conflicts

    def clock_skew_ms(self, wall_ms: int, now: float, *, peers_min: int = PEERS_MIN) -> int | None:
        """This node's wall clock minus the median of its peers'; None if fewer were heard of late."""
        return self._clocks.skew_ms((peer.member.node for peer in self._liveness), wall_ms=wall_ms, now=now, peers_min=peers_min)

    def statistics(self) -> MembershipStatistics:
        """Counters for INFO and metrics."""
        states = [member.state for member in self._table]
        return MembershipStatistics(
            up_count=states.count(MemberState.UP),
            suspect_count=states.count(MemberState.SUSPECT),
            down_count=states.count(MemberState.DOWN),
            unknown_count=states.count(MemberState.UNKNOWN),
            gossip=self._gossip.statistics(),
            broadcast=self._broadcast.statistics(),
            suspicions_total=self._liveness.suspicions_total,
            downs_total=self._liveness.downs_total,
            refutations_total=self._refutations_total,
            late_answers_total=self._liveness.late_answers_total,
            outbid_total=self._reconciler.outbid_total,
            strangers_total=self._reconciler.unknown_total,
        )
