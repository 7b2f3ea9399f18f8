"""Directives about clients: where they connect, who may, and how much each may ask for."""

from __future__ import annotations

from respkv.config.directive import INT_MAX, UINT_MAX, Directive, Group, Kind

NETWORK = Group(
    "NETWORK",
    (
        Directive(
            name="bind",
            kind=Kind.LIST,
            default="127.0.0.1",
            minimum=1,
            maximum=16,
            immutable=True,
            help="The addresses to listen on, for clients and for other nodes. A `-` before an address means that it may be missing; "
            "`*` is every IPv4 address of the machine and `::*` every IPv6 address. The first one is announced to other nodes and "
            "clients unless cluster-announce-ip says otherwise, and it is the address that the node dials from.\n\n"
            "A node that listens beyond the loopback interface needs a cluster-secret, or it refuses to start.",
        ),
        Directive(
            name="port",
            kind=Kind.INTEGER,
            default="6379",
            maximum=65535,
            immutable=True,
            help="The port for clients. 0 lets the system choose a free one, which the log then names.",
        ),
        Directive(
            name="tcp-backlog",
            kind=Kind.INTEGER,
            default="511",
            minimum=1,
            maximum=INT_MAX,
            unit="connections",
            immutable=True,
            help="How many connections may wait to be accepted. Raise it, with net.core.somaxconn, where many clients connect at the "
            "same moment.",
        ),
        Directive(
            name="tcp-keepalive",
            kind=Kind.INTEGER,
            default="300",
            maximum=INT_MAX,
            unit="seconds",
            help="Ask the system to probe connections that are silent for this long, so that dead clients are found. 0 does not probe. "
            "Lower it where a firewall forgets silent connections sooner.",
        ),
        Directive(
            name="timeout",
            kind=Kind.INTEGER,
            default="0",
            maximum=INT_MAX,
            unit="seconds",
            help="Close the connection of a client that sent nothing for this long. 0 never does. Lower it where clients leak connections.",
        ),
        Directive(
            name="maxclients",
            kind=Kind.INTEGER,
            default="10000",
            minimum=1,
            maximum=UINT_MAX,
            unit="connections",
            help="How many clients may be connected at once; further ones hear `max number of clients reached`. At the start it is "
            "lowered to what the limit on open files leaves after the node's own needs. Raise it together with that limit.",
        ),
    ),
)

CLIENT_LIMITS = Group(
    "LIMITS FOR CLIENTS",
    (
        Directive(
            name="proto-max-bulk-len",
            kind=Kind.MEMORY,
            default="64mb",
            minimum=1024**2,
            maximum=512 * 1024**2,
            unit="bytes",
            help="The longest argument of a command, and the longest value that APPEND and SETRANGE may build. Redis allows 512mb; a "
            "value here travels to every replica and passes through one process each, so the default is smaller. Give all nodes "
            "the same. Raise it only with peer-queue-limit and client-query-buffer-limit.",
        ),
        Directive(
            name="proto-max-multibulk-len",
            kind=Kind.INTEGER,
            default="1048576",
            minimum=16,
            maximum=INT_MAX,
            unit="arguments",
            help="The largest number of arguments of a command. Raise it for very long MSET or DEL; cutting them in pieces is the "
            "better answer.",
        ),
        Directive(
            name="client-query-buffer-limit",
            kind=Kind.MEMORY,
            default="256mb",
            minimum=1024**2,
            unit="bytes",
            help="How much of one client's input may wait: the command that it is still sending, and the commands that MULTI queued. "
            "Above it the client is closed. Raise it where single commands or transactions are bigger.",
        ),
        Directive(
            name="client-output-buffer-limit",
            kind=Kind.BUFFER_LIMITS,
            default="normal 256mb 64mb 60 slave 256mb 64mb 60 pubsub 32mb 8mb 60",
            unit="class, hard limit in bytes, soft limit in bytes, seconds",
            help="How many bytes of replies may wait for one client that does not read them. It is closed at once above the hard limit, "
            "and when it was above the soft limit for that many seconds; 0 is no limit. Redis sets no limit for normal clients. A "
            "pipeline that is sent whole before its replies are read needs a hard limit above the sum of its replies.\n\n"
            "The classes `slave` (or `replica`) and `pubsub` are accepted as in Redis; clients of these classes do not occur yet.",
        ),
        Directive(
            name="maxmemory-clients",
            kind=Kind.MEMORY,
            default="1gb",
            unit="bytes",
            help="How much memory the waiting input and the unsent replies of all clients may take together. Above it the client that "
            "takes most is closed. 0 is no limit. Raise it where many clients with long pipelines are normal.",
        ),
        Directive(
            name="client-in-flight-max",
            kind=Kind.INTEGER,
            default="256",
            minimum=1,
            maximum=1_000_000,
            unit="commands",
            help="A connection is read no further while this many of its commands wait for their quorum; it begins with fewer, and stays "
            "with few while its replies are big. Raise it where few clients with deep pipelines talk to far nodes; lower it to share "
            "a busy node more evenly.",
        ),
        Directive(
            name="coordinator-in-flight-max",
            kind=Kind.INTEGER,
            default="100000",
            minimum=100,
            maximum=100_000_000,
            unit="commands",
            help="How many commands of all clients may wait for their quorum on this node; further ones are refused with -BUSY before "
            "any effect. Raise it where memory allows longer queues, lower it to refuse earlier.",
        ),
        Directive(
            name="turn-commands-max",
            kind=Kind.INTEGER,
            default="512",
            minimum=16,
            maximum=1_000_000,
            unit="commands",
            help="How many commands of one connection are carried out before the next connection has its turn. Raise it for throughput "
            "of deep pipelines, lower it for even latency.",
        ),
        Directive(
            name="turn-bytes-max",
            kind=Kind.MEMORY,
            default="256kb",
            minimum=4096,
            maximum=64 * 1024**2,
            unit="bytes",
            help="How many bytes of one client or one node are read in one turn. Raise it for throughput of big values, lower it for "
            "even latency.",
        ),
        Directive(
            name="scan-scope",
            kind=Kind.ENUM,
            default="cluster",
            choices=("cluster", "primary"),
            help="Whose keys DBSIZE, SCAN, KEYS, RANDOMKEY and FLUSHALL speak for. `cluster`: the whole cluster's, whichever node is "
            "asked. `primary`: those of the partitions for which CLUSTER SLOTS names the node that is asked, for cluster-aware "
            "clients that ask every node and add up the answers.",
        ),
    ),
)

