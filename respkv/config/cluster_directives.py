"""Directives about the cluster: quorums, hints, who is a member and who is up."""

from __future__ import annotations

from respkv.config.directive import INT_MAX, Directive, Group, Kind, Scope
from respkv.config.founders import founder_problem, zone_problem

REPLICATION_FACTOR_MAX = 16
CLUSTER_SECRET_LENGTH_MIN = 16

_QUORUM_WORDS = "`one`, `quorum` (more than half of replication-factor), `all`, or a number"


def ring_size_problem(text: str) -> str:
    """The slots of Redis Cluster are cut into equal partitions."""
    return "" if int(text).bit_count() == 1 else "argument must be a power of two"


def secret_problem(text: str) -> str:
    """A secret that can be guessed is none."""
    if text and len(text) < CLUSTER_SECRET_LENGTH_MIN:
        return f"argument must have at least {CLUSTER_SECRET_LENGTH_MIN} characters"
    return ""


QUORUM = Group(
    "QUORUM",
    (
        Directive(
            name="replication-factor",
            alias="n-val",
            kind=Kind.INTEGER,
            default="3",
            minimum=1,
            maximum=REPLICATION_FACTOR_MAX,
            unit="nodes",
            scope=Scope.CLUSTER,
            help="N: how many nodes keep each key. In a cluster of fewer nodes it is the number of nodes. Raise it to survive more "
            "failures at once; each write then costs one more message and one more copy. A change on a ring that holds data is carried "
            "out in the background: new replicas are filled before they count, and copies are dropped only when the others have them.",
        ),
        Directive(
            name="read-quorum",
            alias="r",
            kind=Kind.QUORUM,
            default="quorum",
            minimum=1,
            maximum=REPLICATION_FACTOR_MAX,
            unit="replies",
            scope=Scope.CLUSTER,
            help=f"R: how many replicas have to answer a read: {_QUORUM_WORDS}. With read-quorum + write-quorum > replication-factor and "
            "sloppy-quorum no, a read meets at least one replica of every acknowledged write. Raise it for fresher answers, lower "
            "it for faster ones and for reads that go on while more nodes are down.",
        ),
        Directive(
            name="write-quorum",
            alias="w",
            kind=Kind.QUORUM,
            default="quorum",
            minimum=1,
            maximum=REPLICATION_FACTOR_MAX,
            unit="replies",
            scope=Scope.CLUSTER,
            help="W: how many nodes have to hold a write, in their log at the level of appendfsync, before it is acknowledged: "
            f"{_QUORUM_WORDS}. A write is always sent to all replicas. Raise it to lose less when nodes die, lower it for faster "
            "writes and for writes that go on while more nodes are down.",
        ),
        Directive(
            name="primary-read-quorum",
            alias="pr",
            kind=Kind.QUORUM,
            default="0",
            minimum=0,
            maximum=REPLICATION_FACTOR_MAX,
            unit="replies",
            scope=Scope.CLUSTER,
            help="PR: how many of the answers to a read have to come from primaries, the first N nodes of the key's preference list, "
            "and not from stand-ins. The words of read-quorum, or a number. At most read-quorum. Raise it for sloppy writes with "
            "strict reads.",
        ),
        Directive(
            name="primary-write-quorum",
            alias="pw",
            kind=Kind.QUORUM,
            default="0",
            minimum=0,
            maximum=REPLICATION_FACTOR_MAX,
            unit="replies",
            scope=Scope.CLUSTER,
            help="PW: how many of the nodes that hold a write before it is acknowledged have to be primaries. The words of "
            "write-quorum, or a number. At most write-quorum. Raise it so that no write is held by stand-ins alone.",
        ),
        Directive(
            name="sloppy-quorum",
            kind=Kind.BOOL,
            default="yes",
            scope=Scope.CLUSTER,
            help="yes: the next node of the preference list stands in for a primary that is away and counts for read-quorum and "
            "write-quorum, so writes go on while any write-quorum nodes are up. no: only primaries count, and quorums overlap when "
            "read-quorum + write-quorum > replication-factor.",
        ),
        Directive(
            name="hinted-handoff",
            kind=Kind.BOOL,
            default="yes",
            scope=Scope.CLUSTER,
            help="Keep what a replica missed, and send it when the replica is back. `no` is refused while sloppy-quorum is yes: "
            "stand-ins would strand data. With strict quorums hints are kept and never count.",
        ),
        Directive(
            name="request-timeout",
            kind=Kind.INTEGER,
            default="1000",
            minimum=10,
            maximum=600_000,
            unit="milliseconds",
            scope=Scope.CLUSTER,
            help="A command whose quorum has not answered by then is answered with -TIMEOUT. Keep it well below the timeout of the "
            "clients (5 seconds in redis-py), or they send again what is still under way. Raise it where nodes are far apart.",
        ),
        Directive(
            name="speculative-retry",
            kind=Kind.INTEGER,
            default="50",
            minimum=0,
            maximum=600_000,
            unit="milliseconds",
            scope=Scope.CLUSTER,
            help="A replica that is slower than this is not waited for alone: the next candidate is asked too. 0 never asks. Lower it "
            "to cut the slowest answers, at the price of more requests; raise it where nodes are far apart.",
        ),
        Directive(
            name="speculative-retry-percent",
            kind=Kind.INTEGER,
            default="5",
            minimum=0,
            maximum=100,
            unit="percent of requests",
            scope=Scope.CLUSTER,
            help="No more than this share of requests is sent again by speculative-retry, so that a slow cluster is not slowed further. "
            "Lower it if retries show up as load; raise it where one of a few replicas is often slow.",
        ),
        Directive(
            name="readonly-consistency",
            kind=Kind.ENUM,
            default="one",
            choices=("one", "configured"),
            scope=Scope.CLUSTER,
            help="What READONLY does to a connection until READWRITE. `one`: its reads ask one replica (read-quorum one, "
            "primary-read-quorum 0), as clients of Redis Cluster expect of replicas; commands that read and then write do not. "
            "`configured`: nothing.",
        ),
        Directive(
            name="read-repair",
            kind=Kind.ENUM,
            default="blocking",
            choices=("blocking", "async", "off"),
            scope=Scope.CLUSTER,
            help="What a read does when the replicas that it asked differ. `blocking`: those that are behind get the newest version, and "
            "the client hears of it when replication-factor - read-quorum + 1 primaries have it, or -TIMEOUT. So with sloppy-quorum no "
            "and read-quorum of more than half of replication-factor, no later read at read-quorum answers an older version; with "
            "sloppy-quorum yes, or a smaller read-quorum, this is not promised. `async`: they get it, and are not waited for. `off`: "
            "nothing is sent. Answers that agree cost nothing.",
        ),
    ),
    introduction="These belong to the cluster: CONFIG SET on any node changes them everywhere, and what was set that way is kept and "
    "beats this file.",
)

