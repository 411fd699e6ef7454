"""Between cuts that a budget asks for and those that answer alike: where to look next (pure)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compression.choosing import bounds, verdict
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.job import Budget

CLOSE = 1.15
"""Where one look takes less than this times another, nothing is looked for between them."""


@dataclass(frozen=True)
class Gap:
    """Multiples of the bounds, between which it is not known whether a cut answers alike."""

    otherwise: float
    """The most at which one does not; 1: the bounds themselves."""
    alike: float
    """The least at which one does."""

    @property
    def middle(self) -> float:
        """Halfway, as ratios go."""
        return math.sqrt(self.otherwise * self.alike)


def gap(
    looks: Iterable[Preview], cuts: Iterable[Preview], wanted: Bounds, budget: Budget
) -> Gap | None:
    """Return what is open between all `looks` and the `cuts` among them; None where nothing is.

    Only cuts say how deep is too deep: what else answers otherwise does so for other reasons.
    Nothing is open where no look answers alike. Nothing is where one that does keeps the bounds of
    time and size. Nothing is where it lies next to a cut that does not, or to the bounds.
    """
    nearest = min((_times(one, wanted) for one in looks if _alike(one, budget)), default=math.inf)
    deep = [_times(one, wanted) for one in cuts if one.agreement and not _alike(one, budget)]
    deepest = max((one for one in deep if 1.0 < one < nearest), default=1.0)
    if math.isinf(nearest) or nearest <= CLOSE * deepest:
        return None
    return Gap(otherwise=deepest, alike=nearest)


def _times(look: Preview, wanted: Bounds) -> float:
    return verdict.times(look, ratio=wanted.ratio, size_bytes=wanted.size_bytes)


def _alike(look: Preview, budget: Budget) -> bool:
    return bounds.reached([look], Bounds(), budget)
