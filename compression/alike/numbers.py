"""Outputs that are plain numbers: signal and error power, scores about a threshold (numpy only)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike.interval import FEW, Agreed, Reservoir, Running, wilson
from compression.job import OutputSpec

Array = NDArray[Any]
EXACT_DB = 200.0
MOST_PAIRS = 4096
"""Pairs of scores that are kept to correlate their ranks."""
MOST_OF_ONE = 32
"""Of them, the most from one sample."""
_HALF = 0.5
_WITHOUT_BOUND = 1e20
"""Times the signal: the error of an answer that cannot be compared."""
_LARGEST = 1e145
"""Beyond it squares of doubles, and sums of many, would be no numbers any more."""
_RESAMPLED = 400


def powers(original: Array, candidate: Array) -> tuple[float, float]:
    """Signal and error power (sums of squares); an answer that cannot be compared is all error.

    NaN on either side cannot be compared; infinities are equal where both have them. Of what is
    not numbers (class names), the power is the count, the error the count of differences.
    """
    if original.dtype.kind in "OSU" or candidate.dtype.kind in "OSU":
        return _differences(original, candidate)
    a = np.asarray(original, np.float64)
    if np.shape(original) != np.shape(candidate):
        signal = _power(np.where(np.isfinite(a), a, 0.0))
        return signal, max(signal, 1.0) * _WITHOUT_BOUND
    b = np.asarray(candidate, np.float64)
    with np.errstate(invalid="ignore"):  # of two equal infinities
        difference = a - b
    if not np.isfinite(difference).all():
        difference[a == b] = 0.0
        a = np.where(np.isfinite(a), a, 0.0)
    signal, error = _power(a), _power(difference)
    return signal, error if np.isfinite(error) else max(signal, 1.0) * _WITHOUT_BOUND


def _power(values: NDArray[np.float64]) -> float:
    flat = values.ravel()
    if not np.abs(flat).max(initial=0.0) <= _LARGEST:  # NaN and infinities stay what they are
        flat = np.where(np.isfinite(flat), np.clip(flat, -_LARGEST, _LARGEST), flat)
    return float(np.einsum("i,i->", flat, flat))  # no BLAS: its threads wait for busy cores


def sqnr_db(signal: float, error: float) -> float:
    """Signal to quantization noise ratio, 10 log10(S / E), within -200 and 200 dB."""
    if error == 0.0:
        return EXACT_DB
    if signal == 0.0:
        return -EXACT_DB
    return float(np.clip(10.0 * np.log10(signal / error), -EXACT_DB, EXACT_DB))


def signal_share(spec: OutputSpec, a: Array, b: Array) -> float:
    """S / (S + E): .990 at an SQNR of 20 dB, .999 at 30 dB."""
    del spec
    signal, error = powers(a, b)
    return signal / (signal + error) if error else 1.0


def same_side(spec: OutputSpec, a: Array, b: Array) -> float:
    """Share of values on the same side of the threshold (0.5 where none is given)."""
    threshold = _HALF if spec.threshold is None else spec.threshold
    return float(((a >= threshold) == (b >= threshold)).mean()) if a.size else 1.0


class Scores:
    """Scores: how many stay on their side of the threshold, and whether their order stays.

    Where no threshold is named and all of the original's scores lie on one side of 0.5, that says
    nothing: then the agreement is the rank correlation of at most 4096 pairs.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._flips = Running()
        self._pairs = Reservoir(MOST_PAIRS)
        self._lowest, self._highest = np.inf, -np.inf
        self._unsound = 0

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample's scores; an unsound answer agrees with nothing."""
        self._flips.add(same_side(self._spec, a, b) if sound else 0.0)
        self._unsound += not sound
        if not sound or not a.size:
            return
        self._lowest = min(self._lowest, float(a.min()))
        self._highest = max(self._highest, float(a.max()))
        every = -(-a.size // MOST_OF_ONE)
        for pair in zip(a.ravel()[::every].tolist(), b.ravel()[::every].tolist(), strict=True):
            self._pairs.add(*pair)

    def agreed(self) -> Agreed:
        """Flips, or the order where there is no threshold that anything could cross."""
        pairs = np.array(self._pairs.items, np.float64).reshape(-1, 2)
        correlation = rank_correlation(pairs[:, 0], pairs[:, 1])
        also = {} if correlation is None else {"rank_correlation": correlation}
        one_sided = self._lowest >= _HALF or self._highest < _HALF
        nameless = self._spec.threshold is None and one_sided
        if correlation is None or not nameless or len(pairs) < FEW or self._unsound:
            return self._flips.agreed(also)
        low, high = _correlation_interval(pairs, correlation)
        value = max(0.0, correlation)
        return Agreed(value, min(low, value), max(high, value), self._flips.samples, also)


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation (ties share their mean rank); None where it is not defined."""
    if len(x) < 3:
        return None
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    if not norm:
        return 1.0 if np.array_equal(x, y) else (0.0 if float(a @ a) else None)
    return float(np.clip(a @ b / norm, -1.0, 1.0))


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[inverse.ravel()]


def _correlation_interval(pairs: NDArray[np.float64], value: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    found = [value]
    for _ in range(_RESAMPLED):
        one = rank_correlation(*pairs[rng.integers(0, len(pairs), len(pairs))].T)
        found.append(value if one is None else one)
    low, high = np.clip(np.quantile(found, (0.025, 0.975)), 0.0, 1.0)
    if low == high:  # a perfect order stays perfect in each replicate, and is no proof
        return wilson(float(low), len(pairs))
    return float(low), float(high)


def _differences(original: Array, candidate: Array) -> tuple[float, float]:
    signal = float(original.size)
    if original.shape != candidate.shape:
        return signal, max(signal, 1.0) * _WITHOUT_BOUND
    return signal, float(np.sum(original != candidate))
