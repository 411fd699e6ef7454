"""How much of each layer goes, where all together lose a share: one threshold for all (pure).

A weight's score is its part of what its layer makes, squared. Layers whose weights differ much
give more, those that need all of theirs give less.
"""

import numpy as np
from numpy.typing import NDArray

_BINS = 4096
_LEAST, _MOST = -24.0, 0.0
"""Powers of ten that are told apart."""
MOST_SHARE = 0.98
"""Of one layer: what is left must be able to stand in for the rest."""


class Scores:
    """A histogram of each layer's scores, so that they need not all be held."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, name: str, scores: NDArray[np.float64]) -> None:
        """Add one layer; scores are at least 0, of any scale."""
        shares = scores.ravel() / max(float(scores.sum()), 1e-300)
        with np.errstate(divide="ignore"):
            powers = np.clip(np.log10(shares), _LEAST, _MOST)
        bins = ((powers - _LEAST) / (_MOST - _LEAST) * (_BINS - 1)).astype(np.int64)
        self._counts[name] = np.bincount(bins, minlength=_BINS)

    def shares(self, share: float) -> dict[str, float]:
        """Return the share of each layer that goes, so that `share` of all weights go."""
        counts = np.stack(list(self._counts.values()))
        sizes = counts.sum(axis=1)
        below = np.cumsum(counts, axis=1) / np.maximum(sizes, 1)[:, None]
        # Of each layer the share below each threshold; below the first of all nothing is.
        below = np.minimum(MOST_SHARE, np.pad(below, ((0, 0), (1, 0))))
        gone = sizes @ below
        wanted = min(share * sizes.sum(), gone[-1])
        at = int(np.searchsorted(gone, wanted))
        found = below[:, at]
        if at:  # between two steps of the histogram, evenly
            part = (wanted - gone[at - 1]) / max(gone[at] - gone[at - 1], 1e-9)
            found = below[:, at - 1] + part * (found - below[:, at - 1])
        return dict(zip(self._counts, found.tolist(), strict=True))
