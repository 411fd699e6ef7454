"""A measurement judged against a budget: what it misses, by how much, how surely (pure)."""

from collections.abc import Callable

from compression.findings import Measurement, Rung
from compression.job import Budget

LEAST_MARGIN = 0.02
"""The least by which a figure of time has to be below its bound to be sure of it."""
MEMORY_MARGIN = 0.035
"""The same of memory: twice the standard deviation of peaks over ten trials of one file, which
was 0.03 to 1.7 % for four models."""
DEFAULT_MIN_AGREEMENT = 0.98
"""Where nobody says how alike the answers must be."""
TIMES = frozenset({"latency_p95_ms", "latency_ratio", "cpu_share"})
"""Bounds of time."""
_Figure = Callable[[Measurement], float]
# Budget field -> (what it is called, unit, how the measurement says it). All are upper bounds.
BOUNDS: dict[str, tuple[str, str, _Figure]] = {
    "latency_p95_ms": ("latency p95", " ms", lambda m: m.latency_p95_ms),
    "latency_ratio": ("latency ratio", "", lambda m: m.latency_ratio),
    "peak_memory_mib": ("peak memory", " MiB", lambda m: m.peak_memory_mib),
    "memory_ratio": (
        "memory ratio",
        "",
        lambda m: m.peak_memory_mib / max(m.original_peak_memory_mib, 1e-9),
    ),
    "size_mib": ("size", " MiB", lambda m: m.size_mib),
    "size_ratio": ("size ratio", "", lambda m: m.size_mib / max(m.original_size_mib, 1e-9)),
    "threads": ("threads", "", lambda m: m.threads),
}


def whole(budget: Budget) -> Budget:
    """Return the budget with the least agreement that holds where nobody gave one."""
    return budget.over(Budget(min_agreement=DEFAULT_MIN_AGREEMENT))


def cpu_share(measurement: Measurement, *, rate_hz: float, cores: int) -> float:
    """Share of all cores that `rate_hz` inferences a second use."""
    return measurement.cpu_ms_per_inference * rate_hz / 1000.0 / cores


def misses(measurement: Measurement, budget: Budget, *, cores: int) -> tuple[str, ...]:
    """Say where a measurement misses the budget, one sentence with values for each field."""
    return tuple(text for text, _ in _misses(measurement, budget, cores))


def shortfall(measurement: Measurement, budget: Budget, *, cores: int) -> float:
    """How far a measurement misses the budget: the sum of what each field is over by (0: met).

    Each is a fraction of its bound, so that milliseconds and MiB can be added.
    """
    return sum(over for _, over in _misses(measurement, budget, cores))


def _misses(measurement: Measurement, budget: Budget, cores: int) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for field, (name, unit, figure) in BOUNDS.items():
        bound = getattr(budget, field)
        value = figure(measurement)
        if bound is not None and value > bound:
            shown = f"{name} {_number(value)}{unit} over budget {_number(bound)}{unit}"
            found.append((shown, value / bound - 1.0))
    if budget.cpu_share is not None and budget.request_rate_hz is not None:
        share = cpu_share(measurement, rate_hz=budget.request_rate_hz, cores=cores)
        if share > budget.cpu_share:
            text = (
                f"CPU share {share:.1%} at {_number(budget.request_rate_hz)} Hz on {cores} "
                f"cores over budget {budget.cpu_share:.1%}"
            )
            found.append((text, share / budget.cpu_share - 1.0))
    agreement = measurement.agreement
    if budget.min_agreement is not None and agreement.value < budget.min_agreement:
        text = (
            f"agreement {agreement.value:.3f} ({agreement.kind}, {agreement.samples} "
            f"{agreement.split} samples) below {budget.min_agreement:.3f}"
        )
        found.append((text, budget.min_agreement / max(agreement.value, 1e-3) - 1.0))
    return found


def margin(measurement: Measurement) -> float:
    """By which share a figure of time may be off: twice its standard error, at least 2 %.

    The error is that of the ratio (half of its 95 % interval is about two of them); where no
    interval is known, the noise of the original against itself stands for it.
    """
    if measurement.ratio_high is None:
        return max(LEAST_MARGIN, 2 * measurement.noise)
    return max(LEAST_MARGIN, measurement.ratio_high / measurement.latency_ratio - 1.0)


def surely(rung: Rung, budget: Budget, *, cores: int) -> bool:
    """Whether a rung meets the bounds of time and memory by more than measuring them may be off.

    What the original is to itself is known exactly.
    """
    share, itself = 1.0 + margin(rung.measurement), not rung.recipe.passes
    factors = dict.fromkeys(("latency_p95_ms", "cpu_share"), share)
    factors |= {"peak_memory_mib": 1.0 + MEMORY_MARGIN}
    if not itself:
        factors |= {"latency_ratio": share, "memory_ratio": 1.0 + MEMORY_MARGIN}
    given = budget.model_dump(exclude_none=True)
    drawn = {field: given[field] / by for field, by in factors.items() if field in given}
    return not misses(rung.measurement, Budget(**(given | drawn)), cores=cores)


def judged(rung: Rung, budget: Budget, *, cores: int) -> Rung:
    """The same rung, judged against `budget`."""
    found = misses(rung.measurement, budget, cores=cores)
    return rung.model_copy(update={"meets_budget": not found, "misses": found})


def binding(budget: Budget, measurement: Measurement, *, cores: int) -> frozenset[str]:
    """The fields that the original itself does not keep, by any measurement of a variant of it."""
    m = measurement
    itself = m.model_copy(
        update={
            "latency_p95_ms": m.original_latency_p95_ms,
            "latency_ratio": 1.0,
            "cpu_ms_per_inference": m.original_cpu_ms_per_inference,
            "peak_memory_mib": m.original_peak_memory_mib,
            "size_mib": m.original_size_mib,
        }
    )
    given = budget.model_dump(exclude_none=True, exclude={"min_agreement", "threads"})
    rate = {"request_rate_hz": given.pop("request_rate_hz", None)}
    alone = {field: Budget(**{field: bound}, **rate) for field, bound in given.items()}
    return frozenset(one for one in alone if misses(itself, alone[one], cores=cores))


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
