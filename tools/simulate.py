"""Play seeds of the simulator: random clients against a cluster in which everything goes wrong, then healing, then checks.

python tools/simulate.py --seeds 1:200          # seeds 1 to 199
python tools/simulate.py --seed 81273 -v        # one seed, with the last events
python tools/simulate.py --seeds 1:200 --with operators  # with what few seeds have
python tools/simulate.py --planted              # bugs that exist in the simulator only: are they found?
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from respkv.simulation.planted import BUGS, made_for
from respkv.simulation.scenario import RARE, Scenario, draw
from respkv.simulation.verdict import Verdict, play

VIOLATION_CHARACTERS_MAX = 2000
TRACE_LINES = 150
PLANTED_SEEDS_MAX = 120


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be otherwise than seeds say."""

    nodes: int | None = None
    forced: tuple[str, ...] = ()

    def draw(self, seed: int) -> Scenario:
        """What a seed means now."""
        return draw(seed, nodes=self.nodes, forced=self.forced)

    def words(self) -> str:
        """The same on the command line."""
        return "".join((f" --nodes {self.nodes}" if self.nodes else "", *(f" --with '{name}'" for name in self.forced)))


def seed_range(text: str) -> range:
    """`A:B` is A to B - 1; `N` is N alone."""
    first, colon, last = text.partition(":")
    return range(int(first), int(last)) if colon else range(int(first), int(first) + 1)


def play_seed(seed: int, wish: Wish) -> tuple[Verdict, float]:
    """Play one seed; the verdict and how many seconds of a processor that took."""
    started = time.process_time()
    verdict = play(wish.draw(seed))
    return verdict, time.process_time() - started


def play_all(seeds: Iterable[int], *, wish: Wish, processes: int) -> Iterator[tuple[Verdict, float]]:
    """Play many seeds, several at a time; verdicts come in the order of the seeds."""
    if processes <= 1:
        for seed in seeds:
            yield play_seed(seed, wish)
        return
    with ProcessPoolExecutor(processes) as pool:
        todo = list(seeds)
        yield from pool.map(play_seed, todo, [wish] * len(todo), chunksize=2)


def line_of(verdict: Verdict, seconds: float) -> str:
    """One seed in a line."""
    rate = verdict.virtual_s / max(seconds, 1e-6)
    word = "ok    " if verdict.passed else "FAILED"
    figures = f"{verdict.virtual_s:5.1f} virtual s, {rate:4.0f} per s, {verdict.requests:5d} requests"
    return f"seed {verdict.scenario.seed:<7d} {word} {figures}  {verdict.scenario.title()}"


def tell_failure(verdict: Verdict, wish: Wish) -> None:
    """What was violated, and how to see it again."""
    for violation in verdict.violations:
        print("   ", violation[-VIOLATION_CHARACTERS_MAX:].replace("\n", "\n    "))
    print(f"    python tools/simulate.py --seed {verdict.scenario.seed}{wish.words()} -v", flush=True)


def run_seeds(seeds: Iterable[int], *, wish: Wish, processes: int, verbose: bool) -> int:
    """Play seeds and sum up. The exit code: whether any failed."""
    started = time.perf_counter()
    count = failed = 0
    virtual_s = processor_s = 0.0
    for verdict, seconds in play_all(seeds, wish=wish, processes=processes):
        count += 1
        virtual_s += verdict.virtual_s
        processor_s += seconds
        if verbose or not verdict.passed or sys.stdout.isatty():
            print(line_of(verdict, seconds), flush=True)
        if not verdict.passed:
            failed += 1
            tell_failure(verdict, wish)
    real_s = time.perf_counter() - started
    speed = f"{processor_s / max(count, 1):.2f} s of a processor each, {virtual_s / real_s:.0f} virtual seconds per second"
    print(f"{count} seeds in {real_s:.0f} s, {failed} failed ({speed})")
    return int(failed > 0)


def run_one(seed: int, *, wish: Wish, verbose: bool) -> int:
    """Play one seed, twice: a failure that does not come again would be worth nothing."""
    started = time.perf_counter()
    verdict = play(wish.draw(seed), keep_trace=True)
    seconds = time.perf_counter() - started
    if verbose:
        print("\n".join(verdict.trace[-TRACE_LINES:]))
    print(line_of(verdict, seconds))
    if not verdict.passed:
        tell_failure(verdict, wish)
    again = play(wish.draw(seed))
    if (again.digest, again.violations) != (verdict.digest, verdict.violations):
        print("the seed did not replay identically: something depends on more than the seed")
        return 1
    return int(not verdict.passed)


def run_planted(*, processes: int) -> int:
    """Print which planted bugs are found, and within how many seeds. The exit code: whether any was not."""
    names = sorted(BUGS)
    missed = 0
    print(f"{'planted bug':<28}{'found by seed':<15}{'what was seen'}")
    with ProcessPoolExecutor(processes) as pool:
        for name, (count, seed, seen) in zip(names, pool.map(hunt, names), strict=True):
            missed += seed is None
            found = "not found" if seed is None else f"{seed} (of {count})"
            print(f"{name:<28}{found:<15}{seen[:100]}", flush=True)
    print(f"{len(names) - missed} of {len(names)} planted bugs found")
    return int(missed > 0)


def hunt(name: str) -> tuple[int, int | None, str]:
    """Play seeds with a bug until one fails: (how many were played, which failed, the first violation)."""
    bug = BUGS[name]
    for count, seed in enumerate(range(1, PLANTED_SEEDS_MAX + 1), 1):
        bugs = bug()
        scenario = made_for(draw(seed), bugs)
        verdict = play(scenario, bugs=bugs)
        if not verdict.passed and play(scenario).passed:
            return count, seed, verdict.violations[0].strip().splitlines()[-1]
    return PLANTED_SEEDS_MAX, None, ""


def main(arguments: list[str]) -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Play seeds of the simulator.")
    parser.add_argument("--seeds", type=seed_range, default=range(1, 41), metavar="A:B", help="play seeds A to B - 1 (default: 1:41)")
    parser.add_argument("--seed", type=int, metavar="N", help="play one seed, twice, and compare")
    parser.add_argument("--nodes", type=int, choices=range(1, 10), metavar="N", help="so many nodes instead of what the seed says")
    parser.add_argument("--with", dest="forced", action="append", default=[], choices=RARE, help="give every seed what few have")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="so many processes at a time")
    parser.add_argument("--planted", action="store_true", help="look for the planted bugs")
    parser.add_argument("-v", "--verbose", action="store_true", help="every seed in a line; with --seed the last events")
    options = parser.parse_args(arguments)
    if options.planted:
        return run_planted(processes=options.processes)
    wish = Wish(options.nodes, tuple(options.forced))
    if options.seed is not None:
        return run_one(options.seed, wish=wish, verbose=options.verbose)
    return run_seeds(options.seeds, wish=wish, processes=options.processes, verbose=options.verbose)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
