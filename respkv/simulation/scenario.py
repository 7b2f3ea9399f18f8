"""What a seed means: the size and the settings of the cluster, its clocks and its network, the load and the faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from respkv.config.directives import BY_NAME
from respkv.config.quorums import Quorums, configured_quorums
from respkv.config.settings import Settings

NODES = (3, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is decided before the first event."""

    seed: int
    nodes: int = 3
    ring_size: int = 16
    directives: dict[str, str] = field(default_factory=dict)
    skew_ms: float = 0.0
    """Wall clocks are off by up to this much, either way."""
    drift: float = 1e-4
    """Wall clocks are fast or slow by up to so many seconds per second."""
    delay_s: tuple[float, float] = (0.0001, 0.001)
    sync_s: tuple[float, float] = (0.0005, 0.01)
    read_s: tuple[float, float] = (0.0001, 0.005)
    echoes: bool = False
    faults: tuple[str, ...] = ()
    """Kinds of fault that may happen (see `faults`); none: a healthy cluster."""
    fault_pause_s: float = 2.0
    """Mean time between two faults."""
    load_s: float = 10.0
    clients: int = 6
    think_s: float = 0.08
    """Mean pause of a client between two packets."""
    keys: int = 8
    """Keys of each family."""
    zones: int = 0
    memtable_bytes: int = 1 << 26
    flushes: bool = False
    """Whether FLUSHALL is sent now and then."""
    rules: tuple[tuple[int, int], ...] = ()
    """Pairs of R and W that CONFIG SET chooses from while the load runs."""
    reaps: bool = False
    """Whether the load goes on for long enough that deletions go meanwhile."""
    factors: tuple[int, ...] = ()
    """What CONFIG SET makes N while the load runs; R and W are words."""
    operates: bool = False
    """Whether RESPKV REPAIR and RESPKV REBUILD are sent while the load runs, and a repair of everything in the end."""

    def settings(self) -> Settings:
        """The settings that every node starts with."""
        settings = Settings()
        for name, text in self.directives.items():
            settings.assign(BY_NAME[name], text.split())
        # Less than the directive allows: a few seconds of load must fill several memtables.
        settings.memtable_size = self.memtable_bytes
        return settings

    @property
    def quorums(self) -> Quorums:
        """N, R, W, PR and PW in numbers."""
        return configured_quorums(self.settings(), members=self.nodes)

    @property
    def all_quorums(self) -> list[Quorums]:
        """The same for every N and every pair of R and W that there may be."""
        base = self.settings()
        found = [self.quorums, *(self.quorums._replace(r=read, w=write) for read, write in self.rules)]
        for factor in self.factors:
            base.replication_factor = factor
            found.append(configured_quorums(base, members=self.nodes))
        return found

    @property
    def is_strict(self) -> bool:
        """Whether only primaries count."""
        return self.directives.get("sloppy-quorum") == "no"

    @property
    def keeps_siblings(self) -> bool:
        """Whether some families of keys keep concurrent values."""
        return SIBLINGS_PREFIXES in self.directives.values() or self.keeps_all_siblings

    @property
    def keeps_all_siblings(self) -> bool:
        """Whether all keys do."""
        return self.directives.get("conflict-resolution") == "siblings"

    @property
    def compares_trees(self) -> bool:
        """Whether replicas find by themselves where they differ, without anybody reading, and whatever became of hints."""
        return self.directives.get("anti-entropy-interval") != "0"

    @property
    def is_healthy(self) -> bool:
        """Whether nothing goes wrong but clocks and delays. A node that is to be rebuilt starts again."""
        return not self.faults and not self.operates

    @property
    def may_speculate(self) -> bool:
        """Whether a stand-in may be asked although nothing went wrong, because an answer took long."""
        retry_s = self.settings().speculative_retry / 1000
        slowest_s = (
            4 * self.delay_s[1] + (2 * self.sync_s[1] if self.directives.get("appendfsync") == "always" else 0.0) + 2 * self.read_s[1]
        )
        return 0 < retry_s < slowest_s

    @property
    def loses_power(self) -> bool:
        """Whether acknowledged writes may be gone with a machine's power."""
        return "power" in self.faults and self.directives.get("appendfsync") != "always"

    @property
    def writes_overlap(self) -> bool:
        """Whether any two acknowledged writes of a key met on a replica that remembers."""
        return (
            (self.is_strict or (self.is_healthy and not self.may_speculate))
            and all(2 * quorum.w > quorum.n for quorum in self.all_quorums)
            and not self.loses_power
            and ("wipe" not in self.faults or self.least_w > 1)
        )

    @property
    def reads_overlap(self) -> bool:
        """Whether every read meets every acknowledged write."""
        if self.rules and not self.is_healthy:
            # A node that is cut off goes on by the rule that it knows.
            return False
        return self.writes_overlap and all(quorum.r + quorum.w > quorum.n for quorum in self.all_quorums)

    @property
    def reads_are_monotonic(self) -> bool:
        """Whether no read answers older than an earlier one, even of writes that nobody acknowledged."""
        waits = self.directives.get("read-repair", "blocking") == "blocking"
        settled = not self.rules and not self.loses_power
        return waits and settled and self.is_strict and all(2 * quorum.r > quorum.n for quorum in self.all_quorums)

    @property
    def least_w(self) -> int:
        """The fewest acknowledgements that a write may ever need."""
        return min(quorum.w for quorum in self.all_quorums)

    @property
    def may_differ(self) -> bool:
        """Whether replicas may differ in the end, and nobody know it: a coordinator that died before it could make a hint."""
        if self.compares_trees:
            return False
        if "max-hint-window" in self.directives:
            return True
        if "max-downtime" in self.directives:
            # Who sets aside what it holds sets aside its hints as well.
            return True
        if "power" in self.faults or "wipe" in self.faults or self.directives.get("hinted-handoff") == "no":
            return True
        # Where every node holds every key, a coordinator that was killed finds in its log what it owes.
        return not {"kill", "term", "away"}.isdisjoint(self.faults) and self.nodes > min(quorum.n for quorum in self.all_quorums)

    @property
    def counts_exactly(self) -> bool:
        """Whether one node after the other, and only one, works on a key that is read and written."""
        return self.is_healthy and self.reads_overlap and not self.flushes

    def title(self) -> str:
        """The scenario in a line."""
        n, r, w, pr, pw = self.quorums
        words = {
            "flushes": self.flushes,
            "rules": self.rules,
            "factors": self.factors,
            "reaps": self.reaps,
            "operates": self.operates,
            "echoes": self.echoes,
            "siblings": self.keeps_siblings,
        }
        extras = "".join(f" {word}" for word, has in words.items() if has)
        rest = " ".join(f"{name}={text}" for name, text in self.directives.items() if name not in RULE_NAMES)
        faults = "+".join(self.faults) or "healthy"
        kind = "strict" if self.is_strict else "sloppy"
        return f"{self.nodes} nodes N={n} R={r} W={w} PR={pr} PW={pw} {kind}{extras} skew={self.skew_ms:.0f}ms {rest} {faults}"


