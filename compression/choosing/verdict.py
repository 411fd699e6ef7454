"""Which candidates are worth a trial, which are kept, and when there are enough (pure).

All of it by the choosing part of the inputs: what reports is read when the choice is made.
"""

from collections.abc import Mapping

from compression import ladder
from compression.choosing.preview import Preview
from compression.job import Budget, Measurement
from compression.ruler import timing

DEFAULT_MIN_AGREEMENT = 0.98
"""Where nobody says how alike the answers must be."""
SPACE = ("size_mib", "size_ratio", "peak_memory_mib", "memory_ratio")
"""Budget fields that a slower variant can still be wanted for."""
ENOUGH = 2
"""Kept candidates that meet the budget; those after them looked no better."""


def whole(budget: Budget) -> Budget:
    """Return the budget with the least agreement that holds where nobody gave one."""
    return budget.over(Budget(min_agreement=DEFAULT_MIN_AGREEMENT))


def least_agreement(budget: Budget) -> float:
    """Return the agreement below which a candidate is not kept."""
    return DEFAULT_MIN_AGREEMENT if budget.min_agreement is None else budget.min_agreement


def promise(look: Preview, budget: Budget, *, size_mib: float) -> tuple[float, ...]:
    """Return a sort key: what costs nothing to reject, then what looks best.

    `size_mib` is the original's.
    """
    if look.agreement is None:
        return (0.0,)
    mib = look.size_bytes / 2**20
    bounds = (budget.size_mib, size_mib * budget.size_ratio if budget.size_ratio else None)
    too_large = any(bound is not None and mib > bound for bound in bounds)
    hopeless = look.agreement.high < least_agreement(budget)
    return (float(not hopeless), float(too_large), -look.sqnr_db, -look.agreement.value)


def before(look: Preview, budget: Budget, *, size_mib: float) -> str | None:
    """Say why a candidate is rejected without a trial, or None. `size_mib` is the original's."""
    if look.agreement is None:
        return look.problem or "cannot be made"
    mib, least = look.size_bytes / 2**20, least_agreement(budget)
    seen = look.agreement
    if mib >= size_mib:
        return f"size {mib:.2f} MiB is not below the original's {size_mib:.2f} MiB"
    if seen.high < least:
        return (
            f"agreement {seen.value:.3f} ({seen.kind}, at most {seen.high:.3f} with 95 % "
            f"confidence on {seen.samples} {seen.split} samples, {look.sqnr_db:.1f} dB) "
            f"below {least:.3f}"
        )
    return None


def enough(kept: Mapping[str, Measurement], budget: Budget, *, cores: int) -> str | None:
    """Name the kept candidate that makes further trials needless, by its label, or None."""
    meeting = {
        label: found
        for label, found in kept.items()
        if not ladder.misses(found, budget, cores=cores)
    }
    perfect = any(found.agreement.value == 1.0 for found in meeting.values())
    return next(iter(meeting)) if perfect or len(meeting) >= ENOUGH else None


def needless(look: Preview, label: str) -> str:
    """Say why a candidate is not tried, when `label` and others are kept."""
    value = look.agreement.value if look.agreement else 0.0
    return (
        f"not tried: it looked no better ({value:.3f}, {look.sqnr_db:.1f} dB) than {label!r}, "
        "which meets the budget"
    )


def after(found: Measurement, budget: Budget, *, original: Measurement, cores: int) -> str | None:
    """Say why a measured candidate is not kept, or None.

    A slower one is kept only where the original is too large for the budget; it says how slow.
    """
    least = least_agreement(budget)
    if found.agreement.value < least:
        return (
            f"agreement {found.agreement.value:.3f} ({found.agreement.kind}, "
            f"{found.agreement.samples} {found.agreement.split} samples) below {least:.3f}"
        )
    room = Budget(**{name: getattr(budget, name) for name in SPACE})
    if ladder.misses(original, room, cores=cores):
        return None
    slowest = 1.0 + max(found.noise if found.ratio_basis == "wall" else 0.0, timing.QUIET)
    if found.latency_ratio > slowest:
        return (
            f"slower than the original: {found.ratio_basis} ratio {found.latency_ratio:.2f}, "
            f"noise {found.noise:.1%}"
        )
    return None
