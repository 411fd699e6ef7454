"""Times many models side by side: CPU time of one thread, as ratios to the original.

In each round every variant runs once and the original twice on the same sample, in one shuffled
order; so drift, frequency, caches and neighbours hit all alike. Rounds come in bouts, for each of
which every model is loaded anew: where its weights happen to lie in memory changes the time of a
small model by up to 7 %, for as long as it is loaded.
"""

import gc
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression import runtime, samples

LEAST_CHUNK_S = 0.001
CHUNKS, FEW_CHUNKS = 4, 2
"""Timed runs of a variant in one round (fewer of a slow model); the quickest counts. What others
on the machine take from caches only ever adds: on two busy cores the means of the same model were
12 % apart."""
BOUTS = 6
_MOST_REPEATS = 200
_RESAMPLED = 1000


@dataclass(frozen=True)
class Race:
    """CPU milliseconds of one run: rounds of each variant, and the original's two as a mean."""

    variants: Mapping[str, NDArray[np.float64]]
    original: NDArray[np.float64]

    def ratio(self, name: str, to: str | None = None) -> tuple[float, float, float]:
        """The median ratio of a variant to another (None: the original), 95 % by bootstrap.

        Whole bouts are drawn, then rounds of each.
        """
        below = self.original if to is None else self.variants[to]
        ratios = self.variants[name] / below
        rng = np.random.default_rng(0)
        bouts = np.array_split(np.arange(len(ratios)), min(BOUTS, len(ratios)))
        medians = []
        for _ in range(_RESAMPLED):
            picked = [bouts[at] for at in rng.integers(0, len(bouts), len(bouts))]
            drawn = [rng.choice(bout, len(bout)) for bout in picked]
            medians.append(np.median(ratios[np.concatenate(drawn)]))
        low, high = np.quantile(medians, (0.025, 0.975))
        return float(np.median(ratios)), float(low), float(high)


def run(
    original: Path, variants: Mapping[str, Path], inputs: samples.Samples, *, rounds: int
) -> Race:
    """Run `rounds` rounds over samples in a seeded order; sessions have one thread each."""
    rng = random.Random(0)
    order = rng.sample(range(len(inputs)), len(inputs))
    taken: dict[str, list[float]] = {name: [] for name in variants}
    around: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for bout in np.array_split(np.arange(rounds), min(BOUTS, rounds)):
            loaded = _load({**variants, None: original}, rng)
            repeats = _repeats(loaded[None], inputs.sample(order[0]))
            for at in bout:
                feeds = inputs.sample(order[at % len(order)])
                twice = []
                runners = [*loaded, None]
                for name in rng.sample(runners, len(runners)):
                    mine = twice if name is None else taken[name]
                    mine.append(_segment(loaded[name], feeds, repeats))
                around.append(sum(twice) / 2)
            del loaded
    finally:
        gc.enable()
    return Race({name: np.array(each) for name, each in taken.items()}, np.array(around))


def _load(paths: Mapping[str | None, Path], rng: random.Random) -> dict[str | None, Any]:
    names = list(paths)
    return {name: runtime.session(paths[name]) for name in rng.sample(names, len(names))}


def _repeats(session: Any, feeds: samples.Arrays) -> int:
    session.run(None, feeds)
    began = time.perf_counter()
    session.run(None, feeds)
    once_s = time.perf_counter() - began
    return max(1, min(_MOST_REPEATS, round(LEAST_CHUNK_S / max(once_s, 1e-6))))


def _segment(session: Any, feeds: samples.Arrays, repeats: int) -> float:
    """CPU milliseconds of one run; the first is not counted: it finds its weights out of cache."""
    session.run(None, feeds)
    taken = []
    for _ in range(CHUNKS if repeats > 1 else FEW_CHUNKS):
        began = time.process_time_ns()
        for _ in range(repeats):
            session.run(None, feeds)
        taken.append(time.process_time_ns() - began)
    return min(taken) / repeats / 1e6