RULE_NAMES = frozenset(
    (
        "replication-factor",
        "read-quorum",
        "write-quorum",
        "primary-read-quorum",
        "primary-write-quorum",
        "sloppy-quorum",
        "conflict-resolution-prefix",
    )
)
SIBLINGS_PREFIXES = "s siblings u siblings o siblings"
"""The families of keys that keep them, where a scenario has any."""
FAULTS = ("kill", "term", "power", "wipe", "full", "stop", "cut", "reset", "slow-link", "slow-disk", "clock")
QUORUMS = (
    ("quorum", "quorum"),
    ("quorum", "quorum"),
    ("quorum", "quorum"),
    ("one", "all"),
    ("all", "one"),
    ("one", "one"),
    ("one", "quorum"),
    ("quorum", "all"),
)
RULES = ((2, 2), (1, 3), (2, 3), (3, 2), (3, 3))
"""What CONFIG SET may choose while three nodes keep a key: all of them overlap."""
RULES_N = 3
REAPING_RATIO = 0.12
REAPING_LOAD_S = 20.0
REAPING_FAULT_PAUSE_S = 6.0
AWAY_RATIO = 0.5
AWAY_FAULTS = ("clock", "cut", "reset", "slow-disk", "slow-link", "stop", "term")
HALF_AN_HOUR_MS = 1_800_000
HOURS_RATIO = 0.2
FACTORS_RATIO = 0.12


