"""The checks find what they are there to find: bugs that exist in the simulator only."""

from __future__ import annotations

import pytest

from respkv.simulation.planted import BUGS, made_for
from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play

# A seed of each that shows it; `tools/simulate.py --planted` looks for the first ones.
SHOWN_BY = {
    "clock not absorbed": 1,
    "cold taken for absent": 1,
    "hint lost": 2,
    "guest copy stays": 1,
    "newer version ignored": 4,
    "refused yet done": 1,
    "repair assigns": 1,
    "replies overtake": 1,
    "tie broken by place": 2,
    "write answered early": 1,
}


@pytest.mark.parametrize(("name", "seed"), SHOWN_BY.items())
def test_planted_bug_is_found(name: str, seed: int) -> None:
    bugs = BUGS[name]()
    scenario = made_for(draw(seed), bugs)
    assert not play(scenario, bugs=bugs).passed
    assert play(scenario).violations == []
