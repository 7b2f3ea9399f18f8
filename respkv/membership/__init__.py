"""Who belongs to the cluster, who is away, and what each says about itself. Pure: time and dice are arguments.

`members`    one record per node: address, incarnation, heartbeat, application state.
`options`    what an operator may tune, and presets of it.
`messages`   what travels between nodes: shapes, bounds, encoding.
`reconcile`  Scuttlebutt: compare a digest with the table, send and absorb what is newer.
`detector`   phi-accrual over arrivals, and the other evidence for and against a peer.
`liveness`   the state of each peer: evidence in, verdicts and changes out.
`clocks`     how far this node's clock is from the median of its peers'.
`views`      frozen copies for status, INFO and the log.
`gossip`     `Membership`, the machine that ties them together.
"""
