"""What rounds of original, candidate and original again say about time (pure)."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

QUIET = 0.05
"""Noise up to here lets wall times decide; above it CPU times do."""
HELD_UP = 1.25
"""Wall over CPU time of one of the two against the other's, from which wall times mislead."""
ALONE = 0.9
"""Wall over CPU time above this: one thread did the work."""
TIGHT = 0.02
"""The width of the ratio's 95 % interval, as a fraction, at which more rounds add nothing."""
_RESAMPLES = 400
_BLOCK = 4

Basis = Literal["wall", "cpu"]
FIELDS: dict[Basis, str] = {"wall": "wall_ms", "cpu": "cpu_ms"}


@dataclass(frozen=True)
class Segment:
    """One timed stretch, per inference."""

    wall_ms: float
    cpu_ms: float

    def stretch(self) -> float:
        """Return wall over CPU time: 1 for one thread that was never held up."""
        return self.wall_ms / self.cpu_ms


@dataclass(frozen=True)
class Round:
    """Original, candidate, original again on one sample; `steady`: the clock did not change."""

    before: Segment
    candidate: Segment
    after: Segment
    repeats: int = 1
    steady: bool = True

    def noise(self) -> float:
        """How far the original is from itself, as a fraction of wall time."""
        return abs(self.after.wall_ms / self.before.wall_ms - 1.0)

    def times(self, basis: Basis) -> tuple[float, float, float]:
        """Return original, candidate and original again, in ms."""
        field = FIELDS[basis]
        before, candidate, after = (
            getattr(one, field) for one in (self.before, self.candidate, self.after)
        )
        return before, candidate, after


