"""Directives about replicas that missed something: how they are brought together again, and when deletions are forgotten."""

from __future__ import annotations

from respkv.config.directive import INT_MAX, Directive, Group, Kind, Scope

REPAIR = Group(
    "ANTI-ENTROPY",
    (
        Directive(
            name="anti-entropy-interval",
            kind=Kind.INTEGER,
            default="60",
            maximum=INT_MAX,
            unit="seconds",
            scope=Scope.CLUSTER,
            help="How often two replicas compare their hash trees, and give each other the records that differ. Where nothing differs "
            "that costs a message of a few bytes. 0 compares only when RESPKV REPAIR asks for it. Lower it to find sooner what hints "
            "and reads did not repair.",
        ),
        Directive(
            name="tombstone-grace",
            kind=Kind.INTEGER,
            default="60",
            minimum=1,
            maximum=INT_MAX,
            unit="seconds",
            scope=Scope.CLUSTER,
            help="For how long a deletion, or what is left of an expired value, is kept at least. It is dropped once all replicas have "
            "it, no node holds a hint or a copy for another one, and all nodes have been up for as long as this: never by age alone. "
            "Raise it where nodes stall for long.",
        ),
    ),
    introduction="These belong to the cluster as well. While any node has clients, records are compared and sent at handoff-rate-min, and "
    "faster, up to handoff-rate-max, as long as no more than one request in a hundred takes longer than usual; without clients at "
    "handoff-rate-max.",
)
