"""What the server can be told. One table, and the handlers beside it. Pure.

`table` declares a command: name, arity, flags, key positions, group, since, summary, and where it runs.
`context` is what a handler may use.
`strings`, `counters`, `keys`, `keyspace`, `connection`, `transactions`, `server`, `cluster`, ... hold the handlers.
"""
