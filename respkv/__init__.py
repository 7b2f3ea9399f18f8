"""A Redis-protocol server cluster that keeps its data the way Amazon's Dynamo does.

Imports go down only:

`cli`          the command line; `simulation`  the same node in a seeded world.
`server`       the shell (trio, sockets, disk) and the node that decides everything.
`commands`     one table of commands and their handlers.
`coordinator`  quorums, batches, per-key queues, read repair.
`repair`       hints and handoff.
`membership`   who is a member and who is away.
`storage`      commit log, memtable, tables.  `transport`  frames between nodes.
`resp`         the Redis protocol.  `versions`  clocks and records.  `placement`  slots and the ring.
`config`       directives.
`errors`, `ids`, `metrics`; `compilation`  the hot files compiled, for speed.
"""

from __future__ import annotations

__version__ = "0.1.0"
