"""From what kernels cost to how long a whole model takes: corrected by models that were measured.

Costs of kernels add up to most of the truth. Alone their data lies nearer than in a large model,
and a session costs something itself: an intercept and a slope over all that was measured, and the
ratio by which the likest of it missed them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEAST_SPREAD = 1.5
"""Costs nearer than this say nothing of an intercept: their own errors would decide it."""
_USUALLY_FIXED = 0.05
"""Where nothing says more: of the quickest measured model, what hangs on no kernel."""
_MOST_FIXED = 0.2
"""Of the quickest measured model, the most that hangs on no kernel."""


@dataclass(frozen=True)
class Whole:
    """A measured model: what its kernels cost together, and its CPU time over the original's.

    `family` is the same for models that run in the same kernels and differ in widths alone.
    """

    family: str
    cost: float
    ratio: float


@dataclass(frozen=True)
class Line:
    """ratio = fixed + slope x cost."""

    fixed: float
    slope: float

    def at(self, cost: float) -> float:
        """The ratio that a cost makes."""
        return self.fixed + self.slope * cost


def fit(known: Sequence[Whole]) -> Line:
    """Return the line of least relative error through what was measured (at least one model).

    It always rises, and begins at zero or a little above: at a twentieth of the least ratio
    where costs lie too near to one another to tell.
    """
    costs = np.array([one.cost for one in known])
    ratios = np.array([one.ratio for one in known])
    share = _USUALLY_FIXED
    if costs.max() >= _LEAST_SPREAD * costs.min():
        rows = np.stack([1 / ratios, costs / ratios], axis=1)
        fixed, slope = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
        if slope > 0:
            share = min(max(float(fixed) / float(ratios.min()), 0.0), _MOST_FIXED)
    fixed = share * float(ratios.min())
    left = (ratios - fixed) / ratios
    return Line(fixed, float((left * costs / ratios).sum() / np.square(costs / ratios).sum()))


def ratio(cost: float, family: str, known: Sequence[Whole]) -> float:
    """Predict a model's CPU time over the original's from what its kernels cost.

    By the line, times the ratio by which those of its family missed it (their geometric mean).
    """
    line = fit(known)
    like = [one for one in known if one.family == family]
    missed = [np.log(one.ratio / max(line.at(one.cost), 1e-9)) for one in like]
    return line.at(cost) * float(np.exp(np.mean(missed))) if missed else line.at(cost)


def cost_for(wanted: float, family: str, known: Sequence[Whole]) -> float:
    """What kernels may cost together so that a model of a family has this ratio; 0 where none."""
    line = fit(known)
    off = ratio(1.0, family, known) / max(line.at(1.0), 1e-9)
    return max(0.0, (wanted / off - line.fixed) / line.slope)
