"""Outputs that are classes: logits, and classes step by step (numpy only).

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
UNDECIDED = 32
"""Samples that are held back to find the class which most steps have, where no blank is named."""
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


def steps(spec: OutputSpec, a: Array, b: Array) -> float:
    """Share of steps with the same class, among those where either is not blank."""
    agreeing, of = counted(same(spec, a, b), answers(spec, a), answers(spec, b), spec.blank)
    return agreeing / of if of else 1.0


def counted(agree: Bools, ours: Array, theirs: Array, blank: int | None) -> tuple[int, int]:
    """Agreeing steps and steps, without those that are blank to both."""
    if blank is None:
        return int(agree.sum()), agree.size
    kept = (ours != blank) | (theirs != blank)
    return int(agree[kept].sum()), int(kept.sum())


def collapse(classes: Array, blank: int | None) -> list[Any]:
    """A sequence as CTC reads it: repeats become one, then blanks go (Graves et al. 2006).

    Without a blank the steps stay as they are.
    """
    if blank is None:
        return list(classes.tolist())
    first = np.ones(len(classes), bool)
    first[1:] = classes[1:] != classes[:-1]
    return list(classes[first & (classes != blank)].tolist())


def sequences(classes: Array) -> list[Array]:
    """The sequences among the steps of one sample: [T], [1, T] and [T, 1] hold one, [N, T] N."""
    if classes.ndim < 2 or 1 in classes.shape[:2]:
        return [classes.ravel()]
    return [row.ravel() for row in classes]


def divergence_nats(spec: OutputSpec, a: Array, b: Array) -> float | None:
    """Mean over rows of KL(original || candidate) in nats; None where values are not per class."""
    if are_classes(spec, a) or not a.size or not a.ndim:
        return None
    axis = axis_of(spec, a)
    p, q = _probabilities(a, axis), _probabilities(b, axis)
    ratio = np.log(np.maximum(p, _LEAST_SHARE) / np.maximum(q, _LEAST_SHARE))
    found = float((p * ratio).sum(axis=axis).mean())
    return max(0.0, found) if np.isfinite(found) else None


def _probabilities(a: Array, axis: int) -> NDArray[np.float64]:
    values = np.asarray(a, np.float64)
    total = values.sum(axis=axis)
    if values.min() >= 0 and np.allclose(total, 1.0, atol=1e-2):
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


class Steps:
    """Steps, all samples' together; also whole sequences, as CTC reads them.

    Where no blank is named, the class of more than half of the original's steps in the first 32
    samples is taken for one: agreement on what is nearly always so would hide the rest.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._blank = spec.blank
        self._held: list[tuple[Array, Array, Bools | None]] = []
        self._kept, self._all, self._whole = Running(), Running(), Running()
        self._divergence = Divergence(spec)

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample."""
        ours = answers(self._spec, np.nan_to_num(a) if a.dtype.kind == "f" else a)
        theirs, agree = ours, None
        if sound:
            theirs, agree = answers(self._spec, b), same(self._spec, a, b)
        self._divergence.add(a, b, sound=sound)
        self._held.append((ours, theirs, agree))
        if self._spec.blank is not None or len(self._held) >= UNDECIDED or self._all.samples:
            self._decide()

    def agreed(self) -> Agreed:
        """Share of the steps that are not blank to both."""
        self._decide()
        also = {"all_steps": self._all.value, "sequences": self._whole.value}
        return self._kept.agreed(also | self._divergence.figures())

    def _decide(self) -> None:
        if not self._all.samples and self._spec.blank is None and self._held:
            self._blank = _majority([ours for ours, _, _ in self._held])
        for ours, theirs, agree in self._held:
            self._count(ours, theirs, agree)
        self._held.clear()

    def _count(self, ours: Array, theirs: Array, agree: Bools | None) -> None:
        if agree is None:
            none = np.zeros(ours.shape, bool)
            self._kept.add(0.0, max(1, counted(none, ours, ours, self._blank)[1]))
            self._all.add(0.0, max(1, ours.size))
            self._whole.add(0.0)
            return
        self._kept.add(*counted(agree, ours, theirs, self._blank))
        self._all.add(int(agree.sum()), agree.size)
        # Where the original has several best, its answer is what the candidate chose of them.
        pairs = zip(sequences(np.where(agree, theirs, ours)), sequences(theirs), strict=True)
        equal = [collapse(x, self._blank) == collapse(y, self._blank) for x, y in pairs]
        self._whole.add(sum(equal), len(equal))


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


def _majority(samples: list[Array]) -> Any:
    values, counts = np.unique(np.concatenate([one.ravel() for one in samples]), return_counts=True)
    if not len(values) or 2 * counts.max() <= counts.sum():
        return None
    return values[counts.argmax()]
