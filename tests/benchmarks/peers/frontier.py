"""Which points nothing beats, and whether one of our rungs is as good as a peer's (pure)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIZE_ALLOWANCE, CPU_ALLOWANCE = 1.02, 1.03
SIZE_EQUAL, CPU_EQUAL = 1.005, 1.01
"""Factors within which two points are the same: measuring again would swap them."""
NEARER_DB = 3.0
LEAST_AGREEMENT = 0.8
"""A peer's variant below this is of no use to anybody, however fast; it is shown, not judged."""
Interval = tuple[float, float, float]
"""A value, and the low and high end of its 95 % interval."""


@dataclass(frozen=True)
class Point:
    """One variant. Sizes in bytes, CPU as the ratio to the original, agreement in [0, 1]."""

    label: str
    size: int
    cpu: Interval
    agreement: float
    sqnr_db: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """One of our rungs beside a peer's point: ratios ours / theirs, and the difference."""

    rung: str
    size: float
    cpu: Interval
    agreement: Interval

    def misses(self) -> dict[str, float]:
        """What is worse than allowed, by how much: empty where the rung is as good.

        CPU and agreement count as worse only where their whole interval says so.
        """
        found = {
            "size": self.size / SIZE_ALLOWANCE - 1,
            "cpu": self.cpu[1] / CPU_ALLOWANCE - 1,
            "agreement": -self.agreement[2],
        }
        return {name: by for name, by in found.items() if by > 0}


@dataclass(frozen=True)
class Verdict:
    """A peer's point, and the rung that meets it or comes nearest (None: there are no rungs)."""

    peer: str
    met: bool
    nearest: Comparison | None


def frontier(points: Sequence[Point], original: Point) -> list[Point]:
    """The points that neither another one nor the original matches in all three respects.

    Best agreement first; what is equal within `SIZE_EQUAL` and `CPU_EQUAL` counts as matched, and
    what agrees less must be faster than chance explains, or smaller.
    """
    kept = [original]
    for one in sorted(points, key=lambda point: (-point.agreement, point.cpu[0], point.size)):
        if not any(
            other.size <= SIZE_EQUAL * one.size and other.cpu[0] <= CPU_EQUAL * one.cpu[2]
            for other in kept
        ):
            kept.append(one)
    return kept[1:]


def screened(points: Sequence[Point], original: Point, *, slack: float) -> list[Point]:
    """What may still be on the frontier when agreement is known better than to `slack`.

    Where another one is clearly nearer by its error, it need not agree more: of few samples all
    may agree, and the one with ten times the error will be the first that does not.
    """
    found = []
    for one in points:
        rivals = [original, *(other for other in points if other.label != one.label)]
        beaten = any(
            other.size <= SIZE_EQUAL * one.size
            and other.cpu[2] <= one.cpu[1]
            and other.agreement >= one.agreement + slack * (other.sqnr_db < one.sqnr_db + NEARER_DB)
            for other in rivals
        )
        if not beaten:
            found.append(one)
    return found


def judge(peer: str, rungs: Sequence[str], compare: Callable[[str, str], Comparison]) -> Verdict:
    """Whether any of our rungs is at least as good as `peer`; `compare(rung, peer)`."""
    found = [compare(rung, peer) for rung in rungs]
    if not found:
        return Verdict(peer, met=False, nearest=None)
    nearest = min(found, key=lambda one: (len(one.misses()), sum(one.misses().values())))
    return Verdict(peer, met=not nearest.misses(), nearest=nearest)
