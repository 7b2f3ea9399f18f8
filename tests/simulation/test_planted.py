"""The checks find what they are there to find: bugs that exist in the simulator only."""

from __future__ import annotations

import pytest

from respkv.simulation.planted import BUGS, made_for
from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play

# A seed of each that shows it; `tools/simulate.py --planted` looks for the first ones.
SHOWN_BY = {
    "actor reused": 4,
    "added replica counts unfilled": 1,
    "clock not absorbed": 1,
    "cold taken for absent": 1,
    "hint lost": 2,
    "guest copy stays": 1,
    "rebuilt unjudged": 1,
    "refused yet done": 1,
    "repair assigns": 1,
    "replaced value comes back": 1,
    "replies overtake": 1,
    "sibling dropped by a merge": 1,
    "tombstone reaped by age": 1,
    "tree misses repairs": 1,
}


SEEDS_MAX = 12
"""What a seed does changes with every change of the node, so each bug may take a few."""


@pytest.mark.parametrize(("name", "seed"), SHOWN_BY.items())
def test_planted_bug_is_found(name: str, seed: int) -> None:
    bugs = BUGS[name]()
    for tried in range(seed, seed + SEEDS_MAX):
        scenario = made_for(draw(tried), bugs)
        if not play(scenario, bugs=bugs).passed:
            assert play(scenario).violations == []
            return
    pytest.fail(f"not found by seeds {seed} to {seed + SEEDS_MAX - 1}")
