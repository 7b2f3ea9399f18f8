"""What the server can be told. One table, and the handlers beside it. Pure.

`table` declares a command: name, arity, flags, key positions, group, since, summary, and where it runs.
`context` is what a handler may use.
`registry` imports all modules with handlers:
`strings`, `counters`, `keys`, `keyspace`, `connection`, `clients`, `transactions`, `server`, `cluster`, ... hold them.
`expiry` reads when keys are to expire; `lookup` what a record means to a command.
"""
