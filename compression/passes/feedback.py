"""Rounds weights one after the other, each taking over what rounding did to those before (pure).

With H = Y^T Y of a layer's inputs, rounding weight i by e changes the output least when the weights
after it move by -e U[i, i+1:] / U[i, i], with U^T U = H^-1 and U upper triangular: Hassibi and
Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992; Frantar
et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK = 64
"""Weights whose changes are carried to all later ones at once."""


@dataclass(frozen=True)
class Limits:
    """Which integers a weight may be: |q| <= `single`, and neighbours 2i and 2i + 1 of one sign
    with |q| + |q'| <= `pair` (None: any).

    Without a dot product instruction x86 sums the products of such neighbours with inputs up to
    255 in 16 bits (VPMADDUBSW), which saturates above 128 x 255.
    """

    single: int
    pair: int | None = None

    def scales(self, weights: Floats) -> Floats:
        """Return the least scales [...] with which weights [..., inputs] stay within."""
        least: Floats = np.abs(weights).max(axis=-1, initial=0.0) / self.single
        if self.pair is not None:
            even = weights.shape[-1] // 2 * 2
            first, second = weights[..., 0:even:2], weights[..., 1:even:2]
            signed = [np.maximum(s * first, 0) + np.maximum(s * second, 0) for s in (1, -1)]
            both = np.maximum(*signed).max(axis=-1, initial=0.0)
            least = np.maximum(least, both / self.pair)
        return least

    def nearest(self, values: Floats, before: Floats | None) -> Floats:
        """Round to allowed integers; `before` are those of the neighbours, already rounded."""
        low = high = np.float64(self.single)
        if self.pair is not None and before is not None:
            high = np.minimum(high, self.pair - np.maximum(before, 0.0))
            low = np.minimum(low, self.pair - np.maximum(-before, 0.0))
        return np.asarray(np.clip(np.rint(values), -low, high))


def upper(gram: Floats, *, damping: float) -> Floats | None:
    """Return U, upper triangular, with U^T U the inverse of `gram` + damping, float64 [g, n, n].

    `damping` is in parts of the mean of the diagonal, which keeps dead and doubled inputs apart.
    None where nothing was seen, or where numbers are beyond what doubles can tell apart.
    """
    inputs = gram.shape[-1]
    power = np.trace(gram, axis1=-2, axis2=-1) / inputs
    if not np.isfinite(power).all() or not (power > 0).any():
        return None
    power = np.where(power > 0, power, power.max())
    damped = gram + damping * power[:, None, None] * np.eye(inputs)
    try:
        inverse = np.linalg.inv(damped)
        inverse = (inverse + np.swapaxes(inverse, -1, -2)) / 2
        return np.swapaxes(np.linalg.cholesky(inverse), -1, -2)
    except np.linalg.LinAlgError:
        return None


def round_all(
    weights: Floats,
    scales: Floats,
    factor: Floats,
    limits: Limits,
    *,
    zeros: NDArray[np.bool_] | None = None,
) -> Floats:
    """Return integers [g, outputs, n] for weights of that shape, with scales [g, outputs].

    `factor` is what `upper` gives. `zeros` says which weights stay zero, whatever others leave
    them to take over: it goes on to those behind.
    """
    left = weights / scales[..., None]
    rounded = np.zeros_like(left)
    inputs = left.shape[-1]
    for begin in range(0, inputs, _BLOCK):
        end = min(begin + _BLOCK, inputs)
        errors = np.zeros((*left.shape[:-1], end - begin))
        for at in range(begin, end):
            neighbour = rounded[..., at - 1] if at % 2 else None
            rounded[..., at] = limits.nearest(left[..., at], neighbour)
            if zeros is not None:
                rounded[..., at] = np.where(zeros[..., at], 0.0, rounded[..., at])
            error = (left[..., at] - rounded[..., at]) / factor[:, None, at, at]
            errors[..., at - begin] = error
            left[..., at + 1 : end] -= error[..., None] * factor[:, None, at, at + 1 : end]
        left[..., end:] -= errors @ factor[:, begin:end, end:]
    return rounded


def round_plain(weights: Floats, scales: Floats, limits: Limits) -> Floats:
    """Return the nearest allowed integers, each weight by itself but for its neighbour."""
    values = weights / scales[..., None]
    rounded = np.asarray(limits.nearest(values, None))
    if limits.pair is not None:
        even = values.shape[-1] // 2 * 2
        rounded[..., 1:even:2] = limits.nearest(values[..., 1:even:2], rounded[..., 0:even:2])
    return rounded


def error(weights: Floats, rounded: Floats, gram: Floats) -> Floats:
    """Return the output error [g, outputs] of weights that differ: d H d^T."""
    change = weights - rounded
    return np.asarray(np.einsum("goi,gij,goj->go", change, gram, change, optimize=True))