def draw(seed: int, *, nodes: int | None = None, forced: Collection[str] = ()) -> Scenario:
    """What a seed means; what is drawn rarely may be forced."""
    rng = random.Random(f"scenario {seed}")
    count = nodes or rng.choice((3, 3, 3, 4, 5, 5, 6, 7))
    read, write = rng.choice(QUORUMS)
    strict = rng.random() < 0.4
    directives = {
        "replication-factor": str(min(rng.choice((1, 2, 3, 3, 3, 3, 3, 5)), count)),
        "read-quorum": read,
        "write-quorum": write,
        "sloppy-quorum": "no" if strict else "yes",
        "appendfsync": rng.choice(("everysec", "everysec", "always", "no")),
        "request-timeout": str(rng.choice((300, 1000, 1000))),
        "speculative-retry": str(rng.choice((0, 20, 50, 50))),
        "membership-protocol": rng.choice(("gossip", "gossip", "gossip", "broadcast")),
    }
    if rng.random() < 0.15:
        directives["primary-read-quorum"] = "1"
    if rng.random() < 0.15:
        directives["primary-write-quorum"] = "1"
    if random.Random(f"read repair {seed}").random() < 0.15:
        directives["read-repair"] = "async"
    if rng.random() < 0.3:
        directives["maxmemory"] = str(rng.choice((2000, 8000)))
    faults = () if rng.random() < 0.2 else tuple(sorted(rng.sample(FAULTS, rng.randint(1, 5))))
    fast = rng.random() < 0.7
    scenario = Scenario(
        seed=seed,
        nodes=count,
        ring_size=rng.choice((16, 16, 32, 64)),
        directives=directives,
        skew_ms=rng.choice((0.0, 5.0, 100.0, 100.0, 1500.0)),
        delay_s=(0.0001, 0.001) if fast else (0.001, rng.choice((0.01, 0.04))),
        sync_s=(0.0005, rng.choice((0.005, 0.05))),
        echoes=rng.random() < 0.3,
        faults=faults,
        fault_pause_s=rng.choice((0.4, 1.0, 2.0)),
        load_s=rng.uniform(5.0, 10.0),
        clients=rng.randint(3, 9),
        think_s=rng.choice((0.04, 0.08, 0.15)),
        keys=rng.choice((2, 5, 10)),
        zones=rng.choice((0, 0, 0, 2, 3)),
        flushes=rng.random() < 0.15,
        rules=RULES if rng.random() < 0.15 else (),
        memtable_bytes=rng.choice((1 << 26, 1 << 15, 1 << 13)),
    )
    scenario = _with_trees(scenario, random.Random(f"trees {seed}"))
    scenario = _with_siblings(scenario, random.Random(f"siblings {seed}"))
    scenario = _with_clocks(scenario, random.Random(f"clocks {seed}"))
    scenario = scenario if scenario.quorums.n == RULES_N else replace(scenario, rules=())
    scenario = _with_factors(scenario, random.Random(f"factors {seed}"))
    for name, (ratio, change) in RARE.items():
        own = random.Random(f"{name} {seed}")
        if own.random() < ratio or name in forced:
            scenario = change(scenario, own)
    return scenario


def _with_factors(scenario: Scenario, rng: random.Random) -> Scenario:
    """Some clusters change N while the load runs."""
    if rng.random() >= FACTORS_RATIO or scenario.rules:
        return scenario
    return replace(scenario, factors=tuple(sorted({min(factor, scenario.nodes) for factor in rng.sample((1, 2, 3, 4, 5), 3)})))


