"""The sections of INFO that Redis does not have: the node, its quorums, its hints, its ring. All fields begin with `respkv_`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from respkv.commands.published import ID_DIGITS, hints_outstanding, resize_told
from respkv.config.cluster_value import marked_nodes
from respkv.membership.members import MemberState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from respkv.commands.context import Context

Fields = dict[str, Any]


def _respkv(context: Context) -> Fields:
    statistics, facts, store = context.statistics, context.facts, context.store
    members = context.membership.statistics()
    told: Fields = {
        "node_id": context.me,
        "actor": context.coordinator.actor.hex(),
        # "compiled", "interpreted", or how much of each.
        "code": facts.get("code", "interpreted"),
        "nodes_up": members.up_count,
        "nodes_suspect": members.suspect_count,
        "nodes_down": members.down_count,
        "nodes_unknown": members.unknown_count,
        # Those that are reached, share the ring, and lack nothing: whose answers count.
        "nodes_counting": len(context.coordinator.compensation.usable),
        "rebuilding": context.membership.application_value(context.me, "rebuilding") or 0,
        "nodes_to_rebuild": len(marked_nodes(context.cluster_value())),
        "clock": context.clock.last,
        "clock_skew_ms": _or_empty(context.membership.clock_skew_ms(context.turn.wall_ms, context.turn.now)),
        "turns": context.turn.number,
        "loop_lag_ms": facts.get("loop_lag_ms", 0),
        "memory_complete": int(store.resident),
        "records_dropped_from_memory": statistics.evicted_records_total,
        "keys_with_siblings": sum(store.conflicted),
        "siblings_refused": context.coordinator.succession.refused_total,
        "loads_waiting": len(context.coordinator.parking),
        "loads_waiting_keys": context.coordinator.parking.keys_waiting,
        "loads_waiting_bytes": context.coordinator.parking.bytes_waiting,
        "operations_running": context.operations.running_count,
        "requests_waiting": context.coordinator.waiting_count,
        # What replicas were sent and have not answered, also where the client has its answer.
        "batches_in_flight": context.coordinator.in_flight_count(),
        "protocol_errors": statistics.protocol_errors_total,
        "internal_errors": statistics.internal_errors_total,
        "strangers_turned_away": statistics.strangers_total,
        "clients_closed_for_unread_replies": statistics.output_limit_closes_total,
        "peer_input_bytes": statistics.peer_input_bytes,
        "peer_output_bytes": statistics.peer_output_bytes,
        "peer_queue_bytes": sum(facts.get("peer_queue_bytes", {}).values()),
        "records_refused": context.replica.records_refused_total,
        "writes_disabled": context.replica.writes_disabled,
        "late_commands_refused": statistics.late_calls_total,
        "damages": len(facts.get("damages", ())),
    }
    told |= dict(flattened("disk", facts.get("disk", {})))
    return _prefixed(told)


def flattened(name: str, value: object) -> Iterator[tuple[str, Any]]:
    """The numbers in nested figures, each under the names that lead to it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flattened(f"{name}_{key}", item)
    elif isinstance(value, bool):
        yield name, int(value)
    elif isinstance(value, int | float | str):
        yield name, value


def _quorum(context: Context) -> Fields:
    value, quorum, counted = context.cluster_value(), context.coordinator.quorum, context.coordinator.statistics
    reads, writes = counted.read_latencies, counted.write_latencies
    sloppy = context.coordinator.compensation.sloppy
    told: Fields = {
        "n": quorum.n,
        "r": quorum.r,
        "w": quorum.w,
        "pr": quorum.pr,
        "pw": quorum.pw,
        "sloppy": _yes(sloppy),
        "hinted_handoff": _yes(context.settings.hinted_handoff),
        "overlap": _yes(quorum.r + quorum.w > quorum.n and not sloppy),
        "changing": int(bool(value.transition or value.resize)),
        "resize": ",".join(f"{name}={told}" for name, told in (resize_told(context) or {}).items()),
        "reads": counted.reads_total,
        "writes": counted.writes_total,
        "reads_refused": counted.reads_refused_total,
        "writes_refused": counted.writes_refused_total,
        "read_timeouts": counted.read_timeouts_total,
        "write_timeouts": counted.write_timeouts_total,
        "read_repairs": counted.read_repairs_total,
        "blocking_read_repairs": counted.blocking_repairs_total,
        "blocking_read_repairs_timed_out": counted.blocking_repair_timeouts_total,
        "resends": counted.resends_total,
        "speculative_reads": counted.speculative_reads_total,
        "speculative_writes": counted.speculative_writes_total,
        "speculation_allowed": _yes(context.coordinator.speculation_allowed),
    }
    for name, histogram in (("read", reads), ("write", writes)):
        told |= {f"{name}_p{shown}_usec": histogram.percentile(percent) for shown, percent in (("50", 50), ("99", 99), ("999", 99.9))}
    return _prefixed(told)


