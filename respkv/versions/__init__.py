"""Which of two copies is the newer one, and how copies merge. Pure.

`clock` is the hybrid logical clock that stamps writes.
`records` is the byte format of a stored record, chosen so that merging plain ones is `max`.
`policy` tells which keys keep siblings and of which the last write wins.
`vectors` merges all of them: dotted version vector sets keep what was written concurrently.
"""
