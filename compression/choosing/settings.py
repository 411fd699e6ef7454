"""Which other ways to run a candidate may help with what a budget asks (pure).

They cost no accuracy. Which bound each of them can help with:

| bound | way | what it costs |
| --- | --- | --- |
| memory | a file that is optimized already (`prepared`) | the size, where weights were stored |
| memory | no planned block, no arena for weights (`pattern`) | some per cent of the time |
| latency in ms | more threads, where their number is left open | CPU time |
| CPU share | one thread | latency |

A ratio of latencies is between runs with as many threads, so that threads cannot help with it. The
arena stays: measured on ten models, without it none takes less memory than by the two ways above.
"""

from collections.abc import Iterator

from compression import judging
from compression.findings import Measurement
from compression.job import Budget, Recipe, Runtime
from compression.passes import prepared

_TIMES = {"latency_p95_ms", "latency_ratio", "cpu_share", "request_rate_hz"}


def usual(recipe: Recipe, threads: int) -> Runtime:
    """How a candidate runs where nothing else was chosen."""
    ready = any(spec.name == prepared.NAME for spec in recipe.passes)
    return ways(threads, ready=ready)[0]


def ways(threads: int, *, ready: bool) -> tuple[Runtime, ...]:
    """The ways to run one file, what costs no time first; `ready`: it is a prepared one."""
    level = prepared.OPTIMIZATION if ready else Runtime().optimization
    return tuple(
        Runtime(threads=threads, optimization=level, pattern=pattern) for pattern in (True, False)
    )


def otherwise(found: Measurement, how: Runtime, budget: Budget, *, cores: int) -> Runtime | None:
    """How else to run what misses a budget of time; None where that would not help."""
    beyond = budget.model_copy(update=dict.fromkeys(_TIMES))
    if judging.misses(found, beyond, cores=cores):
        return None
    threads = next(_threads(found, how, budget, cores), None)
    return None if threads is None else how.model_copy(update={"threads": threads})


def _threads(found: Measurement, how: Runtime, budget: Budget, cores: int) -> Iterator[int]:
    share = Budget(cpu_share=budget.cpu_share, request_rate_hz=budget.request_rate_hz)
    if how.threads > 1 and judging.misses(found, share, cores=cores):
        yield 1
    bound = budget.latency_p95_ms
    if bound is not None and budget.threads is None and found.latency_p95_ms > bound:
        wanted = found.latency_p95_ms / bound * how.threads  # if every thread helped fully
        if wanted <= cores:
            yield min(cores, max(2, 2 * how.threads))
