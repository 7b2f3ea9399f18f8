"""The command line: `respkv server`, `up`, `status`, `key`, `repair`, `compile`, `version`.

`entry` is where a process starts: `server` goes straight to the server, the rest to `app`.
`app` declares the commands, their options and their help.
`connection` reaches one node with redis-py and says why it could not.
`status` shows the cluster as one node sees it; `key` shows where a key lives and what its replicas hold; `repair` compares replicas.
`compilation` has the hot files compiled and says how that went.
`units` writes bytes, counts, shares and durations for people; `output` prints lines and tables.
`up` runs a local cluster. Its parts: `directives` sorts the directives out of its arguments, `local_cluster` is the
cluster's folder, `processes` starts and ends nodes, `readiness` asks whether all agree, `restarts` is the back-off.
"""