@dataclass(frozen=True)
class Timed:
    """The rounds that count, and how many more were run: at least one, else there is no time.

    A round in which the clock changed does not count, unless it always changed.
    """

    rounds: tuple[Round, ...]
    thrown_away: int = 0

    @classmethod
    def of(cls, done: Sequence[Round], *, least: int) -> "Timed":
        """Keep the steady rounds of `done`; all of them where fewer than `least` were steady."""
        steady = tuple(one for one in done if one.steady)
        if len(steady) < min(least, len(done)):
            return cls(tuple(done))
        return cls(steady, len(done) - len(steady))

    def noise(self) -> float:
        """The median of how far the original is from itself within a round, as a fraction."""
        return float(statistics.median(one.noise() for one in self.rounds))

    def basis(self) -> Basis:
        """Which times to judge by: CPU times where wall times are disturbed, and they are known."""
        disturbed = self.noise() > QUIET or self._held_up()
        return "cpu" if disturbed and self._cpu_is_known() else "wall"

    def ratio(self, basis: Basis) -> float:
        """The median over rounds of candidate / original, for each of the original's two runs.

        Not over their mean: times have a tail to the right, and a mean of two lies further out
        in it than one does, so that a model would look faster than itself.
        """
        return float(np.median(self._ratios(basis)))

    def interval(self, basis: Basis) -> tuple[float, float]:
        """The ratio's 95 % interval: moving-block bootstrap over rounds (Kuensch 1989).

        Blocks, because rounds of one burst share what else happens on the device. What two
        loads of the same model differ by (where their weights lie in memory) is not in it.
        """
        ratios = self._ratios(basis)
        count = len(ratios)
        block = max(1, min(_BLOCK, count // 5))
        # The same rounds give the same interval: nothing here is a secret.
        random = np.random.default_rng(0)
        starts = random.integers(0, count - block + 1, (_RESAMPLES, -(-count // block), 1))
        chosen = (starts + np.arange(block)).reshape(_RESAMPLES, -1)[:, :count]
        low, high = np.quantile(np.median(ratios[chosen], axis=(1, 2)), (0.025, 0.975))
        middle = float(np.median(ratios))
        return min(float(low), middle), max(float(high), middle)

    def tight(self) -> bool:
        """Whether more rounds would say nothing new about the ratio."""
        basis = self.basis()
        low, high = self.interval(basis)
        return high - low <= TIGHT * self.ratio(basis)

    def figures(self) -> dict[str, Any]:
        """The fields of a Measurement that are about time."""
        wall = [one.candidate.wall_ms for one in self.rounds]
        originals = [each for one in self.rounds for each in (one.before, one.after)]
        original = [one.wall_ms for one in originals]
        basis = self.basis()
        low, high = self.interval(basis)
        return {
            "latency_p50_ms": float(np.quantile(wall, 0.5)),
            "latency_p95_ms": float(np.quantile(wall, 0.95)),
            "original_latency_p50_ms": float(np.quantile(original, 0.5)),
            "original_latency_p95_ms": float(np.quantile(original, 0.95)),
            "latency_ratio": self.ratio(basis),
            "ratio_low": low,
            "ratio_high": high,
            "ratio_basis": basis,
            "wall_ratio": self.ratio("wall"),
            "cpu_ratio": self.ratio("cpu"),
            "noise": self.noise(),
            "cpu_ms_per_inference": statistics.median(one.candidate.cpu_ms for one in self.rounds),
            "original_cpu_ms_per_inference": statistics.median(one.cpu_ms for one in originals),
            "rounds": len(self.rounds),
        }

    def method(self) -> dict[str, str]:
        """How the figures were taken."""
        most = max(one.repeats for one in self.rounds)
        noise = self.noise()
        unsteady = sum(not one.steady for one in self.rounds)
        count = f"{len(self.rounds)} rounds of original, candidate, original on one sample"
        thrown = f"; {self.thrown_away} more thrown away: the clock changed in them"
        kept = f"; the clock changed in {unsteady} of them, which count: it is never steady"
        return {
            "latency": f"{count}, each the mean of up to {most} inferences"
            + (thrown if self.thrown_away else "")
            + (kept if unsteady else ""),
            "ratio": "median over rounds of candidate over each of the original's two runs, "
            f"{self._why(noise)}; 95 % interval by bootstrap over rounds",
            "noise": "median of the original's distance from itself within a round, wall time",
        }

    def _why(self, noise: float) -> str:
        if noise <= QUIET and self.basis() == "wall":
            return f"by wall time: noise {noise:.1%} is within {QUIET:.0%}"
        if self.basis() == "wall":
            return f"by wall time in spite of {noise:.1%} of noise: CPU time is too coarse here"
        if noise <= QUIET:
            return "by process CPU time: one of the two was held up by other work"
        return f"by process CPU time: noise {noise:.1%} is over {QUIET:.0%}"

    def _held_up(self) -> bool:
        """Whether one of the two waited for a CPU far more than the other, on one thread.

        The original's own noise does not show what befell the candidate alone.
        """
        if not self._cpu_is_known():
            return False
        candidate = statistics.median(one.candidate.stretch() for one in self.rounds)
        original = statistics.median(
            each.stretch() for one in self.rounds for each in (one.before, one.after)
        )
        alone = min(candidate, original) > ALONE
        return alone and max(candidate, original) > HELD_UP * min(candidate, original)

    def _cpu_is_known(self) -> bool:
        """Whether the CPU clock is fine enough to have moved in every stretch."""
        return all(
            each.cpu_ms > 0
            for one in self.rounds
            for each in (one.before, one.candidate, one.after)
        )

    def _ratios(self, basis: Basis) -> NDArray[np.float64]:
        """Return candidate / original, of shape [rounds, 2]."""
        before, candidate, after = np.array([one.times(basis) for one in self.rounds]).T
        original = np.stack([before, after], axis=1)
        if not np.all(original > 0):
            # A clock of whole ticks: only the sums mean anything.
            total = float(original.mean(axis=1).sum())
            ratio = float(candidate.sum()) / total if total > 0 else 1.0
            return np.full(original.shape, ratio)
        ratios: NDArray[np.float64] = candidate[:, np.newaxis] / original
        return ratios
