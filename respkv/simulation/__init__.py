"""The same node under a seeded world: virtual time, a network that breaks, disks that forget, clocks that lie.

`schedule`  virtual time: what happens next, and the trace by which two runs are compared.
`network`   links between nodes: streams that are delayed, cut, reset and dialled again.
`disk`      a node's log, tables and small files, of which a crash leaves what was durable.
`process`   the shell of one node: its mail, its turns, its connections; it starts, stops and dies.
`world`     all of it together, as a scenario says.
`scenario`  what a seed means: the cluster's size and settings, the faults, the load.
`faults`    what goes wrong, and when it is healed.
`workload`  the commands that clients send.
`clients`   connections that send them and note what was answered.
`history`   what was asked and answered, and what may be concluded from it.
`checks`    what must be true afterwards: `copies` of what nodes hold, `promises` of what clients were told,
            `sibling_promises` of keys that keep siblings.
`verdict`   one run of a seed: play it, heal it, check it.
`planted`   bugs that exist in here only, to see that they are found: the table; what a `bug` is; `bugs_of_copies`,
            `bugs_of_quorums`, `bugs_of_repair`, `bugs_of_resizing`, `bugs_of_siblings` and `bugs_of_storage` are the bugs themselves.
"""
