"""Outputs that are masks: regions of one thing, or of classes (numpy only)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike import classes
from compression.job import OutputSpec

Array = NDArray[Any]
Bools = NDArray[np.bool_]


def overlap(spec: OutputSpec, a: Array, b: Array) -> float:
    """Intersection over union; where values are classes or per class, its mean over classes.

    Classes that neither side shows are left out; two empty masks agree. The threshold is 0.5 for
    probabilities and 0 for logits where none is given.
    """
    if not a.size:
        return 1.0
    if _one_thing(spec, a):
        threshold = _threshold(spec, a)
        return iou(a >= threshold, b >= threshold)
    ours, theirs = classes.answers(spec, a), classes.answers(spec, b)
    # An equal best of the original's is no difference, whichever of them is answered.
    return mean_iou(np.where(classes.same(spec, a, b), theirs, ours), theirs)


def shown(spec: OutputSpec, a: Array) -> Array:
    """What a mask shows: booleans for one thing, classes without the class axis else."""
    if _one_thing(spec, a):
        return np.asarray(a >= _threshold(spec, a))
    return classes.answers(spec, a)


def mean_iou(a: Array, b: Array) -> float:
    """The overlap of two regions, or its mean over the classes that either shows."""
    if a.dtype == bool:
        return iou(a, b)
    return float(np.mean([iou(a == one, b == one) for one in np.union1d(a, b)]))


def iou(a: Bools, b: Bools) -> float:
    """Intersection over union of two regions; 1 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _one_thing(spec: OutputSpec, a: Array) -> bool:
    return spec.axis is None and (a.dtype == bool or np.issubdtype(a.dtype, np.inexact))


def _threshold(spec: OutputSpec, a: Array) -> float:
    if spec.threshold is not None:
        return spec.threshold
    return 0.5 if a.dtype == bool or (a.min() >= 0 and a.max() <= 1) else 0.0
