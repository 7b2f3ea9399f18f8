"""What an operator can set: one table, and everything that reads, checks, shows and writes it. Pure.

`directive` is the form of an entry; `client_directives`, `cluster_directives`, `version_directives`, `repair_directives` and
`node_directives` hold the entries;
`directives` is the table made of them. `values` turns an argument into a value and back.
`settings` holds the values of a node. `changes` is CONFIG SET: all of it or nothing.
`quorums` is the arithmetic of N, R, W, PR and PW, `replication` while N changes; `checks` names the combinations that are impossible.
`cluster_value` is the versioned value that all nodes share; `founders` reads the addresses of `cluster-nodes`.
`conf_lines` is the syntax of redis.conf; `start` reads the file and the command line; `rewrite` is CONFIG REWRITE;
`reference` writes conf/respkv.conf.
"""
