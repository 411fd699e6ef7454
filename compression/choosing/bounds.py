"""What a budget asks of time, size and memory, and whether any look reaches it (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compression import judging, ladder
from compression.choosing import verdict
from compression.choosing.preview import Preview
from compression.findings import Measurement
from compression.job import Budget

MARGIN = 2.0
"""Times the measured noise, by which a bound of time is meant to be kept."""
STEP_AT_LEAST, STEP_AT_MOST = 0.9, 0.4
"""What a further cut for the sake of memory leaves, of the cut before it."""
_LEAST_MARGIN = 0.05
"""What a claim of time allows from one process to the next, see placing.py."""
_MOST_MARGIN = 0.1


@dataclass(frozen=True)
class Bounds:
    """The most of the original's CPU time, of bytes, and of memory; None: not bounded."""

    ratio: float | None = None
    size_bytes: float | None = None
    peak_mib: float | None = None

    def hold(self, look: Preview) -> bool:
        """Whether a look is within all of them; what was not weighed is not known to be."""
        fast = self.ratio is None or look.cpu_ratio <= self.ratio
        small = self.size_bytes is None or look.size_bytes <= self.size_bytes
        return fast and small and self.light(look)

    def light(self, look: Preview) -> bool:
        """Whether a look is within the bound of memory."""
        if self.peak_mib is None:
            return True
        return look.peak_mib is not None and look.peak_mib <= self.peak_mib


def of(budget: Budget, original: Measurement, *, cores: int) -> Bounds:
    """Return what a budget allows, of an original that was measured.

    A latency in ms is a share of what the original takes; so is a share of the CPU at a rate.
    Bounds of time and memory are drawn in by what measuring them anew may change. One of memory
    that the original keeps is none.
    """
    ratios = [budget.latency_ratio]
    if budget.latency_p95_ms is not None:
        ratios.append(budget.latency_p95_ms / max(original.original_latency_p95_ms, 1e-9))
    if budget.cpu_share is not None and budget.request_rate_hz is not None:
        most_ms = budget.cpu_share * cores * 1000 / budget.request_rate_hz
        ratios.append(most_ms / max(original.original_cpu_ms_per_inference, 1e-9))
    sizes = [budget.size_mib, budget.size_ratio and budget.size_ratio * original.original_size_mib]
    margin = 1 - min(_MOST_MARGIN, max(_LEAST_MARGIN, MARGIN * original.noise))
    ratio = min((one for one in ratios if one is not None), default=None)
    mib = min((one for one in sizes if one is not None), default=None)
    whole_mib, drawn_in = original.original_peak_memory_mib, 1 - judging.MEMORY_MARGIN
    peaks = [budget.peak_memory_mib, budget.memory_ratio and budget.memory_ratio * whole_mib]
    peak = min((one * drawn_in for one in peaks if one is not None), default=None)
    if peak is not None and original.peak_memory_mib <= peak:
        peak = None  # it does not bind: the trials see to those that take more than the original
    return Bounds(
        ratio=None if ratio is None else ratio * margin,
        size_bytes=None if mib is None else mib * 2**20,
        peak_mib=peak,
    )


def reached(looks: Iterable[Preview], bounds: Bounds, budget: Budget) -> bool:
    """Whether some look is within the bounds and close enough."""
    least = verdict.least_agreement(budget)
    return any(
        bounds.hold(look)
        and look.agreement is not None
        and look.agreement.value + ladder.standard_error(look.agreement) >= least
        for look in looks
    )


def next_share(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """Return which share of the constants to try next, so that memory comes down to `wanted` MiB.

    `points` are shares and what they took, the last one tried last; it took too much.
    """
    share, peak = points[-1]
    first, most = points[0]
    slope = (most - peak) / (first - share) if first > share else 0.0
    aim = share - (peak - wanted) / slope if slope > 0 else 0.0
    return min(STEP_AT_LEAST * share, max(STEP_AT_MOST * share, aim))
