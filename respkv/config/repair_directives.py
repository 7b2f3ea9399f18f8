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
    ),
    introduction="These belong to the cluster as well. Records are sent at the rates of handoff-rate-min and handoff-rate-max, and "
    "slower as soon as clients wait longer than usual.",
)
