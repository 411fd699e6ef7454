"""Rounds one constant to 8 or 16 bits, with as few scales as keep its error small (pure)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUNDS: dict[type[np.signedinteger[Any]], int] = {np.int8: 127, np.int16: 32767}
"""The largest integer of each width; its negative is the smallest."""
LONGEST_BLOCK, SHORTEST_BLOCK = 64, 16
"""Values that share a scale where one for each channel is too coarse."""
_LEAST_SCALE = float(np.finfo(np.float32).tiny) * 2**10


@dataclass(frozen=True)
class Packed:
    """A constant is (integers x scale), reshaped to `shape`; `scale` broadcasts to `integers`."""

    integers: NDArray[np.signedinteger[Any]]
    scale: NDArray[np.float32]
    shape: tuple[int, ...]

    @property
    def reshaped(self) -> bool:
        """Whether the integers are laid out in blocks."""
        return self.integers.shape != self.shape

    @property
    def bytes(self) -> int:
        """What integers and scales take."""
        return int(self.integers.nbytes + self.scale.nbytes)

    def expand(self) -> NDArray[np.float32]:
        """Return the float32 values that they stand for."""
        return (self.integers.astype(np.float32) * self.scale).reshape(self.shape)


def pack(values: NDArray[Any], *, kept: tuple[int, ...], least_db: float) -> Packed:
    """Round with one scale for each index along the axes `kept`, or in blocks where that is coarse.

    Coarse is a signal-to-noise ratio, averaged over the scales, below `least_db`.
    """
    packed = rounded(values, kept=kept)
    if noise_db(values, packed, kept=kept) >= least_db:
        return packed
    blocks = _in_blocks(values, kept=kept)
    return packed if blocks is None else blocks


def rounded(
    values: NDArray[Any], *, kept: tuple[int, ...], width: type[np.signedinteger[Any]] = np.int8
) -> Packed:
    """Round with one symmetric scale for each index along the axes `kept`."""
    bound = BOUNDS[width]
    axes = tuple(at for at in range(values.ndim) if at not in kept)
    largest = np.abs(values).max(axis=axes, keepdims=True, initial=0.0)
    scale = np.maximum(largest.astype(np.float64) / bound, _LEAST_SCALE).astype(np.float32)
    integers = np.clip(np.rint(values / scale), -bound, bound).astype(width)
    return Packed(integers, scale, values.shape)


def noise_db(values: NDArray[Any], packed: Packed, *, kept: tuple[int, ...]) -> float:
    """Return the signal-to-noise ratio in dB: noise to signal, averaged over the axes `kept`.

    Averaged so that a channel of small values counts as much as a channel of large ones.
    """
    axes = tuple(at for at in range(values.ndim) if at not in kept)
    wide = values.astype(np.float64)
    noise = ((wide - packed.expand()) ** 2).sum(axis=axes)
    signal = (wide**2).sum(axis=axes)
    ratio = float(np.mean(np.where(signal > 0, noise / np.where(signal > 0, signal, 1), 0)))
    return -10 * float(np.log10(max(ratio, 1e-20)))


def _in_blocks(values: NDArray[Any], *, kept: tuple[int, ...]) -> Packed | None:
    """Round with one scale for each block of up to 64 values; None where no block fits.

    Blocks lie along the axes that are not kept, which must be the last ones or the first ones.
    """
    shape, count = values.shape, len(kept)
    if kept == tuple(range(count)):  # channels first: [channels..., blocks, block]
        length = _block(int(np.prod(shape[count:])))
        view = values.reshape(*shape[:count], -1, length or 1)
        axis = view.ndim - 1
    elif kept == tuple(range(values.ndim - count, values.ndim)):  # [blocks, block, channels...]
        length = _block(int(np.prod(shape[: values.ndim - count])))
        view = values.reshape(-1, length or 1, *shape[values.ndim - count :])
        axis = 1
    else:
        return None
    if not length:
        return None
    blocks = rounded(view, kept=tuple(at for at in range(view.ndim) if at != axis))
    return Packed(blocks.integers, blocks.scale, shape)


def _block(length: int) -> int:
    """The longest block that divides `length`; 0 where there is none."""
    fits = [size for size in range(SHORTEST_BLOCK, LONGEST_BLOCK + 1) if length % size == 0]
    return max(fits, default=0)
