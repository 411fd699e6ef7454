"""Which single weights stay, by a score of each: a share of them, or so many of each few (pure).

Weights are rows [groups, outputs of a group, inputs]; a mask of that shape is true where one stays.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Scope = Literal["row", "layer"]
_BLOCK = 64
"""Inputs whose masks are chosen at once while the surgeon goes over a layer."""


@dataclass(frozen=True)
class Pattern:
    """How many weights stay: all but `share` of a row or of a layer, or `n` of each `m` inputs."""

    share: float
    scope: Scope = "row"
    n_of_m: tuple[int, int] | None = None

    def keep(self, scores: Floats) -> Mask:
        """Return which weights stay: those of the highest scores; of equal ones the first."""
        if self.n_of_m is not None:
            return _of_each(scores, *self.n_of_m)
        if self.scope == "row":
            return _highest(scores, self._count(scores.shape[-1]))
        flat = scores.reshape(1, -1)
        return _highest(flat, self._count(flat.shape[-1])).reshape(scores.shape)

    def _count(self, size: int) -> int:
        return size - round(self.share * size)


def _highest(scores: Floats, count: int) -> Mask:
    """The `count` highest along the last axis."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    keep = np.zeros(scores.shape, bool)
    np.put_along_axis(keep, order, True, axis=-1)
    return keep


def _of_each(scores: Floats, n: int, m: int) -> Mask:
    """The `n` highest of each `m` neighbours; of the few left over at the end all stay."""
    whole = scores.shape[-1] // m * m
    keep = np.ones(scores.shape, bool)
    blocks = scores[..., :whole].reshape(*scores.shape[:-1], -1, m)
    keep[..., :whole] = _highest(blocks, n).reshape(*scores.shape[:-1], whole)
    return keep


def by_magnitude(weights: Floats) -> Floats:
    """Score each weight by its size."""
    return np.abs(weights)


def by_activations(weights: Floats, powers: Floats) -> Floats:
    """Score by |w| * ||x||: Sun et al., "A Simple and Effective Pruning Approach for Large
    Language Models" (Wanda), 2023. `powers` are mean squares of the inputs, [groups, inputs].
    """
    return np.abs(weights) * np.sqrt(np.maximum(powers, 0.0))[:, None, :]


def surgeon(weights: Floats, factor: Floats, pattern: Pattern) -> tuple[Mask, Floats]:
    """Choose weights one input after the other, those behind taking over what went.

    Returns the mask, and the weights that stay with what they took over. `factor` is the upper
    triangular root of the inverse Gram matrix, [groups, inputs, inputs] (feedback.upper). Score
    and update are the Optimal Brain Surgeon's (Hassibi and Stork, 1993) in the order of the
    inputs: Frantar and Alistarh, "SparseGPT", 2023, arXiv 2301.00774.
    """
    left = weights.copy()
    keep = np.ones(weights.shape, bool)
    inputs = weights.shape[-1]
    width = (
        _BLOCK if pattern.n_of_m is None else -(-_BLOCK // pattern.n_of_m[1]) * pattern.n_of_m[1]
    )
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    for begin in range(0, inputs, width):
        end = min(begin + width, inputs)
        scores = (left[..., begin:end] / diagonal[:, None, begin:end]) ** 2
        keep[..., begin:end] = pattern.keep(scores)
        errors = np.zeros(scores.shape)
        for at in range(begin, end):
            lost = np.where(keep[..., at], 0.0, left[..., at]) / factor[:, None, at, at]
            errors[..., at - begin] = lost
            left[..., at + 1 : end] -= lost[..., None] * factor[:, None, at, at + 1 : end]
        left[..., end:] -= errors @ factor[:, begin:end, end:]
    return keep, np.where(keep, left, 0.0)
