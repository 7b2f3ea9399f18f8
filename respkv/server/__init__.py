"""The node, which decides everything, and the shells around it, which obey.

Pure; together they are the node:
`turns`     what goes into a turn and what comes out of it.
`node`      builds everything and runs a turn.
`session`   one client's connection: commands in, replies out, both in their order.
`dispatch`  from a command of the table to its handler, here or on another node, and back to a reply.
`transaction` the commands of one EXEC.
`peers`     what arrives from other nodes, section by section.
`cluster`   the ring and the cluster-wide settings, and their way to the other nodes.
`restore`   from a commit log and tables to a store, a hint book and a clock.
`policy`    small decisions that settings make about clients and peers.
"""
