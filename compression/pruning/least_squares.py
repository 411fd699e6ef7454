"""Least squares from moments that are streamed: summed up sample by sample, solved at any ridge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Sums:
    """Moments of inputs x and targets y: float64 [groups, ...]."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self.count = 0
        self.x, self.y = np.zeros((groups, inputs)), np.zeros((groups, outputs))
        self.xx = np.zeros((groups, inputs, inputs))
        self.xy = np.zeros((groups, inputs, outputs))
        self.yy = np.zeros((groups, outputs))

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        self.count += x.shape[1]
        self.x += x.sum(1, dtype=np.float64)
        self.y += y.sum(1, dtype=np.float64)
        turned = np.swapaxes(x, 1, 2)
        self.xx += turned @ x
        self.xy += turned @ y
        self.yy += np.square(y, dtype=np.float64).sum(1)

    def plus(self, other: "Sums") -> "Sums":
        found = Sums(*self.x.shape, self.y.shape[1])
        for name in ("count", "x", "y", "xx", "xy", "yy"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found

    def centred(self, *, shifts: bool) -> "Centred":
        count = max(1, self.count)
        x, y = self.x / count, self.y / count
        xx, xy, yy = self.xx / count, self.xy / count, self.yy / count
        if shifts:
            xx = xx - x[:, :, None] * x[:, None, :]
            xy = xy - x[:, :, None] * y[:, None, :]
            yy = yy - y**2
        return Centred(x, y, xx, xy, yy, shifts)


@dataclass(frozen=True)
class Centred:
    """Means and second moments, about the means where a bias takes these over."""

    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats
    shifts: bool

    @property
    def scale(self) -> Floats:
        """The mean of each Gram matrix's diagonal, [groups]."""
        found: Floats = np.trace(self.xx, axis1=1, axis2=2) / self.xx.shape[1]
        return found

    def bias(self, weights: Floats) -> Floats:
        """What takes the means over, [groups, outputs]."""
        found: Floats = self.y - (self.x[:, None, :] @ weights)[:, 0]
        return found

    def error(self, weights: Floats, bias: Floats) -> float:
        """The mean square of what y lacks, summed over outputs; `weights` [groups, in, out]."""
        lost = self.yy - 2 * (weights * self.xy).sum(1) + ((self.xx @ weights) * weights).sum(1)
        if self.shifts:
            lost = lost + (self.bias(weights) - bias) ** 2
        return float(np.maximum(lost, 0).sum())

    def solve(self, prior: Floats, ridge: float) -> Floats:
        """The weights [groups, in, out] with least error, drawn to `prior`."""
        strength = ridge * np.maximum(self.scale, 1e-30)[:, None, None]
        eye = np.eye(self.xx.shape[1])
        right = self.xy + strength * prior
        return np.asarray(np.linalg.solve(self.xx + strength * eye, right), np.float64)
