"""What a node holds, in memory and on disk.

`store`         the records in memory: shards, and what is not yet in tables. Pure.
`freeze`        the part of memory that is being written to the tables. Pure.
`hash_trees`    what two nodes compare instead of their records; kept current by every write. Pure.
`parking`       requests whose keys are not in memory, in their order, until the tables have told. Pure.
`log`           the commit log: append, sync, rotate, drop.
`log_format`    the bytes of its segments, records and mark. Pure.
`log_recovery`  reads it back: the torn tail is cut, damage is named.
`mark`          up to where the log is durable, so that damage is told from a torn tail.
`tables`        the sorted tables (RocksDB through rocksdict) behind a few methods.
`tables_salvage`  copies what can be read of damaged tables.
`directory`     what is where, the lock, and how all of it is read back at a start.
`files`         small files written atomically, the lock of a directory, free space.
"""