def _with_trees(scenario: Scenario, rng: random.Random) -> Scenario:
    """In most clusters replicas compare hash trees, so hints may be dropped, and reads need not repair; in some deletions go soon."""
    own = {"anti-entropy-interval": rng.choice(("0", "0", "1", "1", "3")), "tombstone-grace": rng.choice(("1", "60"))}
    if own["anti-entropy-interval"] != "0":
        if rng.random() < 0.3:
            own["max-hints-size"] = rng.choice(("1", "1000"))
        if rng.random() < 0.2:
            own["read-repair"] = "off"
    scenario = replace(scenario, directives={**scenario.directives, **own})
    if rng.random() < REAPING_RATIO:
        # Deletions go where all is calm for a while, and things go wrong later.
        reaping = {**scenario.directives, "tombstone-grace": "1"}
        faults = scenario.faults
        if rng.random() < AWAY_RATIO:
            # And who is away for longer is rebuilt: deletions do not wait for it.
            faults = ("away", *rng.sample(AWAY_FAULTS, rng.randint(0, 2)))
            reaping["max-downtime"] = "2"
        return replace(
            scenario,
            directives=reaping,
            faults=faults,
            load_s=REAPING_LOAD_S,
            fault_pause_s=REAPING_FAULT_PAUSE_S,
            clients=3,
            reaps=True,
        )
    return scenario


def _with_siblings(scenario: Scenario, rng: random.Random) -> Scenario:
    """In every other cluster some keys keep concurrent values."""
    if rng.random() < 0.5:
        return scenario
    limits = {"max-siblings": "4"} if rng.random() < 0.2 else {}
    return replace(scenario, directives={**scenario.directives, "conflict-resolution-prefix": SIBLINGS_PREFIXES, **limits})


def _with_clocks(scenario: Scenario, rng: random.Random) -> Scenario:
    """Some clusters have clocks an hour apart, and some of those are told to write all the same."""
    kind = rng.random()
    if kind >= HOURS_RATIO:
        return replace(scenario, drift=rng.choice((1e-4, 1e-4, 1e-2)))
    directives = scenario.directives if kind < HOURS_RATIO / 4 else {**scenario.directives, "max-clock-skew": str(4 * HALF_AN_HOUR_MS)}
    return replace(scenario, skew_ms=HALF_AN_HOUR_MS, directives=directives)


def _with_operator(scenario: Scenario, rng: random.Random) -> Scenario:
    """An operator repairs, and has nodes rebuilt. That no other directory is deleted meanwhile is for the operator to know."""
    del rng
    return replace(scenario, operates=True, faults=tuple(fault for fault in scenario.faults if fault != "wipe"))


def _with_flapping(scenario: Scenario, rng: random.Random) -> Scenario:
    """Nodes stop and go on, again and again; in some clusters that is long enough for hints to be refused, or for a node to be rebuilt."""
    own = {}
    if rng.random() < 0.5:
        own["max-hint-window"] = rng.choice(("1", "3"))
    if rng.random() < 0.3:
        own["max-downtime"] = rng.choice(("2", "4"))
    faults = ("flap", *(fault for fault in scenario.faults if fault != "wipe" or "max-downtime" not in own))
    return replace(scenario, faults=faults, directives={**scenario.directives, **own})


def _with_all_siblings(scenario: Scenario, rng: random.Random) -> Scenario:
    """All keys keep concurrent values, also those whose clients know nothing of it."""
    del rng
    others = {name: text for name, text in scenario.directives.items() if name != "conflict-resolution-prefix"}
    return replace(scenario, directives={**others, "conflict-resolution": "siblings"})


RARE: dict[str, tuple[float, Callable[[Scenario, random.Random], Scenario]]] = {
    "operators": (0.03, _with_operator),
    "flapping": (0.03, _with_flapping),
    "all siblings": (0.03, _with_all_siblings),
}
"""What few clusters have: how often, and what it changes. Each has dice of its own, so that what else a seed means stays as it is."""
