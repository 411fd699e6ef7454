"""Measurement against budget and device: admit or refuse, and why (pure)."""

from dataclasses import dataclass

from compression import ladder
from compression.job import Budget, Ladder, Measurement, Rung, Sha256


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
        (*ladder.misses(measurement, budget, cores=cores), *_memory(measurement, available_mib))
    )


def judge_original(
    measurement: Measurement, budget: Budget, *, available_mib: float, cores: int
) -> Verdict:
    """Judge the original that serves until something better is found: only what could hurt
    its neighbours on the device, which is memory."""
    memory = Budget(peak_memory_mib=budget.peak_memory_mib)
    return Verdict(
        (*ladder.misses(measurement, memory, cores=cores), *_memory(measurement, available_mib))
    )


def _memory(measurement: Measurement, available_mib: float) -> tuple[str, ...]:
    if measurement.peak_memory_mib <= available_mib:
        return ()
    return (
        f"peak memory {measurement.peak_memory_mib:.0f} MiB, "
        f"but {available_mib:.0f} MiB are available now",
    )


def next_rung(offered: Ladder, turned_down: tuple[Sha256, ...]) -> Rung | None:
    """The best rung that meets its budget and was not turned down before."""
    return next((r for r in offered.rungs if r.meets_budget and r.sha256 not in turned_down), None)


def nearest(offered: Ladder) -> str:
    """Name the variant that misses the budget least, and by what."""
    missing = [rung for rung in offered.rungs if not rung.meets_budget]
    if not missing:
        return "no variant was made"
    return f"nearest is {missing[0].recipe.label!r}: {'; '.join(missing[0].misses)}"
