"""Scuttlebutt: find out from two digests who lacks what, send it, take it.

Rule 1: knowledge of a member only ever moves forward, in (generation, heartbeat) and per key.
Rule 2: a node speaks for itself. What others claim about it is outbid, never believed.

Source: van Renesse et al., LADIS 2008. Where it has one version per state, a member has two
here: the heartbeat moves every round, the state seldom, and only the latter is worth a delta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.membership.members import Member, MemberAddress, MemberTable
from respkv.membership.messages import DELTA_BYTES_SOFT_MAX, ENTRIES_MAX, GENERATION_MAX, HEARTBEAT_MAX, Delta, Entry, Request

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

DELTA_BYTES = 96
ITEM_BYTES = 24
HEARTBEAT_OUTBID_MAX = HEARTBEAT_MAX // 2
"""Above this a false claim is outbid by a new generation, so that the count of heartbeats never ends."""


class News:
    """What a message told about members other than its sender."""

    __slots__ = ("advanced", "joined", "restarted")

    def __init__(self) -> None:
        """Nothing yet."""
        self.advanced: list[Member] = []
        """A newer heartbeat of the incarnation that was known: it lives, or did a moment ago."""
        self.restarted: list[Member] = []
        """A newer incarnation. That it was born says nothing about whether it lives."""
        self.joined: list[Member] = []


class Reconciler:
    """Compares what others know with the table, for one node."""

    def __init__(self, table: MemberTable, me: Member, *, allow_unknown: bool) -> None:
        """Speak for `me`, which is in the table."""
        self._table = table
        self._me = me
        self.allow_unknown = allow_unknown
        self.unknown_total = 0
        self.outbid_total = 0

    def digest(self, rng: random.Random) -> list[Entry]:
        """How new the knowledge of each member is; of many members, this one and a random part."""
        members = list(self._table)
        if len(members) > ENTRIES_MAX:
            others = [member for member in members if member is not self._me]
            members = [self._me, *rng.sample(others, ENTRIES_MAX - 1)]
        return [_entry(member) for member in members]

    def compare(self, entries: Sequence[Entry], news: News) -> tuple[list[Entry], list[Delta], list[Request]]:
        """To a digest: (what is newer here, states newer here, states newer there)."""
        newer: list[Entry] = []
        behind: list[tuple[Member, int]] = []
        requests: list[Request] = []
        for short_id, generation, heartbeat, state_version in entries:
            member = self._table.named(short_id)
            if member is None:
                self.unknown_total += 1
                if self.allow_unknown and generation:
                    requests.append((short_id, 0))
                continue
            if member is self._me:
                self._outbid(generation, heartbeat, state_version)
            if generation > member.generation:
                requests.append((short_id, 0))
            elif generation < member.generation:
                behind.append((member, 0))
            else:
                self._advance(member, heartbeat, news)
                if state_version > member.state_version:
                    requests.append((short_id, member.state_version))
                elif state_version < member.state_version:
                    behind.append((member, state_version))
                elif heartbeat < member.heartbeat:
                    newer.append(_entry(member))
        if self.allow_unknown and len(entries) < min(len(self._table), ENTRIES_MAX):
            named = {entry[0] for entry in entries}
            behind.extend((member, 0) for member in self._table if member.short_id not in named)
        return newer, _deltas(behind), requests

    def answer(self, requests: Sequence[Request]) -> list[Delta]:
        """The states that were asked for."""
        wanted = ((self._table.named(short_id), since) for short_id, since in requests)
        return _deltas([(member, since) for member, since in wanted if member is not None])

    def absorb(self, deltas: Sequence[Delta], news: News) -> None:
        """Take what is newer in these."""
        for delta in deltas:
            member = self._table.get(delta.node.hex())
            if member is None:
                member = self._join(delta, news)
                if member is None:
                    continue
            if member is self._me:
                self._outbid(delta.generation, delta.heartbeat, delta.state_version)
                continue
            if delta.generation > member.generation and delta.since == 0:
                if member.generation:
                    news.restarted.append(member)
                member.begin(generation=delta.generation, heartbeat=delta.heartbeat)
            if delta.generation == member.generation:
                self._advance(member, delta.heartbeat, news)
                _take(member, delta)

    def later_life(self, delta: Delta) -> Member | None:
        """The member that a delta speaks of, if a later incarnation of it is known."""
        member = self._table.get(delta.node.hex())
        return member if member is not None and member.generation > delta.generation else None

    def _join(self, delta: Delta, news: News) -> Member | None:
        if not self.allow_unknown or delta.location is None:
            self.unknown_total += 1
            return None
        member = self._table.add(_address(delta.node.hex(), delta.location))
        if member is None:
            self.unknown_total += 1
        else:
            news.joined.append(member)
        return member

    def _advance(self, member: Member, heartbeat: int, news: News) -> None:
        if heartbeat > member.heartbeat:
            member.heartbeat = heartbeat
            news.advanced.append(member)

    def _outbid(self, generation: int, heartbeat: int, state_version: int) -> None:
        """Rise above what somebody holds of this node: a clock that was set back before a restart, or a false claim.

        Without this the others would take all that this node says for old.
        """
        me = self._me
        if generation < me.generation or (generation == me.generation and heartbeat <= me.heartbeat and state_version <= me.state_version):
            return
        if generation == me.generation and state_version <= me.state_version and heartbeat < HEARTBEAT_OUTBID_MAX:
            me.heartbeat = heartbeat + 1
        elif generation < GENERATION_MAX:
            me.generation = generation + 1
        else:
            return  # nothing is above this claim; frames still show that the node lives
        self.outbid_total += 1


def full_state(member: Member) -> Delta:
    """All that is known of a member."""
    return _delta(member, since=0)


def _entry(member: Member) -> Entry:
    return (member.short_id, member.generation, member.heartbeat, member.state_version)


def _delta(member: Member, *, since: int) -> Delta:
    address = member.address
    location = None if since else (address.host, address.port, address.cluster_port, address.zone)
    return Delta(
        bytes.fromhex(member.node), member.generation, member.heartbeat, member.state_version, since, location, member.newer_than(since)
    )


def _deltas(behind: Sequence[tuple[Member, int]]) -> list[Delta]:
    """Deltas up to a size: whole members, so that a state is never cut in the middle; the rest is asked for again."""
    deltas: list[Delta] = []
    size = 0
    for member, since in behind:
        if size > DELTA_BYTES_SOFT_MAX:
            break
        delta = _delta(member, since=since)
        size += DELTA_BYTES + sum(ITEM_BYTES + len(str(value)) for _, _, value in delta.items)
        deltas.append(delta)
    return deltas


def _take(member: Member, delta: Delta) -> None:
    if delta.since > member.state_version:
        return  # what lies between is missing: it will be asked for
    if delta.location is not None:
        member.address = _address(member.node, delta.location)
    for key, version, value in delta.items:
        member.set(key, value, version=version)
    member.state_version = max(member.state_version, delta.state_version)


def _address(node: str, location: tuple[str, int, int, str]) -> MemberAddress:
    host, port, cluster_port, zone = location
    return MemberAddress(node=node, host=host, port=port, cluster_port=cluster_port, zone=zone)
