"""Carry a command's reads and writes to the replicas of its keys, and decide when enough have answered. Pure.

`quorum` words the two errors that tell the truth about a quorum that was not met.
`routes` draws, from the ring and from who is up, where the reads and writes of each partition go.
`batches` are the reads and writes of one turn that go to the same replicas, and their tallies.
`reads` and `writes` ask the replicas, count the answers and decide.
`read_repairs` sends what the answers of a read show to be stale the newer records, and lets readers wait for it.
`coordinator` ties them together: the short way of GET and SET, and the deadlines.
`recent_writes` tells how long this node has held what is young.
`succession` makes the new records of keys that keep siblings.
`compensation` sends what a replica did not take to a fallback, or keeps it as a hint.
`replica` is the other end: it carries out what another node's coordinator asks.
`operations` runs commands that need several rounds: a generator that yields reads and writes.
`key_queue` lets read-then-write commands on one key wait for each other.
"""
