"""What a node does for its observers once a second: publish figures about itself, and account for its time. Pure.

The time of a single command is not measured, because looking at a clock twice would cost more than a plain GET.
The time of the turns that answered clients is shared out instead, each second and in equal parts, among the commands of that second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands import published
from respkv.commands.table import COMMANDS
from respkv.repair.pace import Foreground, Pace
from respkv.versions.records import HEADER_BYTES, holds_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.commands.table import Command
    from respkv.server.node import Node

INTERVAL_S = 1.0
SURVEYED_PER_BEAT = 1000
SURVEY_KEYS_MAX = 20_000


class Pulse:
    """The beat of a node."""

    __slots__ = (
        "_calls",
        "_node",
        "_surveyed_bytes",
        "_surveyed_keys",
        "_surveyed_partition",
        "busy_s",
        "due",
        "foreground",
        "pace",
        "works_behind",
    )

    def __init__(self, node: Node) -> None:
        """The first beat is due at once."""
        self._node = node
        self.due = node.context.turn.now
        self.busy_s = 0.0
        """How long the turns took that answered clients: added up by the shell, which alone has a clock."""
        counted = node.coordinator.statistics
        self.foreground = Foreground(counted.read_latencies, counted.write_latencies)
        self.pace = Pace(rate_min=float(node.settings.handoff_rate_min))
        self.works_behind = False
        """Whether anything was done behind the scenes since the last beat."""
        self._calls: dict[str, int] = {}
        self._surveyed_partition = 0
        self._surveyed_keys = 0
        self._surveyed_bytes = 0

    def tick(self) -> None:
        """Once a turn: beat, if it is time."""
        now = self._node.context.turn.now
        if now >= self.due:
            self.due = now + INTERVAL_S
            self._publish()
            self._watch_loop()
            self._share_time()

    def next_due(self) -> float:
        """When `tick` is to be called again."""
        return self.due

    def _publish(self) -> None:
        node = self._node
        self._survey()
        node.membership.publish(published.KEYS, sum(node.store.live))
        node.membership.publish(published.BYTES, self.data_bytes())
        node.membership.publish(published.HINTS, published.encode_hints({owner: len(rows) for owner, rows in node.hints.rows.items()}))
        node.membership.publish(published.REFUSES, node.replica.writes_disabled)
        node.membership.publish(published.REFUSED, published.encode_hints(node.hints.refused))

    def data_bytes(self) -> int:
        """What the keys and values of this node take: their number times the mean size of those that were looked at of late."""
        return sum(self._node.store.live) * self._surveyed_bytes // self._surveyed_keys if self._surveyed_keys else 0

    def _survey(self) -> None:
        """Look at the sizes of some records, others each time."""
        shards = self._node.store.shards
        looked_at = 0
        for _ in range(len(shards)):
            shard = shards[self._surveyed_partition]
            self._surveyed_partition = (self._surveyed_partition + 1) % len(shards)
            for (key, record), _ in zip(shard.items(), range(SURVEYED_PER_BEAT), strict=False):
                looked_at += 1
                if holds_value(record):
                    self._surveyed_keys += 1
                    self._surveyed_bytes += len(key) + len(record) - HEADER_BYTES
            if looked_at >= SURVEYED_PER_BEAT:
                break
        while self._surveyed_keys > SURVEY_KEYS_MAX:
            self._surveyed_keys //= 2
            self._surveyed_bytes //= 2

    def _watch_loop(self) -> None:
        """A node whose own turns come late must not take others for slow."""
        node = self._node
        lag_ms = node.context.facts.get("loop_lag_ms", 0)
        is_late = lag_ms >= node.settings.loop_lag_threshold
        node.coordinator.speculation_allowed = not is_late
        self._set_pace(loop_is_late=is_late)
        if 0 < node.settings.latency_monitor_threshold <= lag_ms:
            node.context.slow_events.record("loop-lag", unix_s=node.context.turn.wall_ms // 1000, milliseconds=lag_ms)

    def _set_pace(self, *, loop_is_late: bool) -> None:
        node, settings = self._node, self._node.settings
        node.membership.publish(published.WORKS, int(self.works_behind))
        self.works_behind = False
        # The clients of each node feel what any of them does.
        works = any(node.membership.application_value(other, published.WORKS) for other in node.topology.usable())
        self.foreground.beat(loop_is_late=loop_is_late, is_working=works or bool(node.hints.rows))
        rate_min, rate_max = float(settings.handoff_rate_min), float(settings.handoff_rate_max)
        node.membership.publish(published.PACE, self.pace.beat(self.foreground, is_working=works, rate_min=rate_min, rate_max=rate_max))

    def pace_now(self) -> Pace:
        """The pace that all nodes that can be heard keep together."""
        node, settings = self._node, self._node.settings
        told = [published.decode_pace(node.membership.application_value(other, published.PACE)) for other in node.topology.usable()]
        self.pace.follow(told, rate_min=float(settings.handoff_rate_min), rate_max=float(settings.handoff_rate_max))
        return self.pace

    def _share_time(self) -> None:
        spent_us, self.busy_s = int(self.busy_s * 1_000_000), 0.0
        calls: dict[str, int] = {}
        grown: list[tuple[Command, int]] = []
        for command in _all_commands():
            count = calls[command.name] = command.statistics.calls
            more = count - self._calls.get(command.name, 0)
            if more > 0:
                grown.append((command, more))
        self._calls = calls
        total = sum(count for _, count in grown)
        for command, count in grown:
            statistics = command.statistics
            statistics.microseconds += spent_us * count // total
            unmeasured = min(statistics.calls - statistics.latencies.count, count)
            if unmeasured > 0:
                statistics.latencies.record(spent_us // total, unmeasured)


def _all_commands() -> Iterator[Command]:
    for command in COMMANDS.values():
        yield command
        yield from command.subcommands.values()
