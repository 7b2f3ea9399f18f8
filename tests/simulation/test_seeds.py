"""A round of seeds. One that fails is played again, event by event, by `python tools/simulate.py --seed N -v`."""

from __future__ import annotations

import pytest

from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play

ROUND = range(1, 31)


@pytest.mark.parametrize("seed", ROUND)
def test_seed(seed: int) -> None:
    verdict = play(draw(seed))
    assert verdict.violations == [], f"python tools/simulate.py --seed {seed} -v"


def test_a_seed_replays_identically() -> None:
    first, second = play(draw(5)), play(draw(5), keep_trace=True)
    assert first.digest == second.digest
    assert first.requests == second.requests
    assert second.trace
