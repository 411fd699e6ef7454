"""What a budget asks of time and size, and whether any look reaches it (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from compression import ladder
from compression.choosing import verdict
from compression.choosing.preview import Preview
from compression.job import Budget, Measurement

MARGIN = 2.0
"""Times the measured noise, by which a bound of time is meant to be kept."""
_LEAST_MARGIN = 0.02
_MOST_MARGIN = 0.1


@dataclass(frozen=True)
class Bounds:
    """The most of the original's CPU time, and of bytes; None: not bounded."""

    ratio: float | None = None
    size_bytes: float | None = None

    def hold(self, look: Preview) -> bool:
        """Whether a look is within both."""
        fast = self.ratio is None or look.cpu_ratio <= self.ratio
        small = self.size_bytes is None or look.size_bytes <= self.size_bytes
        return fast and small


def of(budget: Budget, original: Measurement, *, cores: int) -> Bounds:
    """Return what a budget allows, of an original that was measured.

    A latency in ms is a share of what the original takes; so is a share of the CPU at a rate.
    Bounds of memory are none of time or size: what meets them is found by measuring.
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
    return Bounds(
        ratio=None if ratio is None else ratio * margin,
        size_bytes=None if mib is None else mib * 2**20,
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
