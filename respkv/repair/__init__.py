"""Bringing copies back together, off the hot path. Pure.

`hints` are the rows that say which owner lacks which key.
`handoff` pays them back to their owners.
`confirmation` knows how far back the log is confirmed by the other replicas.
"""
