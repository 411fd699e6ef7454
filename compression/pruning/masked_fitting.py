"""Fits what is left of a layer's weights to what the original makes, and leaves zeros zero.

Masked least squares: of each output, only the weights that stay are solved for. All outputs
together by conjugate gradients on the normal equations (Hestenes and Stiefel, 1952), because each
has a mask of its own and a factorization for each would take hours.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.passes import feedback
from compression.pruning import masks
from compression.pruning.least_squares import Centred, Sums
from compression.pruning.masks import Floats, Mask, Pattern
from compression.pruning.pairs import Pair
from compression.pruning.refitting import Fitted

Order = Literal["magnitude", "activations", "surgeon"]
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Tried strengths, in parts of the mean of the Gram matrix's diagonal."""
_DAMPING = 0.01
_STEPS = 24
"""Beginning near the solution, more bring hardly anything."""
_CLOSE = 1e-3
"""Of the residual at the beginning."""


@dataclass(frozen=True)
class How:
    """How every layer is masked; `ridge` None: as samples decide that are not fitted to."""

    order: Order
    refit: bool
    ridge: float | None


class _Seen(NamedTuple):
    """Moments of the samples that are fitted to, of those that judge, and of all."""

    own: Centred
    other: Centred
    all: Centred

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(one.xx).all() and np.isfinite(one.xy).all() for one in self)


def fitter(
    patterns: Mapping[str, Pattern], how: How
) -> Callable[[onnx.ModelProto, Sequence[Pair], Sequence[tuple[Sums, Sums]]], Iterator[Fitted]]:
    """Return what masks one layer by its pattern, then fits what stays (`refitting.Fit`)."""

    def fit(
        model: onnx.ModelProto, chain: Sequence[Pair], sums: Sequence[tuple[Sums, Sums]]
    ) -> Iterator[Fitted]:
        for pair, (fits, judges) in zip(chain, sums, strict=True):
            three = (fits, judges, fits.plus(judges))
            seen = _Seen(*(one.centred(shifts=pair.shifts) for one in three))
            if seen.is_finite:
                yield _masked(model, pair, seen, patterns[pair.cut.name], how)

    return fit


def _masked(model: onnx.ModelProto, pair: Pair, seen: _Seen, pattern: Pattern, how: How) -> Fitted:
    """Mask one layer in place; how strongly weights are drawn, samples decide that fit nothing."""
    own, other = seen.own, seen.other
    dense, shift = pair.prior(model)
    keep, start = _chosen(dense, seen.all, pattern, how.order)
    energy = max(float(other.yy.sum()), 1e-30)
    before = other.error(np.where(keep, dense, 0.0), shift)
    error, strength = other.error(start, own.bias(start)), np.inf
    if how.refit:
        for ridge in RIDGES if how.ridge is None else (how.ridge,):
            weights = solve(own, start, keep, ridge)
            found = other.error(weights, own.bias(weights))
            if found < error or how.ridge is not None:
                error, strength = found, ridge
    final = start if np.isinf(strength) else solve(seen.all, start, keep, strength)
    pair.write(model, final, seen.all.bias(final))
    return Fitted(pair.cut.name, strength, before / energy, error / energy)


def _chosen(
    dense: Floats, both: Centred, pattern: Pattern, order: Order
) -> tuple[Mask, Floats]:  # fmt: skip
    """The mask [groups, inputs, outputs], and the weights that the fit begins with."""
    rows = np.swapaxes(dense, 1, 2)
    if order == "surgeon":
        factor = feedback.upper(both.xx, damping=_DAMPING)
        if factor is not None:
            keep, left = masks.surgeon(rows, factor, pattern)
            return np.swapaxes(keep, 1, 2), np.swapaxes(left, 1, 2)
    powers = np.diagonal(both.xx, axis1=1, axis2=2)
    if order == "magnitude" or not powers.any():  # of a dead layer nothing is known
        keep = pattern.keep(masks.by_magnitude(rows))
    else:
        keep = pattern.keep(masks.by_activations(rows, powers))
    return np.swapaxes(keep, 1, 2), np.swapaxes(np.where(keep, rows, 0.0), 1, 2)


def solve(sums: Centred, start: Floats, keep: Mask, ridge: float) -> Floats:
    """Return the weights [groups, inputs, outputs] of least error among those that are kept.

    Drawn to `start` by `ridge`. Jacobi-preconditioned conjugate gradients, a step size for each
    output.
    """
    strength = ridge * np.maximum(sums.scale, 1e-30)[:, None, None]
    scale = 1.0 / (np.diagonal(sums.xx, axis1=1, axis2=2)[..., None] + strength)

    def times(weights: Floats) -> Floats:
        return np.where(keep, sums.xx @ weights + strength * weights, 0.0)

    weights = start.copy()
    residual = np.where(keep, sums.xy - sums.xx @ start, 0.0)
    step = scale * residual
    power = _dot(residual, step)
    least = _CLOSE**2 * power.max(initial=0.0)
    for _ in range(_STEPS):
        if not power.max(initial=0.0) > least:
            break
        image = times(step)
        far = np.divide(power, _dot(step, image), out=np.zeros_like(power), where=power > 0)
        weights += far * step
        residual -= far * image
        scaled = scale * residual
        new = _dot(residual, scaled)
        step = scaled + np.divide(new, power, out=np.zeros_like(new), where=power > 0) * step
        power = new
    return weights


def _dot(a: Floats, b: Floats) -> NDArray[np.float64]:
    found: Floats = (a * b).sum(axis=1, keepdims=True)
    return found