HANDOFF = Group(
    "HINTED HANDOFF",
    (
        Directive(
            name="max-hint-window",
            kind=Kind.INTEGER,
            default="10800",
            maximum=INT_MAX,
            unit="seconds",
            help="No further hints are kept for a node that has been away for longer than this; what it misses from then on is left to "
            "anti-entropy. Raise it where nodes stay away longer and disks have room.",
        ),
        Directive(
            name="max-downtime",
            kind=Kind.INTEGER,
            default="864000",
            maximum=INT_MAX,
            unit="seconds",
            scope=Scope.CLUSTER,
            help="A node that has been away for longer than this is not merged when it returns but rebuilt: it sets aside what it holds, "
            "counts for nothing until it has copied everything from its co-replicas, and deleted keys that it still has do not come "
            "back. Only what the others have seen of its absence counts, while more than half of them were together and none of these "
            "reached it; and never is a node marked so if its co-replicas that are left (replication-factor - write-quorum + 1 are "
            "needed) might lack what it has acknowledged. 0 is never. Raise it where nodes stay away for long and have much to copy; "
            "deletions are remembered for "
            "as long.",
        ),
        Directive(
            name="max-hints-size",
            kind=Kind.MEMORY,
            default="1gb",
            unit="bytes",
            help="How many bytes of hints this node keeps for all others together. What is not hinted is counted, and marks the pair of "
            "nodes for anti-entropy. Raise it with the disk and with the rate of writes.",
        ),
        Directive(
            name="handoff-rate-min",
            kind=Kind.MEMORY,
            default="1mb",
            minimum=1024,
            unit="bytes per second",
            help="Hints are sent to a node that is back at this rate at least, however busy it is. Raise it if hints do not drain under "
            "load.",
        ),
        Directive(
            name="handoff-rate-max",
            kind=Kind.MEMORY,
            default="64mb",
            minimum=1024,
            unit="bytes per second",
            help="Hints are sent no faster than this, however idle both nodes are. Lower it where the network is shared.",
        ),
        Directive(
            name="handoff-latency-target",
            kind=Kind.INTEGER,
            default="20",
            minimum=1,
            maximum=60_000,
            unit="milliseconds",
            help="Hints are sent faster while the node that receives them acknowledges sooner than this, and slower when it does not. "
            "Lower it to spare clients while hints drain; raise it to have hints drained sooner.",
        ),
    ),
)

