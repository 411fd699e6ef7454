"""Changes inputs a little, so that few of them stand for many; the original answers the changed.

Pictures are moved by a few pixels, made lighter or darker and, for models of classes, mixed (Zhang
et al. 2018, "mixup"). Of other float inputs the level changes, with some noise. Whole numbers, and
inputs beside the main one (states, rates), stay: there is nothing near them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]
_LEAST_SIDE = 16
_SHIFT = 1 / 16
"""Of each side of a picture."""
_GAIN, _NOISE = 0.15, 0.02
_MIXED = 0.5
"""The share of samples that another one is mixed into."""


@dataclass(frozen=True)
class Augmenter:
    """`strength` 0 changes nothing, 1 is what fits most inputs."""

    strength: float
    mixes: bool
    """Whether answers to a mixture of two inputs mean anything."""

    def change(self, batch: Arrays, rng: np.random.Generator) -> Arrays:
        """Return a batch like `batch`; its arrays are not changed in place."""
        if self.strength <= 0:
            return batch
        name = main(batch)
        if name is None:
            return batch
        array = batch[name]
        changed = self._picture(array, rng) if is_picture(array) else self._signal(array, rng)
        return {**batch, name: np.ascontiguousarray(changed, np.float32)}

    def _picture(self, x: Floats, rng: np.random.Generator) -> Floats:
        if self.mixes and len(x) > 1:
            share = np.minimum(0.5, 0.5 * self.strength * rng.beta(0.3, 0.3, len(x)))
            share = np.where(rng.random(len(x)) < _MIXED, share, 0.0)
            share = share.astype(np.float32)[:, None, None, None]
            x = x * (1 - share) + x[rng.permutation(len(x))] * share
        return self._signal(self._moved(x, rng), rng)

    def _moved(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Move a batch as one; what comes in at the edge repeats the edge."""
        most = [round(self.strength * _SHIFT * side) for side in x.shape[2:]]
        by = [int(rng.integers(-one, one + 1)) for one in most]
        for axis, step in zip((2, 3), by, strict=True):
            places = np.clip(np.arange(x.shape[axis]) + step, 0, x.shape[axis] - 1)
            x = np.take(x, places, axis=axis)
        return x

    def _signal(self, x: Floats, rng: np.random.Generator) -> Floats:
        shape = (len(x),) + (1,) * (x.ndim - 1)
        gain = 1 + self.strength * _GAIN * rng.uniform(-1, 1, shape)
        noise = self.strength * _NOISE * float(x.std()) * rng.random(shape)
        made = x * gain + noise * rng.standard_normal(x.shape, np.float32)
        return np.asarray(made, np.float32)


def main(batch: Arrays) -> str | None:
    """The input that is changed: the largest one of floats."""
    floats = [name for name, array in batch.items() if array.dtype == np.float32]
    return max(floats, key=lambda name: batch[name].size, default=None)


def is_picture(array: NDArray[Any]) -> bool:
    """Whether an array is [N, 1 or 3, H, W]."""
    return array.ndim == 4 and array.shape[1] in {1, 3} and min(array.shape[2:]) >= _LEAST_SIDE
