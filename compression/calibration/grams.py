"""What a layer's inputs have in common: means of channels, and Gram matrices X^T X in double."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

POSITIONS = 128
"""Of each sample, for the Gram matrix: neighbours in an image say nearly the same."""


@dataclass(frozen=True)
class Channels:
    """Sums over positions of x [channels], from `samples` samples.

    `mean` is over all `positions`. `gram` is the sum of x x^T over `picked` of them, float64
    [channels, channels], and `picked_mean` their mean; both are None where nobody asked.
    """

    samples: int
    positions: int
    mean: NDArray[np.float64]
    picked: int = 0
    picked_mean: NDArray[np.float64] | None = None
    gram: NDArray[np.float64] | None = None


class Sums:
    """Adds up one tensor, sample by sample; its size is that of one Gram matrix."""

    def __init__(self, axis: int, *, gram: bool, positions: int = POSITIONS, seed: int = 0) -> None:
        self._axis = axis
        self._wants_gram = gram
        self._most = positions
        self._seed = seed
        self._samples = self._positions = self._picked = 0
        self._sum: NDArray[np.float64] | None = None
        self._picked_sum: NDArray[np.float64] | None = None
        self._gram: NDArray[np.float64] | None = None

    def add(self, values: NDArray[Any]) -> None:
        """Take in one sample. Which positions are picked hangs on the seed and its number."""
        moved = np.moveaxis(values, self._axis, -1)
        channels = moved.shape[-1]
        if self._sum is None:
            self._sum = np.zeros(channels)
            self._picked_sum = np.zeros(channels)
            self._gram = np.zeros((channels, channels)) if self._wants_gram else None
        assert self._picked_sum is not None
        number, self._samples = self._samples, self._samples + 1
        count = moved.size // channels
        self._positions += count
        self._sum += moved.sum(axis=tuple(range(moved.ndim - 1)), dtype=np.float64)
        if self._gram is None:
            return
        rows = self._pick(moved, count, number).astype(np.float64)
        self._picked += len(rows)
        self._picked_sum += rows.sum(axis=0)
        self._gram += rows.T @ rows

    def _pick(self, moved: NDArray[Any], count: int, number: int) -> NDArray[Any]:
        if count <= self._most:
            return moved.reshape(count, -1)
        rng = np.random.default_rng((self._seed, number))
        at = rng.choice(count, self._most, replace=False, shuffle=False)
        rows: NDArray[Any] = moved[np.unravel_index(at, moved.shape[:-1])]
        return rows

    def channels(self) -> Channels:
        """What was added up so far; the matrix is not copied."""
        assert self._sum is not None, "nothing was added"
        found = Channels(self._samples, self._positions, self._sum / max(self._positions, 1))
        if self._gram is None or self._picked_sum is None:
            return found
        mean = self._picked_sum / max(self._picked, 1)
        return Channels(
            found.samples, found.positions, found.mean, self._picked, mean, self._gram
        )  # fmt: skip


def state_bytes(channels: int, *, gram: bool) -> int:
    """What the sums of one tensor hold, and for a moment one product beside them."""
    return 8 * channels * (2 + (2 * channels if gram else 0))