MEMBERSHIP = Group(
    "CLUSTER",
    (
        Directive(
            name="cluster-nodes",
            kind=Kind.LIST,
            default="",
            maximum=1000,
            immutable=True,
            check=founder_problem,
            help="The founding nodes, this one among them: HOST:PORT[@CLUSTER-PORT][/ZONE] as they announce themselves. All founders "
            "need the same list, in any order: the first ring is computed from it. Empty is a cluster of this node alone. Once the "
            "ring is on disk it is no longer read.",
        ),
        Directive(
            name="ring-size",
            kind=Kind.INTEGER,
            default="1024",
            minimum=16,
            maximum=16384,
            unit="partitions",
            immutable=True,
            check=ring_size_problem,
            help="How many partitions the key space is cut into: a power of two, the same on all founding nodes, fixed for the life of "
            "the cluster. Raise it where there may be more than 64 nodes one day: take 16 or more partitions a node. "
            "Each costs a little memory.",
        ),
        Directive(
            name="availability-zone",
            kind=Kind.STRING,
            default="",
            immutable=True,
            check=zone_problem,
            help="The zone, rack or room that this node stands in. The replicas of a key are put in different zones while there are "
            "enough of them.",
        ),
        Directive(
            name="cluster-port",
            kind=Kind.INTEGER,
            default="0",
            maximum=65535,
            immutable=True,
            help="The port for other nodes. 0 is the port for clients + 10000.",
        ),
        Directive(
            name="cluster-announce-ip",
            kind=Kind.STRING,
            default="",
            immutable=True,
            help="The address under which other nodes and clients reach this node, where it is not the first one of bind: behind NAT, "
            "in containers.",
        ),
        Directive(
            name="cluster-announce-port",
            kind=Kind.INTEGER,
            default="0",
            maximum=65535,
            immutable=True,
            help="The port under which clients reach this node. 0 is port.",
        ),
        Directive(
            name="cluster-announce-bus-port",
            kind=Kind.INTEGER,
            default="0",
            maximum=65535,
            immutable=True,
            help="The port under which other nodes reach this node. 0 is cluster-port.",
        ),
        Directive(
            name="cluster-secret",
            kind=Kind.STRING,
            default="",
            immutable=True,
            sensitive=True,
            hidden=True,
            check=secret_problem,
            help="Nodes prove to each other that they know it, before anything else is said. At least 16 characters, the same on all "
            "nodes. Without it a node that listens beyond the loopback interface refuses to start. CONFIG GET never tells it.",
        ),
        Directive(
            name="membership-protocol",
            kind=Kind.ENUM,
            default="gossip",
            choices=("gossip", "broadcast"),
            scope=Scope.CLUSTER,
            help="How nodes learn of each other. `gossip`: every gossip-interval a node exchanges news with gossip-fanout others, "
            "whatever the size of the cluster. `broadcast`: it sends its own heartbeat to all others, which is quicker and costs "
            "the square of the number of nodes. INFO counts the bytes of each.",
        ),
        Directive(
            name="gossip-interval",
            kind=Kind.INTEGER,
            default="200",
            minimum=20,
            maximum=60_000,
            unit="milliseconds",
            scope=Scope.CLUSTER,
            help="How often a node tells others what it knows. Lower it to notice failures sooner; raise it where the network or the "
            "CPU is slow.",
        ),
        Directive(
            name="gossip-fanout",
            kind=Kind.INTEGER,
            default="3",
            minimum=1,
            maximum=100,
            unit="nodes",
            scope=Scope.CLUSTER,
            help="To how many others a node gossips each time. Raise it in big clusters where news travels too slowly.",
        ),
        Directive(
            name="failure-detector",
            kind=Kind.ENUM,
            default="lan",
            choices=("lan", "wan", "laptop"),
            scope=Scope.CLUSTER,
            help="How patient a node is with the silence of others. `lan`: machines in one place; a silent node is down after 3 to 6 "
            "seconds, a killed process within one. `wan`: far apart; 10 to 25 seconds. `laptop`: many nodes on one busy machine; 7 "
            "to 16 seconds.",
        ),
        Directive(
            name="phi-threshold",
            kind=Kind.INTEGER,
            default="8",
            minimum=1,
            maximum=100,
            scope=Scope.CLUSTER,
            help="A node is down when phi, the unlikeliness of its silence after the heartbeats seen so far (8 is one mistake in 10^8), "
            "reaches this; three quarters of it are enough when another node suspects it as well. Raise it where nodes pause "
            "(swap, busy CPUs) and are wrongly called down; lower it to notice a silent node sooner.",
        ),
        Directive(
            name="cluster-node-timeout",
            kind=Kind.INTEGER,
            default="15000",
            minimum=0,
            maximum=INT_MAX,
            unit="milliseconds",
            help="Accepted because `redis-cli --cluster set-timeout` sets it. It has no effect: failure-detector "
            "and phi-threshold decide when a node is down.",
        ),
        Directive(
            name="max-clock-skew",
            kind=Kind.INTEGER,
            default="5000",
            minimum=1,
            maximum=INT_MAX,
            unit="milliseconds",
            help="A node whose clock is further than this from the median of its peers' refuses to coordinate writes, with -CLOCKSKEW: "
            "its writes would win over, or lose to, writes of other times. Lower it where clocks are kept by NTP; raise it to "
            "write on with worse clocks. A clock that jumps by more (and by more than a second) is not believed before it has stood for "
            "10 seconds, or the peers agree with it.",
        ),
        Directive(
            name="peer-queue-limit",
            kind=Kind.MEMORY,
            default="256mb",
            minimum=1024**2,
            unit="bytes",
            help="How many bytes may wait for one other node. Three quarters of it are for long values: a write that does not fit counts "
            "as if the node were away, and hints are kept; a read whose answer does not fit is refused with -BUSY. With all of it in use "
            "the link is closed. At least proto-max-bulk-len. Raise it where short pauses of a node should not make hints.",
        ),
        Directive(
            name="cluster-enabled",
            kind=Kind.ENUM,
            default="yes",
            choices=("yes",),
            immutable=True,
            help="Always yes: a single node is a cluster of one.",
        ),
    ),
)
