"""How the values of a tensor are spread, in constant memory, and the range that rounds them best.

The range to count in is known before (a first pass finds it), so that every bin is in place from
the start and two bins never have to be merged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 2048
STATE_BYTES = BINS * 8
MOST_VALUES = 2**16
"""Of one tensor of one sample; of more, evenly spaced ones are counted."""
_ENDS = 96
"""Ends that are tried on each side of zero; the mean error is flat around the best one."""


@dataclass(frozen=True)
class Histogram:
    """Counts in `BINS` bins of equal width over [low, high]; `zeros` are those exactly 0."""

    low: float
    high: float
    counts: NDArray[np.int64]
    zeros: int

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        width = (self.high - self.low) / BINS
        return np.asarray(self.low + width * (np.arange(BINS) + 0.5), np.float64)


class Counter:
    """Counts values into bins over a range given before; its size never changes."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._counts = np.zeros(BINS, np.int64)
        self._zeros = 0
        self._samples = 0

    def add(self, values: NDArray[Any]) -> None:
        """Take in the values of one sample; what lies outside of the range goes to its ends.

        NaN are not counted.
        """
        flat = values.ravel()
        # An odd step that begins elsewhere each time does not keep to the columns of an image.
        step = -(-flat.size // MOST_VALUES) | 1 if flat.size > MOST_VALUES else 1
        picked = flat[self._samples % step :: step].astype(np.float64)
        self._samples += 1
        picked = picked[~np.isnan(picked)]
        zeros = int(np.count_nonzero(picked == 0.0))
        self._zeros += zeros
        width = (self._high - self._low) / BINS
        if not width > 0.0:  # a constant, or ends so near that no number lies between
            self._counts[0] += picked.size
            return
        at = np.clip((picked - self._low) / width, 0, BINS - 1).astype(np.int64)
        self._counts += np.bincount(at, minlength=BINS)

    def histogram(self) -> Histogram:
        """What was counted so far."""
        return Histogram(self._low, self._high, self._counts.copy(), self._zeros)


def least_error_range(found: Histogram, *, steps: int = 255) -> tuple[float, float]:
    """Return the (low, high) around zero that `steps` equal steps round with least mean square.

    The error of a range is what rounding does to the values inside, step**2 / 12 for each but
    those exactly 0, which is always a step, and what clipping does to the values outside, their
    squared distance from its ends: Sung, Shin and Hwang, "Resiliency of Deep Neural Networks
    under Quantization", 2015; Banner et al., "Post training 4-bit quantization of convolutional
    networks for rapid-deployment", NeurIPS 2019. Never wider than the range counted in.
    """
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    counts = found.counts.astype(np.float64)
    centres = found.centres
    lows = np.linspace(low, 0.0, _ENDS) if low < 0.0 else np.zeros(1)
    highs = np.linspace(high, 0.0, _ENDS) if high > 0.0 else np.zeros(1)
    moments = [counts, counts * centres, counts * centres**2]
    above = _beyond(highs, centres, moments)
    below = _beyond(-lows, -centres[::-1], [m[::-1] * (-1) ** at for at, m in enumerate(moments)])
    inside = counts.sum() - below.count[:, None] - above.count[None, :] - found.zeros
    step = (highs[None, :] - lows[:, None]) / steps
    rounding = np.maximum(inside, 0.0) * step**2 / 12.0
    error = below.error[:, None] + above.error[None, :] + rounding
    at_low, at_high = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[at_low]), float(highs[at_high])


@dataclass(frozen=True)
class _Beyond:
    count: NDArray[np.float64]
    error: NDArray[np.float64]


def _beyond(
    ends: NDArray[np.float64], centres: NDArray[np.float64], moments: list[NDArray[np.float64]]
) -> _Beyond:
    """How many values lie above each end, and the sum of their squared distances from it.

    From sums of 1, x and x**2 over the bins above: S2 - 2 e S1 + e**2 S0.
    """
    first = np.searchsorted(centres, ends, side="right")
    s0, s1, s2 = (np.append(np.cumsum(part[::-1])[::-1], 0.0)[first] for part in moments)
    return _Beyond(s0, np.maximum(s2 - 2.0 * ends * s1 + ends**2 * s0, 0.0))
