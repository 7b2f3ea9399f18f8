"""The cluster of a scenario: its processes, its network, its clock; and what may be asked of all of it."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import respkv.commands.registry  # noqa: F401 - the table of commands is complete once this is imported
from respkv.config.cluster_value import marked_nodes
from respkv.membership.members import MemberAddress, MemberState
from respkv.placement.ring import Member, first_ring
from respkv.placement.slots import key_slot
from respkv.simulation.bug import Bugs
from respkv.simulation.disk import Disk
from respkv.simulation.history import History, Request
from respkv.simulation.network import Network
from respkv.simulation.process import Process
from respkv.simulation.schedule import Schedule, Trace
from respkv.simulation.workload import FIRST_PORT

if TYPE_CHECKING:
    from respkv.ids import NodeId
    from respkv.server.node import Node
    from respkv.simulation.clients import Connection
    from respkv.simulation.scenario import Scenario

SKEW_MAX_MS = 2000.0
"""Clocks that are further off are set right before the end: nobody waits hours for what expires meanwhile."""
SKEW_MENDED_MS = 20.0
PATIENCE_TIMEOUTS = 3
PATIENCE_S = 0.5
CLIENT_DELAY_S = (0.00005, 0.0004)


class World:
    """Everything that a seed is played in."""

    def __init__(self, scenario: Scenario, *, bugs: Bugs | None = None, keep_trace: bool = False) -> None:
        """No process runs yet."""
        self.scenario = scenario
        self.bugs = bugs or Bugs()
        self.schedule = Schedule()
        self.trace = Trace(is_kept=keep_trace)
        self.rng = random.Random(f"world {scenario.seed}")
        self.settings = scenario.settings()
        self.least_w = scenario.least_w
        """The fewest acknowledgements that a write may ever need; worked out once, because much asks for it."""
        self._founding_n = scenario.quorums.n
        addresses = [
            MemberAddress.founding(
                host="127.0.0.1",
                port=FIRST_PORT + index,
                cluster_port=10_000 + FIRST_PORT + index,
                zone=f"z{index % scenario.zones}" if scenario.zones else "",
            )
            for index in range(scenario.nodes)
        ]
        self.seeds = addresses
        self.ring = first_ring([Member(address.node, address.zone) for address in addresses], ring_size=scenario.ring_size)
        self.network = Network(self.schedule, random.Random(self.rng.random()), delay_s=scenario.delay_s, echoes=scenario.echoes)
        self.processes = [self._process(index, address.node) for index, address in enumerate(addresses)]
        self.index_of = {process.me: process.index for process in self.processes}
        self.problems: list[str] = []
        """What nodes said or did that they never may."""
        self.power_cuts: list[tuple[float, int]] = []
        self.wipes: list[tuple[float, int]] = []
        self.history = History()
        self.connections: list[Connection] = []

    def _process(self, index: int, me: NodeId) -> Process:
        scenario, rng = self.scenario, self.rng
        disk = Disk(self.schedule, random.Random(rng.random()), sync_s=scenario.sync_s, read_s=scenario.read_s)
        process = Process(self, index, me=me, disk=disk, rng=random.Random(rng.random()))
        process.clock.offset_ms = rng.uniform(-scenario.skew_ms, scenario.skew_ms)
        process.clock.drift = rng.uniform(-scenario.drift, scenario.drift)
        return process

    def start(self) -> None:
        """Start all nodes, within a moment."""
        for process in self.processes:
            self.schedule.after(self.rng.uniform(0.0, 0.3), process.start)

    def note(self, text: str) -> None:
        """Put a line into the trace."""
        self.trace.note(self.schedule.now, text)

    def client_delay(self) -> float:
        """How long bytes take between a client and its node."""
        return self.rng.uniform(*CLIENT_DELAY_S)

    def on_event(self, process: Process, level: str, text: str) -> None:
        """A line of a node's log file."""
        if self.trace.is_kept:
            self.note(f"n{process.index} {level}: {text}")
        if level == "warning" and ("internal error" in text or text.startswith("closing the link")):
            self.problems.append(f"n{process.index} at {self.schedule.now:.3f} s: {text}")

    def retire(self, process: Process) -> None:
        """A process ends: what it counted is kept."""
        node = process.node
        assert node is not None
        if node.statistics.internal_errors_total:
            self.problems.append(f"n{process.index} counted {node.statistics.internal_errors_total} internal errors")

    def skew_s(self) -> float:
        """How far two wall clocks may ever have been apart."""
        jumps_ms = 50.0 if "clock" in self.scenario.faults else 0.0
        return 2.0 * max(self.scenario.skew_ms, jumps_ms) / 1000.0 + 2 * self.scenario.drift * self.schedule.now

    def skew_now_s(self) -> float:
        """How far two wall clocks are apart."""
        clocks = [process.clock.read(self.schedule.now) for process in self.processes]
        return (max(clocks) - min(clocks)) / 1000.0

    def mend_clocks(self) -> None:
        """Set clocks right that are far off."""
        if self.scenario.skew_ms > SKEW_MAX_MS:
            for process in self.processes:
                process.clock.put(self.rng.uniform(-SKEW_MENDED_MS, SKEW_MENDED_MS), now=self.schedule.now)

    def last_wall_ms(self) -> int:
        """The latest time that any wall clock shows."""
        return max(process.clock.read(self.schedule.now) for process in self.processes)

    def furthest_wall_ms(self) -> int:
        """A time that no wall clock has shown yet, even before it was set back."""
        return self.last_wall_ms() + math.ceil(self.skew_s() * 1000)

    def patience_s(self) -> float:
        """Within which time every request is answered once it has its turn."""
        return PATIENCE_TIMEOUTS * self.settings.request_timeout / 1000.0 + PATIENCE_S

    def unanswered(self) -> list[Request]:
        """Requests whose connection is still open and that nobody answered."""
        return [request for connection in self.connections if connection.is_alive for request in connection.waiting]

    # --- what is true of the cluster now

    def nodes(self) -> list[tuple[Process, Node]]:
        """The processes that live."""
        return [(process, process.node) for process in self.processes if process.node is not None]

    def unrest(self) -> str:
        """What keeps the cluster from being at rest, or nothing."""
        for process in self.processes:
            if process.node is None:
                return f"n{process.index} does not run"
        for process, node in self.nodes():
            for other in self.processes:
                if other is not process and (other.me not in process.links or node.membership.state_of(other.me) is not MemberState.UP):
                    return f"n{process.index} holds n{other.index} for {node.membership.state_of(other.me).value}"
            if node.rebuild.lacks_data or marked_nodes(node.cluster.value):
                return f"n{process.index} rebuilds, or knows of one that is to"
            if node.topology.wall.doubted_step_ms is not None:
                return f"n{process.index} does not believe its wall clock yet"
            if node.cluster.value.resize is not None:
                return f"n{process.index} has not ended a change of replication-factor"
        for process, node in self.nodes():
            if node.hints.rows:
                owners = {f"n{self.index_of[owner]}": len(rows) for owner, rows in node.hints.rows.items()}
                return f"n{process.index} holds hints for {owners}"
            if node.coordinator.in_flight_count() or node.parking.keys or node.operations.running_count:
                return f"n{process.index} has requests in flight"
            if node.flush.is_under_way():
                return f"n{process.index} still counts what FLUSHALL left"
        return ""

    def is_whole(self) -> bool:
        """Whether every node runs and has all its data."""
        return all(process.node is not None and not process.node.rebuild.lacks_data for process in self.processes)

    def primaries(self, key: bytes) -> list[Process]:
        """The processes that hold a key, in the order of its preference list."""
        return self.primaries_of(key_slot(key) * self.scenario.ring_size >> 14)

    def primaries_of(self, partition: int) -> list[Process]:
        """The processes that hold a partition, in the order of its preference list."""
        counts = [node.coordinator.quorum.n for _, node in self.nodes()]
        preference = self.ring.preference_list(partition)[: max(counts, default=self._founding_n)]
        return [self.processes[self.index_of[node]] for node in preference]
