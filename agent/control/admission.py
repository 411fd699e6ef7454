"""Measurement against budget and device: admit or refuse, and why (pure)."""

from dataclasses import dataclass

from compression import judging
from compression.findings import Ladder, Measurement, Rung
from compression.job import Budget, Sha256


@dataclass(frozen=True)
class Verdict:
    """`reasons` is empty where it is admitted."""

    reasons: tuple[str, ...] = ()

    @property
    def admitted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def judge(measurement: Measurement, budget: Budget, *, available_mib: float, cores: int) -> Verdict:
    """Judge a variant that is to take over: the whole budget, and the memory free right now."""
    return Verdict(
        (*judging.misses(measurement, budget, cores=cores), *_memory(measurement, available_mib))
    )


def judge_original(
    measurement: Measurement, budget: Budget, *, available_mib: float, cores: int
) -> Verdict:
    """Judge the original that serves until something better is found: only what could hurt
    its neighbours on the device, which is memory."""
    memory = Budget(peak_memory_mib=budget.peak_memory_mib)
    return Verdict(
        (*judging.misses(measurement, memory, cores=cores), *_memory(measurement, available_mib))
    )


def _memory(measurement: Measurement, available_mib: float) -> tuple[str, ...]:
    if measurement.peak_memory_mib <= available_mib:
        return ()
    return (
        f"peak memory {measurement.peak_memory_mib:.0f} MiB, "
        f"but {available_mib:.0f} MiB are available now",
    )


def needs_inputs(*, calibration: bool, allow_unverified: bool) -> bool:
    """Whether compressing would be in vain: all that it could make would be turned down."""
    return not calibration and not allow_unverified


def no_better(new: Measurement, old: Measurement) -> str:
    """Say why a variant that meets the budget is not worth a switch; empty where it is.

    It is where it agrees beyond the interval of what serves, or where it agrees within it and
    takes a twentieth less of something, and no twentieth more of anything.
    """
    was, now = old.agreement, new.agreement
    if now.value > was.high:
        return ""
    if now.value < was.low:
        return f"agrees less: {now.value:.3f}, what serves {was.value:.3f} (from {was.low:.3f})"
    ratios = {
        "latency": new.latency_ratio / max(old.latency_ratio, 1e-9),
        "memory": new.peak_memory_mib / max(old.peak_memory_mib, 1e-9),
        "size": new.size_mib / max(old.size_mib, 1e-9),
    }
    if min(ratios.values()) < 1 - _WORTH and max(ratios.values()) <= 1 + _WORTH:
        return ""
    shown = ", ".join(f"{name} x {ratio:.2f}" for name, ratio in ratios.items())
    return f"agrees at {now.value:.3f}, what serves at {was.value:.3f}; {shown}"


_WORTH = 0.05
"""Of what serves: a smaller gain would be lost in the noise of two measurements."""


def next_rung(
    offered: Ladder, turned_down: tuple[Sha256, ...], *, allow_unverified: bool = False
) -> Rung | None:
    """The best rung that meets its budget, was not turned down before, and may serve."""
    return next(
        (
            rung
            for rung in offered.rungs
            if rung.meets_budget
            and rung.sha256 not in turned_down
            and (rung.verified or allow_unverified)
        ),
        None,
    )


def nearest(
    offered: Ladder, turned_down: tuple[Sha256, ...] = (), *, allow_unverified: bool = False
) -> str:
    """Say why no variant is left: what is unverified, else what misses the budget least."""
    missing = [rung for rung in offered.rungs if not rung.meets_budget]
    barred = [
        rung
        for rung in offered.rungs
        if rung.meets_budget and not rung.verified and rung.sha256 not in turned_down
    ]
    if barred and not allow_unverified:
        return (
            f"{barred[0].recipe.label!r} would meet it, but is unverified: no real inputs have "
            "shown how alike it answers; publish calibration inputs, or deploy with "
            "allow_unverified"
        )
    if not missing:
        return "no variant was made"
    return f"nearest is {missing[0].recipe.label!r}: {'; '.join(missing[0].misses)}"
