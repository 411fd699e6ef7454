"""Which option of each part costs least error within a time and a size: dynamic programming (pure).

Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022, section 3.1: time
is discretised, and the least error is kept for each time that may be spent. There each layer stands
alone; here what a layer costs may hang on two choices (how wide what it reads is, and what it
makes), so that the table has a row for each choice that later terms still ask about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compression.choosing import frontier

Floats = NDArray[np.float64]
BUCKETS = 1000
"""Steps of time. Each part is rounded up to them, so that no answer is over its bound."""
_HALVINGS = 24
_AGAIN = 6
"""How often a bound is drawn in, where the table had to leave something out."""
_LEAST_PRICE = 1e-12
_TINY = 1e-9
_NEARLY = 1 / 32


@dataclass(frozen=True)
class Part:
    """One choice: the error, the time and the size of each option, float64 [options] each."""

    error: Floats
    time: Floats
    size: Floats


@dataclass(frozen=True)
class Pair:
    """What two parts cost together: time and size, float64 [options of a, options of b]."""

    time: Floats
    size: Floats


@dataclass(frozen=True)
class Problem:
    """Parts in the order of the graph, and pairs of them by (a, b), a < b. All is finite."""

    parts: tuple[Part, ...]
    pairs: Mapping[tuple[int, int], Pair] = field(default_factory=dict)

    def cost(self, options: Sequence[int]) -> "Selection":
        """What one option of each part costs."""
        error, time, size = (
            sum(
                float(getattr(part, what)[at]) for part, at in zip(self.parts, options, strict=True)
            )
            for what in ("error", "time", "size")
        )
        for (a, b), pair in self.pairs.items():
            time += float(pair.time[options[a], options[b]])
            size += float(pair.size[options[a], options[b]])
        return Selection(tuple(options), error, time, size)


@dataclass(frozen=True)
class Selection:
    """An option of each part, and what they cost together."""

    options: tuple[int, ...]
    error: float
    time: float
    size: float


def cheapest(
    problem: Problem, *, time: float, size: float = float("inf"), buckets: int = BUCKETS
) -> Selection | None:
    """Return the options of least error within both bounds, or None where there are none.

    Within a time alone it is the best to a step of time for each part. The size enters by a
    multiplier: what is returned then has the least error of all that are at most as large as it is
    itself, and a better one may lie between it and the bound.
    """
    found = _within_time(problem, time, price=0.0, buckets=buckets)
    if found is None or found.size <= size:
        return found
    low, high = _prices(problem)
    smallest = _within_time(problem, time, price=high, buckets=buckets)
    if smallest is None or smallest.size > size:
        smallest = _within_time(problem, time, price=high, buckets=buckets, errors=0.0)
    if smallest is None or smallest.size > size:
        return None
    best = smallest
    for _ in range(_HALVINGS):
        price = (low * high) ** 0.5
        found = _within_time(problem, time, price=price, buckets=buckets)
        if found is None or found.size > size:
            low = price
            continue
        high = price
        if (found.error, found.size) < (best.error, best.size):
            best = found
        if high / low < 1.01:
            break
    return best


def fastest(
    problem: Problem, *, over: float, within: float, size: float = float("inf")
) -> Selection | None:
    """Return options that take about the least time there is, or None where even `within` none do.

    `over` is a time in which nothing is possible. What is returned takes at most `_NEARLY` of the
    difference more than the least.
    """
    best = cheapest(problem, time=within, size=size)
    low, apart = over, _NEARLY * (within - over)
    while best is not None and best.time - low > apart:
        between = (low + best.time) / 2
        found = cheapest(problem, time=between, size=size)
        low, best = (low, found) if found is not None else (between, best)
    return best


def front(
    problem: Problem, *, times: Sequence[float], size: float = float("inf"), buckets: int = BUCKETS
) -> tuple[Selection, ...]:
    """Return the cheapest for each of several times, without repeats and what another beats."""
    found: list[Selection] = []
    for time in sorted(times, reverse=True):
        one = cheapest(problem, time=time, size=size, buckets=buckets)
        if one is not None and one.options not in [other.options for other in found]:
            found.append(one)
    return tuple(one for one in found if not any(_beats(other, one) for other in found))


def _beats(a: Selection, b: Selection) -> bool:
    ours, theirs = (a.error, a.time, a.size), (b.error, b.time, b.size)
    return all(x <= y for x, y in zip(ours, theirs, strict=True)) and ours != theirs


def _prices(problem: Problem) -> tuple[float, float]:
    """Multipliers of size between which every trade lies: errors per size."""
    errors = sum(float(np.ptp(part.error)) for part in problem.parts)
    sizes = [part.size for part in problem.parts] + [pair.size for pair in problem.pairs.values()]
    widest = max(sum(float(np.ptp(one)) for one in sizes), _LEAST_PRICE)
    steps = [float(step) for one in sizes for step in np.diff(np.unique(one))]
    finest = max(min(steps, default=widest), widest * 1e-9)
    least = max(errors, _LEAST_PRICE) * 1e-6 / widest
    return least, max(errors, _LEAST_PRICE) * 4 / finest


def _within_time(
    problem: Problem, time: float, *, price: float, buckets: int, errors: float = 1.0
) -> Selection | None:
    """The least errors x error + price x size within a time."""
    terms = [errors * part.error + price * part.size for part in problem.parts]
    costs = {key: price * pair.size for key, pair in problem.pairs.items()}
    bound = time
    for _ in range(_AGAIN):
        options = frontier.cheapest(
            frontier.Terms(
                costs=tuple(terms),
                times=tuple(part.time for part in problem.parts),
                pair_costs=costs,
                pair_times={key: pair.time for key, pair in problem.pairs.items()},
            ),
            bound=bound,
            buckets=buckets,
        )
        if options is None:
            return None
        found = problem.cost(options)
        if found.time <= time * (1 + _TINY):
            return found
        bound -= (found.time - time) * 1.25
    return None
