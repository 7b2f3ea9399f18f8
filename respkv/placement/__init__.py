"""Which nodes keep a key. Pure.

`slots` maps a key to its slot, as Redis Cluster does, and a slot to its partition.
`ring` is the ring as a value: epoch, members, owner of every partition, preference lists.
`claim` shares the partitions out among the founding members.
"""
