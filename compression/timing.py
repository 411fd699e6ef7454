"""How long two loaded models take, side by side: interleaved rounds, so that drift hits both."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression import samples

LEAST_SEGMENT_S = 0.001
"""A faster model runs several times per segment: a clock read would be part of the figure."""
QUIET = 0.05
"""Noise up to here lets wall times decide; above it CPU times do."""
_PAUSE_S = 0.001
_WARM_RUNS = 3
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Segment:
    """One timed stretch, per inference."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Timed:
    """Rounds of (original, candidate, original again), all of one input each."""

    rounds: tuple[tuple[Segment, Segment, Segment], ...]
    repeats: int

    def noise(self) -> float:
        """The median of how far the original is from itself within a round, as a fraction."""
        return float(statistics.median(abs(b.wall_ms / a.wall_ms - 1.0) for a, _, b in self.rounds))

    def ratio(self, field: str) -> float:
        """The median over rounds of candidate / original (mean of its two runs)."""
        ratios = []
        for a, candidate, b in self.rounds:
            original = (getattr(a, field) + getattr(b, field)) / 2
            ratios.append(getattr(candidate, field) / max(original, 1e-9))
        return float(statistics.median(ratios))

    def figures(self) -> dict[str, Any]:
        """The fields of a Measurement that are about time."""
        wall = [c.wall_ms for _, c, _ in self.rounds]
        original = [one.wall_ms for a, _, b in self.rounds for one in (a, b)]
        cpu = [one.cpu_ms for a, _, b in self.rounds for one in (a, b)]
        noise = self.noise()
        ratios = {"wall": self.ratio("wall_ms"), "cpu": self.ratio("cpu_ms")}
        basis = "wall" if noise <= QUIET else "cpu"
        return {
            "latency_p50_ms": float(np.quantile(wall, 0.5)),
            "latency_p95_ms": float(np.quantile(wall, 0.95)),
            "original_latency_p50_ms": float(np.quantile(original, 0.5)),
            "original_latency_p95_ms": float(np.quantile(original, 0.95)),
            "latency_ratio": ratios[basis],
            "ratio_basis": basis,
            "wall_ratio": ratios["wall"],
            "cpu_ratio": ratios["cpu"],
            "noise": noise,
            "cpu_ms_per_inference": statistics.median(c.cpu_ms for _, c, _ in self.rounds),
            "original_cpu_ms_per_inference": statistics.median(cpu),
            "rounds": len(self.rounds),
        }

    def method(self) -> dict[str, str]:
        """How the figures were taken."""
        return {
            "latency": f"{len(self.rounds)} interleaved rounds of {self.repeats} inferences each",
            "ratio": "median over rounds of candidate over the mean of the original's two runs",
            "noise": "median of the original's distance from itself within a round",
        }


def interleave(
    original: Any,
    candidate: Any,
    inputs: samples.Samples,
    indices: tuple[int, ...],
    *,
    rounds: int,
    deadline: float,
) -> Timed:
    """Time two sessions on the same inputs until `rounds` or the deadline (time.monotonic()).

    At least three rounds are run, whatever the deadline.
    """
    feeds = inputs.sample(indices[0])
    for _ in range(_WARM_RUNS):
        for session in (original, candidate):
            session.run(None, feeds)
    once_s = max(_segment(original, feeds, 1).wall_ms / 1000, 1e-7)
    repeats = max(1, min(1000, round(LEAST_SEGMENT_S / once_s)))
    done: list[tuple[Segment, Segment, Segment]] = []
    while len(done) < rounds and (len(done) < _LEAST_ROUNDS or time.monotonic() < deadline):
        feeds = inputs.sample(indices[len(done) % len(indices)])
        time.sleep(_PAUSE_S)  # short bursts: others on the device get their turn between them
        done.append(
            (
                _segment(original, feeds, repeats),
                _segment(candidate, feeds, repeats),
                _segment(original, feeds, repeats),
            )
        )
    return Timed(tuple(done), repeats)


def _segment(session: Any, feeds: dict[str, Any], repeats: int) -> Segment:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        session.run(None, feeds)
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return Segment(max(wall, 1) / repeats / 1e6, cpu / repeats / 1e6)
