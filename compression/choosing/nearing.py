"""Between cuts that a budget asks for and those that answer alike: where to look next (pure)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compression.choosing import bounds
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.job import Budget

CLOSE = 1.15
"""What costs more than another by less than this needs nothing between them."""


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


def gap(looks: Iterable[Preview], wanted: Bounds, budget: Budget) -> Gap | None:
    """Return what is open between the looks; None where nothing is.

    Nothing is open where a look that is close enough keeps the bounds of time and size, where none
    is close enough, and where the one that is lies next to what is not, or to the bounds.
    """
    made = [look for look in looks if look.agreement is not None]
    alike = [look for look in made if bounds.reached([look], Bounds(), budget)]
    nearest = min((_times(look, wanted) for look in alike), default=math.inf)
    beyond = [_times(look, wanted) for look in made if look not in alike]
    deepest = max((times for times in beyond if times < nearest), default=1.0)
    if nearest <= 1.0 or math.isinf(nearest) or nearest <= CLOSE * deepest:
        return None
    return Gap(otherwise=deepest, alike=nearest)


def _times(look: Preview, wanted: Bounds) -> float:
    """How many times the bounds a look takes of what it is over by most."""
    pairs = ((look.cpu_ratio, wanted.ratio), (look.size_bytes, wanted.size_bytes))
    return max((took / most for took, most in pairs if most), default=0.0)
