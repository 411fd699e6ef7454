"""Which candidates are worth a trial, which are kept, and when there are enough (pure).

All of it by the choosing part of the inputs: what reports is read when the choice is made.
"""

from collections.abc import Sequence

from compression import judging, ladder
from compression.choosing import front
from compression.choosing.preview import Preview
from compression.findings import Measurement
from compression.job import Budget
from compression.ruler import timing

MOST_RUNGS = 6
"""Candidates that get a trial because they look as if they met the budget."""
MOST_MISSES = 2
"""Those that get one although they do not."""
NEAR = 0.03
"""What falls short of the least agreement by less than this stays on the ladder."""
SPACE = ("size_mib", "size_ratio", "peak_memory_mib", "memory_ratio")
"""Budget fields that a slower variant can still be wanted for."""
WORTH = 0.95
"""A candidate has to be smaller or faster than the original: below this share of it."""


def least_agreement(budget: Budget) -> float:
    """Return the agreement below which a candidate is not kept."""
    return judging.whole(budget).min_agreement or 0.0


def before(look: Preview, budget: Budget, *, size_mib: float, peak_mib: float = 0.0) -> str | None:
    """Say why a candidate is rejected without a trial, or None.

    `size_mib` and `peak_mib` are the original's; what takes less memory may be wanted for that.
    """
    if look.agreement is None:
        return look.problem or "cannot be made"
    mib, least = look.size_bytes / 2**20, least_agreement(budget) - NEAR
    seen = look.agreement
    lighter = look.peak_mib is not None and look.peak_mib < WORTH * peak_mib
    if mib > WORTH * size_mib and look.cpu_ratio > WORTH and not lighter:
        return (
            f"neither smaller nor faster than the original: {mib:.2f} of {size_mib:.2f} MiB, "
            f"CPU ratio {look.cpu_ratio:.2f} at a look"
        )
    if seen.high < least:
        return (
            f"agreement {seen.value:.3f} ({seen.kind}, at most {seen.high:.3f} with 95 % "
            f"confidence on {seen.samples} {seen.split} samples, {look.sqnr_db:.1f} dB) "
            f"below {least + NEAR:.3f}"
        )
    return None


def in_line(
    looks: Sequence[Preview],
    others: Sequence[Preview],
    budget: Budget,
    *,
    size_mib: float,
    peak_mib: float = 0.0,
    ratio: float | None = None,
) -> tuple[list[Preview], list[Preview]]:
    """Divide candidates into those that get a trial, and those that wait in case none is kept.

    `looks` are the front, in order. First come those that look as if they met the budget, then a
    few that do not, since a lower demand might be met by them. `size_mib` and `peak_mib` are the
    original's. `ratio` is the share of its time that may be taken, where that binds: then the
    nearest come first, even of those behind the front, since what is faster than it has to be
    wins nothing.
    """
    weighed = any(look.peak_mib is not None for look in looks)

    def over(look: Preview) -> bool:
        heavy = weighed and _heavy(look, budget, peak_mib)
        slow = ratio is not None and look.cpu_ratio > ratio / WORTH
        return heavy or slow or _over(look, budget, size_mib)

    fits = front.spread([look for look in looks if not over(look)])
    if ratio is not None:
        fits += [look for look in others if not over(look)]
        fits = sorted(fits, key=lambda look: (look.place or 0, -look.sqnr_db))
        others = [look for look in others if over(look)]
    misses = [look for look in looks if over(look)]
    if not fits:  # a refusal names the nearest: of what answers alike, what is over by least
        most = min((mib * 2**20 for mib in _sizes_mib(budget, size_mib)), default=None)
        misses = sorted(
            misses, key=lambda one: (_far(one, budget), times(one, ratio=ratio, size_bytes=most))
        )
    first = [*fits[:MOST_RUNGS], *misses[:MOST_MISSES]]
    rest = [*fits[MOST_RUNGS:], *others, *misses[MOST_MISSES:]]
    return first, sorted(rest, key=over)


def _heavy(look: Preview, budget: Budget, peak_mib: float) -> bool:
    """Whether a candidate takes too much memory, or nobody has seen that it does not."""
    peaks = (budget.peak_memory_mib, budget.memory_ratio and peak_mib * budget.memory_ratio)
    given = [bound for bound in peaks if bound is not None]
    return bool(given) and (look.peak_mib is None or look.peak_mib > min(given))


def _over(look: Preview, budget: Budget, size_mib: float) -> bool:
    """Whether a candidate looks too large, too slow or too far off."""
    mib = look.size_bytes / 2**20
    too_large = any(mib > bound for bound in _sizes_mib(budget, size_mib))
    slow = budget.latency_ratio is not None and look.cpu_ratio > budget.latency_ratio / WORTH
    return too_large or _far(look, budget) or slow


def _sizes_mib(budget: Budget, size_mib: float) -> list[float]:
    """The bounds of size, of an original of `size_mib`."""
    sizes = (budget.size_mib, budget.size_ratio and size_mib * budget.size_ratio)
    return [bound for bound in sizes if bound is not None]


def times(look: Preview, *, ratio: float | None, size_bytes: float | None) -> float:
    """How many times the bounds of time and size a look takes, of what it is over by most."""
    pairs = ((look.cpu_ratio, ratio), (look.size_bytes, size_bytes))
    return max((took / most for took, most in pairs if most), default=0.0)


def _far(look: Preview, budget: Budget) -> bool:
    """Whether a candidate looks too far off."""
    seen = look.agreement
    return seen is None or seen.value + ladder.standard_error(seen) < least_agreement(budget)


def needless(label: str) -> str:
    """Say why a candidate is not tried although nothing speaks against it."""
    return f"not tried: {label!r} is at least as close, as small and as fast"


def after(found: Measurement, budget: Budget, *, original: Measurement, cores: int) -> str | None:
    """Say why a measured candidate is not kept, or None.

    One that falls short of the least agreement by little is kept: it does not meet the budget, but
    shows what a lower demand would buy.
    A slower one is kept only where the original is too large for the budget; it says how slow.
    """
    least = least_agreement(budget)
    if found.agreement.value < least - NEAR:
        return (
            f"agreement {found.agreement.value:.3f} ({found.agreement.kind}, "
            f"{found.agreement.samples} {found.agreement.split} samples) below {least:.3f}"
        )
    memory_asked = budget.peak_memory_mib is not None or budget.memory_ratio is not None
    lighter = found.peak_memory_mib < WORTH * found.original_peak_memory_mib
    small = found.size_mib <= WORTH * found.original_size_mib or (memory_asked and lighter)
    if not small and found.latency_ratio > WORTH:
        return (
            f"neither smaller nor faster than the original: {found.size_mib:.2f} of "
            f"{found.original_size_mib:.2f} MiB, {found.ratio_basis} ratio "
            f"{found.latency_ratio:.2f}"
        )
    room = Budget(**{name: getattr(budget, name) for name in SPACE})
    if judging.misses(original, room, cores=cores):
        return None
    slowest = 1.0 + max(found.noise if found.ratio_basis == "wall" else 0.0, timing.QUIET)
    if found.latency_ratio > slowest:
        return (
            f"slower than the original: {found.ratio_basis} ratio {found.latency_ratio:.2f}, "
            f"noise {found.noise:.1%}"
        )
    return None
