"""The node, which decides everything, and the shells around it, which obey.

Pure; together they are the node:
`turns`     what goes into a turn and what comes out of it.
`node`      builds everything and runs a turn.
`session`   one client's connection: commands in, replies out, both in their order.
`dispatch`  from a command of the table to its handler, here or on another node, and back to a reply.
`transaction` the commands of one EXEC.
`admission` which clients are let in, and how they leave; `policy` small decisions that settings make about clients and peers.
`framing`   what a turn has for each peer, made into frames.
`peers`     what arrives from other nodes, section by section; `calls` what they may ask beside reads and writes.
`late_calls` what they have passed on and may have given up since.
`holds`     the places in which transactions that watch the same keys wait for each other.
`cluster`   the ring and the cluster-wide settings, and their way to the other nodes.
`topology`  who can be reached, and the routes that follow from it; `options` what settings make of membership.
`rows`      partitions read piece by piece, in the `hash_order` of their keys; `scans` answers KEYS, SCAN and the like from them.
`expiry`    records whose time has come lose their values, in memory and in the tables; `flush` what FLUSHALL took goes from memory.
`anti_entropy`  whom this node compares itself with, and when; `exchanges` how, by the `leaves` of its hash trees;
                `exchange_calls` what it answers then.
`reaping`   deletions go once all replicas have them.
`background`  where such work gives way to clients.
`copying`   partitions on their way between replicas; `rebuild` what a node does that lacks data: it copies before it counts.
`downtime`  who has been away for so long that it is rebuilt when it returns.
`resizing`  this node's part in a change of the replication factor, stage by stage.
`restore`   from a commit log and tables to a store, a hint book and a clock.
`pressure`  no more writes while the disk has no room for them, or takes too long.
`pulse`     figures about the node, published once a second.

Shells; they know trio, sockets and files:
`main`      a node as a process; `start` reads its directory back and builds it.
`reactor`   all sockets in one epoll object, served in turns; `channels` a class for each kind of socket; `links` dials the peers.
`disk`      carries out what a turn wants of log and tables.
`housekeeping` facts for INFO, idle clients, strangers; `journal` the log file; `config_file` the file that CONFIG REWRITE rewrites.
"""
