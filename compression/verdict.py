"""Which candidates are worth a trial, and which become rungs (pure)."""

from collections.abc import Sequence

from compression import ladder, timing
from compression.job import Budget, Measurement, Rung
from compression.preview import Preview

DEFAULT_MIN_AGREEMENT = 0.98
"""Where nobody says how alike the answers must be."""
ENOUGH = 2
"""Compressed rungs that meet the budget; those after them looked no better."""


def least_agreement(budget: Budget) -> float:
    """Return the agreement below which a candidate is no rung."""
    return DEFAULT_MIN_AGREEMENT if budget.min_agreement is None else budget.min_agreement


def promise(look: Preview, budget: Budget, original: Rung) -> tuple[float, ...]:
    """Return a sort key: what costs nothing to reject, then what looks best."""
    if look.agreement is None:
        return (0.0,)
    mib = look.size_bytes / 2**20
    size_mib = original.measurement.original_size_mib
    bounds = (budget.size_mib, size_mib * budget.size_ratio if budget.size_ratio else None)
    too_large = any(bound is not None and mib > bound for bound in bounds)
    hopeless = look.agreement.high < least_agreement(budget)
    return (float(not hopeless), float(too_large), -look.sqnr_db, -look.agreement.value)


def before(look: Preview, budget: Budget, rungs: Sequence[Rung], *, cores: int) -> str | None:
    """Say why a candidate needs no trial, or None. `rungs[0]` is the original."""
    if look.agreement is None:
        return look.problem or "cannot be made"
    mib, least = look.size_bytes / 2**20, least_agreement(budget)
    original_mib = rungs[0].measurement.original_size_mib
    seen = look.agreement
    if mib >= original_mib:
        return f"size {mib:.2f} MiB is not below the original's {original_mib:.2f} MiB"
    if seen.high < least:
        return (
            f"agreement {seen.value:.3f} ({seen.kind}, at most {seen.high:.3f} with 95 % "
            f"confidence on {seen.samples} inputs, {look.sqnr_db:.1f} dB) below {least:.3f}"
        )
    meeting = [
        rung for rung in rungs[1:] if not ladder.misses(rung.measurement, budget, cores=cores)
    ]
    if len(meeting) >= ENOUGH or any(rung.measurement.agreement.value == 1.0 for rung in meeting):
        return (
            f"not tried: it looked no better ({seen.value:.3f}, {look.sqnr_db:.1f} dB) than "
            f"{meeting[0].recipe.label!r}, which meets the budget"
        )
    return None


def after(found: Measurement, budget: Budget) -> str | None:
    """Say why a measured candidate is no rung, or None."""
    least = least_agreement(budget)
    if found.agreement.value < least:
        return (
            f"agreement {found.agreement.value:.3f} ({found.agreement.kind}, "
            f"{found.agreement.samples} inputs) below {least:.3f}"
        )
    slowest = 1.0 + max(found.noise if found.ratio_basis == "wall" else 0.0, timing.QUIET)
    if found.latency_ratio > slowest:
        return (
            f"slower than the original: {found.ratio_basis} ratio {found.latency_ratio:.2f}, "
            f"noise {found.noise:.1%}"
        )
    return None
