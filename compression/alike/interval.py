"""Means of scores and their 95 % intervals, sample by sample in constant memory (numpy only)."""

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

REPLICATES = 1000
FEW = 8
"""Below this a bootstrap knows too little of the spread; Wilson's bound is used."""
_Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Agreed:
    """How alike two outputs are, as a share with its 95 % interval; `also` are further figures."""

    value: float
    low: float
    high: float
    samples: int
    also: dict[str, float] = field(default_factory=dict)


class Running:
    """The weighted mean of scores in [0, 1]: sum of `agreeing` over sum of `of`.

    Its interval is Wilson's where every score is 0 or 1 of equal weight, where all are the same,
    or where there are fewer than 8: no mean of values in [0, 1] varies more than a proportion.
    Else it is a Poisson bootstrap over samples (Chamandy et al. 2012, "Estimating uncertainty for
    massive data streams"): 1000 replicates, seeded, each sample weighed by a Poisson(1) number.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._replicates = np.zeros((2, REPLICATES))
        self._agreeing = self._of = self._squares = 0.0
        self._judged = 0
        self._scores: set[float] = set()
        self._weights: set[float] = set()
        self.samples = 0

    def add(self, agreeing: float, of: float = 1.0) -> None:
        """Count one sample; `of` 0 says that it holds nothing to judge."""
        self.samples += 1
        if of <= 0.0:
            return
        self._judged += 1
        self._agreeing += agreeing
        self._of += of
        self._squares += of * of
        for seen, value in ((self._scores, agreeing / of), (self._weights, of)):
            if len(seen) <= 2:
                seen.add(value)
        weights = self._rng.poisson(1.0, REPLICATES)
        self._replicates += weights * np.array([[agreeing], [of]])

    @property
    def value(self) -> float:
        """The mean; 1 where no sample held anything to judge."""
        return min(1.0, max(0.0, self._agreeing / self._of)) if self._of else 1.0

    def agreed(self, also: dict[str, float] | None = None) -> Agreed:
        """The mean with its interval."""
        low, high = self._interval()
        return Agreed(self.value, low, high, self.samples, also or {})

    def _interval(self) -> tuple[float, float]:
        if not self._judged:
            return wilson(1.0, max(1, self.samples))
        yes_or_no = self._scores <= {0.0, 1.0} and len(self._weights) == 1
        if self._judged < FEW or yes_or_no or len(self._scores) == 1:
            # Kish's effective number: a few heavy samples tell less than many light ones.
            return wilson(self.value, self._of**2 / self._squares)
        agreeing, of = self._replicates[:, self._replicates[1] > 0]
        low, high = np.quantile(agreeing / of, (0.025, 0.975))
        return max(0.0, min(float(low), self.value)), min(1.0, max(float(high), self.value))


def wilson(mean: float, count: float) -> tuple[float, float]:
    """Wilson's score interval (1927) at 95 % of a proportion `mean` of `count` trials."""
    square = _Z95**2
    centre = (mean + square / (2 * count)) / (1 + square / count)
    spread = mean * (1 - mean) / count + square / (4 * count**2)
    half = _Z95 * float(np.sqrt(max(0.0, spread))) / (1 + square / count)
    return max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))


class Reservoir:
    """At most `most` of the items that came, each equally likely to stay (Vitter's algorithm R)."""

    def __init__(self, most: int, seed: int = 0) -> None:
        self._most = most
        self._rng = np.random.default_rng(seed)
        self._came = 0
        self.items: list[tuple[object, ...]] = []

    def add(self, *item: object) -> None:
        """Offer one item."""
        self._came += 1
        if len(self.items) < self._most:
            self.items.append(item)
            return
        place = int(self._rng.integers(0, self._came))
        if place < self._most:
            self.items[place] = item