SECURITY = Group(
    "SECURITY",
    (
        Directive(
            name="protected-mode",
            kind=Kind.BOOL,
            default="yes",
            help="While no password is set, refuse clients that do not come from the loopback interface.",
        ),
        Directive(
            name="requirepass",
            kind=Kind.STRING,
            default="",
            sensitive=True,
            help="The password that clients have to give with AUTH or HELLO. Empty asks for none. It belongs to the node: set the same "
            "on all of them.",
        ),
        Directive(
            name="enable-protected-configs",
            kind=Kind.ENUM,
            default="no",
            choices=("no", "yes", "local"),
            immutable=True,
            help="Whether CONFIG SET may change protected directives: `local` lets clients do so that come from the loopback interface. "
            "As `dir`, the one protected directive, can only be given at the start, this decides no more than which refusal a "
            "client hears.",
        ),
        Directive(
            name="unauthenticated-timeout",
            kind=Kind.INTEGER,
            default="60",
            maximum=INT_MAX,
            unit="seconds",
            help="While a password is set: close a connection that has not given it for this long. 0 waits for ever. Lower it where "
            "strangers reach the port.",
        ),
        Directive(
            name="unauthenticated-multibulk-max",
            kind=Kind.INTEGER,
            default="10",
            minimum=3,
            maximum=INT_MAX,
            unit="arguments",
            help="The largest number of arguments of a command before the password is given. Raise it only for clients that send a "
            "longer HELLO.",
        ),
        Directive(
            name="unauthenticated-bulk-max",
            kind=Kind.MEMORY,
            default="16kb",
            minimum=64,
            unit="bytes",
            help="The longest argument before the password is given. Raise it only where passwords are longer.",
        ),
        Directive(
            name="unauthenticated-query-buffer-limit",
            kind=Kind.MEMORY,
            default="1mb",
            minimum=1024,
            unit="bytes",
            help="How much input may wait before the password is given. Above it the connection is closed. Raise it for clients that "
            "send AUTH and a long pipeline in one piece.",
        ),
        Directive(
            name="unauthenticated-output-buffer-limit",
            kind=Kind.MEMORY,
            default="1kb",
            minimum=64,
            unit="bytes",
            help="How many bytes of replies may wait unread before the password is given, beyond the first 16 KB, as in Redis. Above it "
            "the connection is closed. What the client's own kernel has taken does not count. Raise it only for clients that send "
            "many commands before they read the first refusal.",
        ),
    ),
)
