"""Scales, zero points and rounding of values to 8 and 32 bits (pure)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

WeightFormat = Literal["s8", "s8-7bit", "u8"]
# Format -> (dtype, zero point, largest distance from it). Seven bits: u8 x s8 products are summed
# in pairs in 16 bits without VNNI, and 2 x 255 x 64 is the most that fits (VPMADDUBSW saturates).
WEIGHTS: dict[WeightFormat, tuple[str, int, int]] = {
    "s8": ("int8", 0, 127),
    "s8-7bit": ("int8", 0, 64),
    "u8": ("uint8", 128, 127),
}
_LEAST_SCALE = float(np.finfo(np.float32).tiny) * 2**10


@dataclass(frozen=True)
class Grid:
    """The values that can be written: scale x (q - zero_point). `scale` is [] or [channels]."""

    scale: NDArray[np.float32]
    zero_point: int
    dtype: str
    bound: int | None = None
    """The largest |q - zero_point|; None: what the dtype holds."""

    def round(self, values: NDArray[Any], *, axis: int | None) -> NDArray[Any]:
        """Round values to the nearest q, half to even as QuantizeLinear does."""
        scale = self.scale.astype(np.float64)
        if axis is not None:
            scale = scale.reshape([-1 if at == axis else 1 for at in range(values.ndim)])
        limits = np.iinfo(self.dtype)
        low, high = limits.min, limits.max
        if self.bound is not None:
            low = max(low, self.zero_point - self.bound)
            high = min(high, self.zero_point + self.bound)
        q = np.rint(values.astype(np.float64) / scale) + self.zero_point
        rounded: NDArray[Any] = np.clip(q, low, high).astype(self.dtype)
        return rounded


def activation_grid(low: float, high: float, *, kind: str, symmetric: bool) -> Grid:
    """Return the grid of 256 steps over [low, high], widened to hold zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        high = max(high, -low)
        low = -high
    scale = max((high - low) / (254.0 if symmetric else 255.0), 0.0)
    first = -128 if kind == "s8" else 0
    if scale < _LEAST_SCALE:
        return Grid(np.array(1.0, np.float32), first, _dtype(kind))
    zero = first + 128 if symmetric else round(first - low / scale)
    return Grid(np.array(scale, np.float32), int(np.clip(zero, first, first + 255)), _dtype(kind))


def weight_grid(
    values: NDArray[Any],
    *,
    kind: WeightFormat,
    axis: int | None = None,
    floor: NDArray[np.float64] | None = None,
) -> Grid:
    """Return the symmetric grid of weights: one scale, or one for each slice along `axis`.

    `floor` bounds the scales from below, so that the bias fits in 32 bits.
    """
    dtype, zero_point, bound = WEIGHTS[kind]
    axes = None if axis is None else tuple(at for at in range(values.ndim) if at != axis)
    largest = np.abs(values.astype(np.float64)).max(axis=axes, initial=0.0)
    scale = np.asarray(largest / bound)
    if floor is not None:
        scale = np.maximum(scale, floor if axis is not None else floor.max())
    # A channel of zeros needs some scale; one is as good as any.
    scale = np.where(scale < _LEAST_SCALE, 1.0, scale)
    return Grid(_not_below(scale), zero_point, dtype, bound)


def bias_floor(bias: NDArray[Any], x_scale: float) -> NDArray[np.float64]:
    """Return the least weight scales with which the bias stays within 31 bits."""
    floor: NDArray[np.float64] = np.abs(bias.astype(np.float64)) / (x_scale * 2.0**30)
    return floor


def bias_grid(weights: Grid, x_scale: float) -> Grid:
    """Return the grid that the integer accumulator has: scale sx x sw, zero point 0, 32 bits."""
    return Grid(np.asarray(weights.scale * np.float32(x_scale), np.float32), 0, "int32")


def _not_below(scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to float32 upwards, so that the largest weight stays inside the grid."""
    rounded = scale.astype(np.float32)
    up = np.where(rounded < scale, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return np.asarray(up, np.float32)


def _dtype(kind: str) -> str:
    return "int8" if kind == "s8" else "uint8"
