"""The node: one synchronous object that is handed what arrived and the time, and hands back what has to happen. Pure.

Rule 1: nothing in here awaits, reads a clock, rolls its own dice, or touches a socket or a file.
Rule 2: arrived bytes come before timers: a node that was stopped reads its mail before it suspects anyone.
Rule 3: what a turn appends to the log stands first among its departures; the shell obeys in that order.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from respkv.commands.context import Context, NodeStatistics
from respkv.config.version_directives import prefix_policies
from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.operations import Operations
from respkv.coordinator.replica import Replica
from respkv.errors import PeerProtocolError
from respkv.membership.gossip import Membership
from respkv.repair.confirmation import Confirmation
from respkv.repair.handoff import Handoff
from respkv.repair.remains import reaped_rows
from respkv.server import turns
from respkv.server.admission import Admission
from respkv.server.anti_entropy import AntiEntropy
from respkv.server.calls import Calls
from respkv.server.cluster import ClusterState
from respkv.server.dispatch import DISK_OVERLOADED, OVERLOADED, Dispatcher
from respkv.server.downtime import Downtime
from respkv.server.expiry import Expiry
from respkv.server.flush import Flush
from respkv.server.framing import Framing
from respkv.server.options import membership_options
from respkv.server.peers import Peers
from respkv.server.pressure import Pressure, memtable_bytes
from respkv.server.pulse import Pulse
from respkv.server.reaping import Reaping
from respkv.server.rebuild import Rebuild
from respkv.server.resizing import Resizing
from respkv.server.rows import RowReader
from respkv.server.topology import Topology
from respkv.server.transaction import begin_transaction
from respkv.storage.parking import Parking
from respkv.transport import frames
from respkv.transport.bounds import siblings_bytes_max
from respkv.transport.turn import Turn
from respkv.versions.policy import ConflictPolicy

if TYPE_CHECKING:
    from respkv.commands.context import Client
    from respkv.commands.table import Command
    from respkv.config.cluster_value import ClusterValue
    from respkv.config.settings import Settings
    from respkv.ids import NodeId
    from respkv.membership.members import MemberAddress
    from respkv.placement.ring import Ring
    from respkv.repair.hints import HintBook
    from respkv.server.session import Session
    from respkv.storage.store import Store
    from respkv.versions.clock import HybridClock

SEALS_PER_TURN_MAX = 64
FREEZE_NOW = 1 << 60


class Node:
    """A node without its shell."""

    def __init__(  # noqa: PLR0913 - the one place that builds everything
        self,
        *,
        me: NodeId,
        actor: bytes,
        settings: Settings,
        ring: Ring,
        seeds: list[MemberAddress],
        value: ClusterValue,
        store: Store,
        hints: HintBook,
        clock: HybridClock,
        rng: random.Random,
        now: float,
        wall_ms: int,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """`store`, `hints` and `clock` hold what was recovered; `facts` is what the shell tells INFO."""
        self.me = me
        self.settings = settings
        turn = self._turn = Turn()
        turn.now, turn.wall_ms = now, wall_ms
        # Answers to what the process before this one asked may still arrive, and must match nothing.
        turn.sequence = rng.randrange(1 << 31)
        self.store, self.hints, self.clock = store, hints, clock
        clock.advance(wall_ms)
        self._out = turns.Departures()
        self.parking = Parking(store)
        self.pressure = Pressure(self)
        self.membership = Membership(
            me, generation=wall_ms, seeds=seeds, options=membership_options(settings), rng=random.Random(rng.random()), now=now
        )
        self.coordinator = Coordinator(me=me, actor=actor, store=store, clock=clock, turn=turn, hints=hints, parking=self.parking)
        self.operations = Operations(
            self.coordinator,
            serve=lambda call: self.dispatcher.serve(call),  # noqa: PLW0108 - the dispatcher comes later
            internal_error=lambda error: self.dispatcher.internal_error(error),  # noqa: PLW0108
        )
        self.replica = Replica(store=store, turn=turn, hints=hints, parking=self.parking, clock=clock, recent=self.coordinator.recent)
        self.handoff = Handoff(
            me=me,
            turn=turn,
            store=store,
            hints=hints,
            parking=self.parking,
            is_replica=lambda partition: self.replica.holds[partition],
            replicas=self.coordinator.replicas,
        )
        self.cluster = ClusterState(
            me=me,
            actor=actor,
            settings=settings,
            turn=turn,
            clock=clock,
            ring=ring,
            value=value,
            save=self._save,
        )
        self._begin_work(actor=actor, rng=rng, facts=facts if facts is not None else {})

    def _begin_work(self, *, actor: bytes, rng: random.Random, facts: dict[str, Any]) -> None:
        """What stands on the machines of data and membership: routes, commands, clients, and the timers of all."""
        turn = self._turn
        self.topology = Topology(
            turn=turn,
            settings=self.settings,
            membership=self.membership,
            cluster=self.cluster,
            coordinator=self.coordinator,
            operations=self.operations,
            replica=self.replica,
            handoff=self.handoff,
            hints=self.hints,
        )
        self.statistics = NodeStatistics()
        self.clients: dict[int, Session] = {}
        self.context = self._context(actor=actor, rng=rng, facts=facts)
        self.dispatcher: Dispatcher = Dispatcher(self.context)
        self.dispatcher.begin_transaction = partial(begin_transaction, self.dispatcher)
        self.admission = Admission(
            settings=self.settings, dispatcher=self.dispatcher, statistics=self.statistics, turn=turn, clients=self.clients
        )
        self.rows = RowReader(self)
        self.expiry = Expiry(self)
        self.flush = Flush(self)
        self.pulse = Pulse(self)
        self.rebuild = Rebuild(self)
        self.resizing = Resizing(self)
        self.downtime = Downtime(self)
        self.anti_entropy = AntiEntropy(self)
        self.reaping = Reaping(self)
        self._background = (self.flush, self.rows, self.pulse, self.rebuild, self.resizing, self.downtime, self.anti_entropy, self.reaping)
        self.dispatcher.calls |= Calls(self).table()
        self.peers = Peers(
            turn=turn,
            clock=self.clock,
            membership=self.membership,
            coordinator=self.coordinator,
            operations=self.operations,
            replica=self.replica,
            handoff=self.handoff,
            cluster=self.cluster,
            late_calls=self.dispatcher.late_calls,
        )
        self._freeze_number = 0
        self._log_bytes_since_freeze = 0
        self._unsynced = False
        self._next_sync = turn.now
        self._confirmation = Confirmation(turn.now)
        self._log_unconfirmed = False
        self._stopping: tuple[int, float] | None = None
        """The exit code of a node that is about to stop, and when it stops at the latest."""
        self.framing = Framing(turn)
        self._scans: dict[int, Any] = {}
        self.coordinator.succession.rng = random.Random(rng.random())
        self.coordinator.on_late = lambda peer: self.membership.late_answer(peer, turn.now)
        self.coordinator.on_long_hinted = self.handoff.expect
        self.cluster.on_change = self._on_cluster_change
        self.cluster.live_peers = lambda: sorted(self.topology.usable())
        self._on_cluster_change()

    def _context(self, *, actor: bytes, rng: random.Random, facts: dict[str, Any]) -> Context:
        """What handlers may use."""
        return Context(
            me=self.me,
            settings=self.settings,
            coordinator=self.coordinator,
            operations=self.operations,
            store=self.store,
            clock=self.clock,
            hints=self.hints,
            membership=self.membership,
            turn=self._turn,
            ring=self.cluster.ring,
            actor=actor,
            rng=rng,
            started_wall_ms=self._turn.wall_ms,
            started=self._turn.now,
            clients=self.clients,
            statistics=self.statistics,
            slowlog=deque(),
            facts=facts,
            cluster_value=lambda: self.cluster.value,
            change=self.cluster.change,
            flush_all=self.cluster.flush_all,
            close_client=self._close_client,
            run_transaction=self._run_transaction,
            stop=self._stop,
            save_file=self._save,
            replica=self.replica,
            handoff=self.handoff,
        )

    # --- a turn

    def turn(self, now: float, wall_ms: int, arrivals: Sequence[turns.Arrival]) -> turns.Departures:
        """Take what arrived, decide, and say what has to happen."""
        turn, out, unanswered = self._turn, self._out, self.framing.unanswered
        turn.now, turn.wall_ms = now, self.topology.wall.read(now, wall_ms)
        turn.number += 1
        self.clock.advance(turn.wall_ms)
        self.dispatcher.overloaded = self._overload()
        if self.dispatcher.later:
            self.dispatcher.resumable += self.dispatcher.later
            self.dispatcher.later = []
        for arrival in arrivals:
            kind = arrival[0]
            if kind == turns.CLIENT_DATA:
                self.admission.receive(out, arrival[1], arrival[2])
            elif kind == turns.PEER_FRAME:
                unanswered.pop(arrival[1], None)
                try:
                    self.peers.receive(arrival[1], arrival[2])
                except PeerProtocolError as error:
                    turn.events.append(("warning", f"closing the link from {arrival[1][:8]}: {error}"))
                    out.peer_closes.append(arrival[1])
            else:
                self._other_arrival(kind, arrival)
        self._timers(now, is_idle=not arrivals)
        self.anti_entropy.follow(is_idle=not arrivals)
        self._seal()
        self.replica.flush_acks()
        return self._depart()

    def _overload(self) -> str:
        """Why this turn begins no command on keys, or nothing."""
        if self.parking.is_full:
            return DISK_OVERLOADED
        return OVERLOADED if self.coordinator.waiting_count > self.settings.coordinator_in_flight_max else ""

    def _other_arrival(self, kind: int, arrival: turns.Arrival) -> None:
        match kind:
            case turns.CLIENT_OPENED:
                self.admission.open(self._out, arrival[1], arrival[2], local_address=arrival[3])
            case turns.CLIENT_ENDED:
                self.admission.ended(arrival[1])
            case turns.CLIENT_CLOSED:
                self.admission.gone(arrival[1])
            case turns.PEER_OPENED:
                self.topology.link_opened(arrival[1])
            case turns.PEER_CLOSED:
                self._turn.backlog.pop(arrival[1], None)
                self.topology.link_closed(arrival[1], refused=arrival[2] == "refused")
            case turns.PEER_BACKLOG:
                self._turn.queue_is(arrival[1], arrival[2])
            case turns.LOG_DURABLE:
                self._turn.durable(arrival[1])
            case turns.LOADED:
                self.parking.loaded(arrival[1], arrival[2])
            case turns.SCANNED:
                self._scans.pop(arrival[1])(arrival[2], arrival[3])
            case turns.FLUSHED:
                self.store.flushed(arrival[1])
            case turns.PRESSURE:
                self.pressure.told(arrival[1])
            case turns.SIGNALLED:
                self._turn.events.append(("notice", f"received SIG{arrival[1]}, shutting down"))
                self._stop(0)
            case _:
                assert kind == turns.SAVED
                self.cluster.on_saved(arrival[1])

    def _seal(self) -> None:
        """Ask the replicas; go on with sessions whose replies came; again, while there is anything."""
        coordinator, dispatcher = self.coordinator, self.dispatcher
        for _ in range(SEALS_PER_TURN_MAX):
            sealed = coordinator.seal()
            resumable = dispatcher.resumable
            if resumable:
                dispatcher.resumable = []
                for session in resumable:
                    session.resume()
            elif not sealed:
                return
        while coordinator.seal():
            pass

    def _timers(self, now: float, *, is_idle: bool) -> None:
        coordinator, membership = self.coordinator, self.membership
        due = coordinator.next_due()
        if due is not None and due <= now:
            coordinator.expire()
        self.operations.expire(is_idle=is_idle)
        if membership.next_due <= now:
            for target, payload in membership.tick(now, self._turn.wall_ms):
                self._out.control.append((target, payload))
            self.topology.watch_clock()
        self.handoff.tick()
        self.expiry.tick()
        self.topology.look()
        for machine in self._background:
            machine.tick()

    def _depart(self) -> turns.Departures:
        turn, out, dispatcher = self._turn, self._out, self.dispatcher
        if dispatcher.touched:
            touched, dispatcher.touched = dispatcher.touched, []
            for session in touched:
                replies = session.flushed()
                if replies:
                    out.replies.append((session.id, replies))
                if session.is_over():
                    out.deferred_closes.append(session.id)
        if dispatcher.broken:
            dispatcher.broken = [session for session in dispatcher.broken if not self.admission.break_off(out, session)]
        links = self.topology.links
        if turn.sections:
            header = frames.pack_header(self.clock.last, self.cluster.ring.epoch, self.cluster.value_mark)
            self.framing.frame(out, header, links)
        if out.control:
            header = frames.pack_header(self.clock.last, self.cluster.ring.epoch, self.cluster.value_mark)
            out.control = [
                (peer, header + frames.pack_section(frames.GOSSIP, 0, payload)) for peer, payload in out.control if peer in links
            ]
        if self._log_unconfirmed:
            # Once more, into the new segment: a restart must still find what may have reached nobody else.
            self._log_unconfirmed = False
            turn.log += self.coordinator.writes.unconfirmed()
        turn.log += self._confirmation.tick(now=turn.now, turn_number=turn.number, oldest_in_flight=self.coordinator.writes.oldest_turn())
        if turn.log:
            self._append_log()
        out.loads = self.parking.requests
        self.parking.requests = []
        out.events, turn.events = turn.events, []
        out.link_closes, self.topology.mute = self.topology.mute, []
        self._after_log()
        self._stop_if_quiet()
        wake_at = self._next_wake()
        out.wake_at = wake_at if out.wake_at is None else min(out.wake_at, wake_at)
        self._out = turns.Departures()
        return out

    def _append_log(self) -> None:
        turn, out = self._turn, self._out
        out.log, turn.log = turn.log, []
        self._confirmation.wrote()
        self._log_bytes_since_freeze += sum(len(body) for _, body in out.log)
        if turn.sync_each_turn:
            out.sync = turn.number
        else:
            self._unsynced = True

    def _after_log(self) -> None:
        turn, out, settings, store = self._turn, self._out, self.settings, self.store
        now = turn.now
        if turn.is_awaited():
            out.sync = turn.number
        if self._unsynced and now >= self._next_sync and settings.appendfsync == "everysec":
            out.sync = turn.number
            self._unsynced = False
            self._next_sync = now + 1.0
        if store.frozen is None and self._log_bytes_since_freeze > memtable_bytes(settings):
            self._freeze_number += 1
            self._log_bytes_since_freeze = 0
            out.freeze = store.freeze(self._freeze_number, [*self.hints.changes(), *reaped_rows(store)])
            self._log_unconfirmed = True
        if not store.resident:
            store.drop_absent(keep=self.parking.keys)
        if 0 < settings.maxmemory < store.used_bytes:
            self.statistics.evicted_records_total += store.evict(settings.maxmemory, keep=self.parking.keys)
        if store.bounded or self.pressure.is_stalled:
            self.pressure.look()

    def freeze_soon(self) -> None:
        """Take what memory holds to the tables at the next occasion: older segments of the log may be damaged."""
        self._log_bytes_since_freeze = FREEZE_NOW

    def _next_wake(self) -> float:
        wake = min(self.membership.next_due, self.expiry.due)
        for machine in (self.coordinator, self.operations, self.handoff, *self._background):
            due = machine.next_due()
            if due is not None and due < wake:
                wake = due
        if self.dispatcher.resumable or self.dispatcher.later or self._log_unconfirmed:
            wake = self._turn.now
        return wake

    # --- clients

    def _close_client(self, client_id: int) -> None:
        self.admission.close(self._out, client_id)

    def _save(self, name: str, data: bytes) -> None:
        self._out.saves.append((name, data))

    def _stop(self, code: int) -> None:
        """Take no further requests, and stop once those in flight are answered, or after `shutdown-timeout`."""
        if self._stopping is None:
            self.admission.is_closed = True
            self._stopping = (code, self._turn.now + self.settings.shutdown_timeout)

    def _stop_if_quiet(self) -> None:
        if self._stopping is not None:
            code, deadline = self._stopping
            if not self.coordinator.waiting_count or self._turn.now >= deadline:
                self._out.stop = code

    # --- settings

    def _on_cluster_change(self) -> None:
        """The ring or the settings changed."""
        settings, coordinator, store = self.settings, self.coordinator, self.store
        self.context.ring = self.cluster.ring
        coordinator.request_timeout_s = settings.request_timeout / 1000
        coordinator.recent.kept_s = coordinator.request_timeout_s
        coordinator.speculative_retry_s = settings.speculative_retry / 1000
        coordinator.repairs.mode = settings.read_repair
        self._turn.sync_each_turn = settings.appendfsync == "always"
        coordinator.slow_us = self.dispatcher.slow_us()
        self.dispatcher.in_flight_max = settings.client_in_flight_max
        self.dispatcher.turn_commands_max = settings.turn_commands_max
        self.coordinator.speculation_ratio = settings.speculative_retry_percent / 100
        self.admission.settings_changed()
        self.hints.bytes_max = settings.max_hints_size
        self.handoff.rate_min = float(settings.handoff_rate_min)
        self.handoff.rate_max = float(settings.handoff_rate_max)
        self.handoff.latency_target_s = settings.handoff_latency_target / 1000
        coordinator.succession.policy = ConflictPolicy(settings.conflict_resolution, prefix_policies(settings.conflict_resolution_prefix))
        coordinator.succession.siblings_max = settings.max_siblings
        coordinator.succession.bytes_max = siblings_bytes_max(settings.proto_max_bulk_len)
        self._turn.bound(bulk_bytes_max=settings.proto_max_bulk_len, queue_bytes_max=settings.peer_queue_limit)
        self.membership.set_options(membership_options(settings), self._turn.now)
        self.membership.publish("ring_epoch", self.cluster.ring.epoch)
        self.membership.publish("ring_hash", self.cluster.ring.digest())
        self.membership.publish("value_mark", f"{self.cluster.value_mark:016x}")
        floor = self.cluster.value.flush_floor.to_bytes(8)
        if self.cluster.value.flush_floor and floor > store.floor:
            self.flush.raise_floor(floor)
            self._out.purge_below = floor
        store.bound(settings.maxmemory)
        self.topology.redraw_due = True

    def scan_tables(self, partition: int, first_hash: int, limit: int, then: Any) -> None:
        """Ask the shell for rows of the tables; `then(rows, next_hash)` gets them in a later turn."""
        token = self._turn.next_sequence()
        self._scans[token] = then
        self._out.scans.append((token, partition, first_hash, limit))

    def _run_transaction(self, client: Client, queued: list[tuple[Command, list[bytes]]]) -> list[Any]:
        return self.dispatcher.run_transaction(client, queued)
