"""Bringing copies back together, off the hot path. Pure.

`hints` are the rows that say which owner lacks which key.
`handoff` pays them back to their owners.
`exchange` compares two replicas by their hash trees and names the keys that differ.
`remains` says what of the past may go once all replicas have it.
`pace` says how fast all this may go without clients noticing.
`confirmation` knows how far back the log is confirmed by the other replicas.
"""
