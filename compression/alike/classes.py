"""Outputs that are classes, row by row: the same answer, and how far apart (numpy only).

Two rows agree when the class that the candidate answers, its first largest, is among those that
the original holds for equally best. The reverse tie does not agree: a candidate that answers the
same for all classes would agree with everything. Outputs of integers, booleans or strings without
an `axis` are the classes themselves.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike.interval import Agreed, Running
from compression.errors import BadInputs
from compression.job import OutputSpec

Array = NDArray[Any]
Bools = NDArray[np.bool_]
_LEAST_SHARE = 1e-12


def axis_of(spec: OutputSpec, a: Array, default: int = -1) -> int:
    """The class axis of an output.

    Raises:
        BadInputs: it has no such axis.
    """
    axis = default if spec.axis is None else spec.axis
    if not -a.ndim <= axis < a.ndim:
        raise BadInputs(
            f"cannot judge output {spec.name!r} of shape {list(a.shape)}: no axis {axis}"
        )
    return axis


def are_classes(spec: OutputSpec, a: Array) -> bool:
    """Whether values are classes, not figures per class."""
    return spec.axis is None and not np.issubdtype(a.dtype, np.inexact)


def answers(spec: OutputSpec, a: Array) -> Array:
    """The class of each row (its first largest); without the class axis."""
    a = np.atleast_1d(a)
    return a if are_classes(spec, a) else np.asarray(a.argmax(axis=axis_of(spec, a)))


def same(spec: OutputSpec, a: Array, b: Array) -> Bools:
    """Which rows agree, shaped as `answers`; see the head of this file for ties."""
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    if are_classes(spec, a):
        return np.asarray(a == b)
    axis = axis_of(spec, a)
    answered = np.take_along_axis(a, b.argmax(axis=axis, keepdims=True), axis)
    return np.asarray((answered == a.max(axis=axis, keepdims=True)).squeeze(axis))


def rows(spec: OutputSpec, a: Array, b: Array) -> float:
    """Share of rows with the same class."""
    return float(same(spec, a, b).mean()) if a.size else 1.0


def divergence_nats(spec: OutputSpec, a: Array, b: Array) -> float | None:
    """Mean over rows of KL(original || candidate) in nats; None where values are not per class."""
    if are_classes(spec, a) or not a.size or not a.ndim:
        return None
    axis = axis_of(spec, a)
    p, q = _probabilities(a, axis), _probabilities(b, axis)
    ratio = np.log(np.maximum(p, _LEAST_SHARE) / np.maximum(q, _LEAST_SHARE))
    found = float((p * ratio).sum(axis=axis).mean())
    return max(0.0, found) if np.isfinite(found) else None


def _probabilities(a: Array, axis: int) -> Array:
    """Probabilities in the dtype given: a float32 is as good here, and quick on small CPUs."""
    values = a if a.dtype == np.float64 else a.astype(np.float32, copy=False)
    if values.min() >= 0 and np.allclose(values.sum(axis=axis), 1.0, atol=1e-2):
        return values
    with np.errstate(invalid="ignore"):  # rows of infinities become NaN, which the caller leaves
        powered = np.exp(values - values.max(axis=axis, keepdims=True))
    return np.asarray(powered / powered.sum(axis=axis, keepdims=True))


class Rows:
    """Logits: rows with the same class; also how far the distributions are apart."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._rows = Running()
        self._divergence = Divergence(spec)

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample."""
        self._rows.add(rows(self._spec, a, b) if sound else 0.0)
        self._divergence.add(a, b, sound=sound)

    def agreed(self) -> Agreed:
        """Share of rows."""
        return self._rows.agreed(self._divergence.figures())


class Divergence:
    """The mean divergence of distributions over samples; a loss, beside the agreement."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._sum, self._count = 0.0, 0

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample."""
        found = divergence_nats(self._spec, a, b) if sound else None
        if found is not None:
            self._sum, self._count = self._sum + found, self._count + 1

    def figures(self) -> dict[str, float]:
        """`kl_nats`, where it is defined."""
        return {"kl_nats": self._sum / self._count} if self._count else {}
