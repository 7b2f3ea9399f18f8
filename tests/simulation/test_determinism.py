"""A seed means the same everywhere: nothing in a node depends on the order of sets, which the interpreter shuffles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play

ROOT = Path(__file__).parent.parent.parent
SEEDS = (6, 12)
PROGRAM = """
from respkv.simulation.scenario import draw
from respkv.simulation.verdict import play
print(*(play(draw(seed)).digest for seed in {seeds}))
"""


def test_a_seed_replays_identically_also_with_other_hashes_and_with_a_reader() -> None:
    digests = [str(play(draw(seed), keep_trace=True).digest) for seed in SEEDS]
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(seeds=SEEDS)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == digests