def _hints(context: Context) -> Fields:
    hints, now = context.hints, context.turn.now
    counted = hints.statistics
    told: Fields = {
        "hints_held": hints.count(),
        "hints_bytes": hints.bytes,
        "hints_stored": counted.stored_total,
        "hints_delivered": counted.delivered_total,
        "hints_dropped": sum(counted.dropped.values()),
        "hints_batches": context.handoff.batches_total,
    }
    told |= {f"hints_dropped_{reason}": count for reason, count in counted.dropped.items()}
    for owner, rows in sorted(hints.rows.items()):
        told[f"hints_for_{owner[:ID_DIGITS]}"] = f"held={len(rows)},oldest_s={int(hints.oldest_s(owner, now))}"
    members = [member.node for member in context.ring.members]
    outstanding = hints_outstanding(members, me=context.me, membership=context.membership, hints=hints)
    told["hints_outstanding"] = sum(outstanding.values())
    return _prefixed(told)


def _repair(context: Context) -> Fields:
    return _prefixed(dict(context.repair_figures()))


def _ring(context: Context) -> Fields:
    ring, membership = context.ring, context.membership
    counted = membership.statistics()
    table = context.coordinator.table
    assert table is not None
    states = {MemberState.UP: "up", MemberState.SUSPECT: "suspect", MemberState.DOWN: "down", MemberState.UNKNOWN: "unknown"}
    told: Fields = {
        "ring_epoch": ring.epoch,
        "ring_hash": ring.digest(),
        "ring_size": ring.size,
        "ring_members": len(ring.members),
        "ring_conflicts": len(membership.ring_conflicts()),
        "partitions_owned": ring.owned_counts().get(context.me, 0),
        "partitions_held": sum(table.holds),
        "partitions_led": table.first_live.count(context.me),
        "partitions_without_node": table.first_live.count(None),
        "membership_protocol": context.settings.membership_protocol,
        "suspicions": counted.suspicions_total,
        "downs": counted.downs_total,
        "refutations": counted.refutations_total,
        "late_answers": counted.late_answers_total,
    }
    for name, traffic in (("gossip", counted.gossip), ("broadcast", counted.broadcast)):
        told |= {
            f"{name}_messages_sent": traffic.messages_sent_total,
            f"{name}_messages_received": traffic.messages_received_total,
            f"{name}_bytes_sent": traffic.bytes_sent_total,
            f"{name}_bytes_received": traffic.bytes_received_total,
        }
    for number, member in enumerate(sorted(membership.members(context.turn.now), key=lambda member: member.address.node)):
        address = member.address
        told[f"node{number}"] = (
            f"id={address.node},addr={address.host}:{address.port},state={states[member.state]},phi={member.phi:.1f},"
            f"link={'open' if member.link_open else 'closed'}"
        )
    return _prefixed(told)


def _prefixed(fields: Fields) -> Fields:
    return {f"respkv_{name}": value for name, value in fields.items()}


def _yes(truth: object) -> str:
    return "yes" if truth else "no"


def _or_empty(value: object) -> object:
    return "" if value is None else value


OWN_SECTIONS: dict[str, Callable[[Context], Fields]] = {
    "respkv": _respkv,
    "quorum": _quorum,
    "hints": _hints,
    "repair": _repair,
    "ring": _ring,
}
