"""Directives about the node itself: memory, disk, and what it tells its operator."""

from __future__ import annotations

from respkv.config.directive import INT64_MAX, INT_MAX, Directive, Group, Kind

MEMORY = Group(
    "MEMORY",
    (
        Directive(
            name="maxmemory",
            kind=Kind.MEMORY,
            default="0",
            unit="bytes",
            help="How much memory records may take: those on their way to the tables, and the hot ones that are kept for reading. It "
            "never evicts data: records that leave memory are read from disk. Where the disk is stalled and memory holds as much again (or "
            "64mb more), writes are refused until it goes on. 0 is no limit. Raise it for a higher share of reads answered from "
            "memory.",
        ),
        Directive(
            name="maxmemory-policy",
            kind=Kind.ENUM,
            default="noeviction",
            choices=("noeviction",),
            help="Always noeviction: see maxmemory.",
        ),
        Directive(
            name="memtable-size",
            kind=Kind.MEMORY,
            default="256mb",
            minimum=1024**2,
            maximum=16 * 1024**3,
            unit="bytes",
            help="When this much was appended to the log since the last time, what is not yet in tables is written there. Raise it to "
            "write tables less often; lower it for a shorter replay of the log after a crash. With maxmemory set, no more than an "
            "eighth of that is used.",
        ),
        Directive(
            name="table-cache-size",
            kind=Kind.MEMORY,
            default="32mb",
            minimum=1024**2,
            unit="bytes",
            immutable=True,
            help="The cache for blocks of tables, bloom filters and indexes, on top of maxmemory. Raise it where most reads go to disk.",
        ),
    ),
)

PERSISTENCE = Group(
    "PERSISTENCE",
    (
        Directive(
            name="dir",
            kind=Kind.STRING,
            default="./respkv-data",
            immutable=True,
            protected=True,
            help="The directory of this node's log, tables, and small files. It is made if it is missing. No two nodes may share one.",
        ),
        Directive(
            name="appendonly",
            kind=Kind.ENUM,
            default="yes",
            choices=("yes",),
            help="Always yes: every write goes to the log before it is acknowledged.",
        ),
        Directive(
            name="appendfsync",
            kind=Kind.ENUM,
            default="everysec",
            choices=("everysec", "always", "no"),
            help="When the log is made durable, and so what an acknowledged write survives on each node that counted. `always`: before "
            "the acknowledgement, once for a group of commands; it survives a loss of power. `everysec`: every second; it survives "
            "a killed process, and a loss of power but for about the last second. `no`: when the system likes to.",
        ),
        Directive(
            name="save",
            kind=Kind.ENUM,
            default="",
            choices=("",),
            help='Always "": there are no snapshots, the log and the tables hold everything.',
        ),
        Directive(
            name="commit-log-segment-size",
            kind=Kind.MEMORY,
            default="64mb",
            minimum=1024**2,
            maximum=16 * 1024**3,
            unit="bytes",
            help="When the current file of the log has this size, a new one is begun and the records of the old one are written to "
            "tables. Raise it to write tables less often where few keys are overwritten many times; lower it for a shorter replay.",
        ),
        Directive(
            name="min-free-disk",
            kind=Kind.MEMORY,
            default="256mb",
            unit="bytes",
            help="Writes are refused while the disk has less room than this, so that the log and the tables can still be closed in "
            "order. What RocksDB may need to write its tables anew is kept free beside it: as much as they take, but no more than 1600mb, "
            "and room for what the log holds. Raise it on disks that other programs fill; 0 refuses nothing.",
        ),
        Directive(
            name="accept-data-loss",
            kind=Kind.BOOL,
            default="no",
            immutable=True,
            help="Let a node start whose log is damaged before the point up to which it was durable, when no other node holds copies to "
            "repair it from. What the damage took is then gone. Give it for one start, on the command line.",
        ),
    ),
)

OBSERVATION = Group(
    "LOG AND OBSERVATION",
    (
        Directive(
            name="loglevel",
            kind=Kind.ENUM,
            default="notice",
            choices=("debug", "verbose", "notice", "warning"),
            help="How much is logged: debug, verbose, notice or warning, from most to least.",
        ),
        Directive(
            name="logfile",
            kind=Kind.STRING,
            default="",
            immutable=True,
            help="The file that the log is written to. Empty is the standard output.",
        ),
        Directive(
            name="syslog-enabled",
            kind=Kind.BOOL,
            default="no",
            immutable=True,
            help="Write the log to the system's logger as well.",
        ),
        Directive(
            name="syslog-ident",
            kind=Kind.STRING,
            default="respkv",
            immutable=True,
            help="The name under which the system's logger lists this node.",
        ),
        Directive(
            name="slowlog-log-slower-than",
            kind=Kind.INTEGER,
            default="10000",
            minimum=-1,
            maximum=INT64_MAX,
            unit="microseconds",
            help="Commands whose clients wait longer are kept in SLOWLOG. Unlike in Redis, waiting for other nodes is part of it. "
            "Of plain GETs and SETs that were slow together the first few are kept; 0 keeps every other command; -1 keeps none. Lower it "
            "to see more.",
        ),
        Directive(
            name="slowlog-max-len",
            kind=Kind.INTEGER,
            default="128",
            maximum=1_000_000,
            unit="entries",
            help="How many entries SLOWLOG keeps. Raise it where entries are gone before somebody looks.",
        ),
        Directive(
            name="latency-monitor-threshold",
            kind=Kind.INTEGER,
            default="0",
            maximum=INT64_MAX,
            unit="milliseconds",
            help="Events that take this long are kept for LATENCY. 0 keeps none. Raise it to keep only the worst.",
        ),
        Directive(
            name="loop-lag-threshold",
            kind=Kind.INTEGER,
            default="50",
            minimum=1,
            maximum=60_000,
            unit="milliseconds",
            help="When this node's own turns come later than this, it counts itself slow: it asks no further replicas because others "
            "seem slow, and suspects others more patiently. Raise it on machines that are always busy.",
        ),
        Directive(
            name="shutdown-timeout",
            kind=Kind.INTEGER,
            default="10",
            maximum=INT_MAX,
            unit="seconds",
            help="How long SHUTDOWN, SIGTERM and SIGINT wait for commands that are under way. Raise it where requests are long.",
        ),
    ),
)

COMPATIBILITY = Group(
    "COMPATIBILITY",
    (
        Directive(
            name="databases",
            kind=Kind.INTEGER,
            default="1",
            minimum=1,
            maximum=1,
            immutable=True,
            help="Always 1, as in Redis Cluster.",
        ),
        Directive(
            name="daemonize",
            kind=Kind.ENUM,
            default="no",
            choices=("no",),
            immutable=True,
            help="Always no: a node runs in the foreground, under the supervisor of your choice.",
        ),
    ),
    introduction="Directives of Redis that have one value here, so that tools which ask for them, or give them, find it.",
)
