"""A round of seeds. One that fails is played again, event by event, by `python tools/simulate.py --seed N -v`."""

from __future__ import annotations

import pytest

from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play

ROUND = range(1, 25)


@pytest.mark.parametrize("seed", ROUND)
def test_seed(seed: int) -> None:
    verdict = play(draw(seed))
    assert verdict.violations == [], f"python tools/simulate.py --seed {seed} -v"
