"""What the server can be told. One table, and the handlers beside it. Pure.

`table` declares a command: name, arity, flags, key positions, group, since, summary, and where it runs.
`context` is what a handler may use.
`registry` imports all modules of handlers:
`strings`, `counters`, `keys`, `transactions`; `keyspace` for commands on all keys;
`connection`, and `clients` for CLIENT; `configuration` for CONFIG, `command_info` for COMMAND;
`info`, with `info_respkv` for the sections of our own; `slowlog`, `latency`, `memory` (and OBJECT); `server` for the rest of its kind;
`cluster`; `respkv_commands`, `sibling_commands` for concurrent values and `repair`, for what Redis has no words for.

What they share:
`values` writes new values, and `causality` is what a connection has read before.
`expiry` reads when keys are to expire; `lookup` what a record means to a command.
`partition_walk` asks the whole cluster about its keys; `slot_map` says who is shown as the master of which slots.
`published` is what each node tells all others about itself.
`syntax` and `tips` are what COMMAND says beyond the table; `help_text` is the form of what HELP answers.
"""
