"""What one labelled sample adds to a metric: how much of it is right, and of how much (pure)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike import classes, matching, regions, rows, steps
from compression.alike.numbers import ranks
from compression.job import OutputSpec

Array = NDArray[Any]
Floats = NDArray[np.float64]
Share = tuple[float, float]
Rule = Callable[[OutputSpec, Array, Array], Share | None]
"""An output and its label; None: the label is none for this output."""


def ratio(shares: Floats) -> float:
    """All that is right over all there is, of shares [samples, 2]; 1 where there is nothing."""
    right, of = shares.sum(axis=0)
    return float(right / of) if of else 1.0


def accuracy(spec: OutputSpec, a: Array, label: Array) -> Share | None:
    """Rows that are answered as labelled, by number or by name."""
    wanted = _numbered(spec, label)
    if wanted is None or not a.size:
        return None
    found = classes.answers(spec, a).ravel()
    if wanted.size != found.size:
        return None
    return float((found == wanted).sum()), float(found.size)


def whole_sequences(spec: OutputSpec, a: Array, label: Array) -> Share | None:
    """Whether the sequence is exactly as labelled."""
    pair = _sequences(spec, a, label)
    return None if pair is None else (float(pair[0] == pair[1]), 1.0)


def characters(spec: OutputSpec, a: Array, label: Array) -> Share | None:
    """Characters right: the length less the edit distance, not below 0."""
    pair = _sequences(spec, a, label)
    if pair is None:
        return None
    found, wanted = pair
    return float(max(0, len(wanted) - edit_distance(found, wanted))), float(max(1, len(wanted)))


def overlap(spec: OutputSpec, a: Array, label: Array) -> Share | None:
    """Intersection over union with the labelled regions, its mean over classes."""
    if label.dtype.kind not in "biu" or not a.size:
        return None
    found = regions.shown(spec, a)
    if found.size != label.size:
        return None
    wanted = label.reshape(found.shape)
    return regions.mean_iou(found, wanted.astype(found.dtype)), 1.0


def f1(roles: rows.Roles, arrays: Mapping[str, Array], label: Array) -> Share | None:
    """Twice the labelled objects that are found, of found and labelled ones."""
    if label.ndim != 2 or label.shape[1] != 5 or label.dtype.kind not in "iuf":
        return None
    kept = np.asarray(label[label[:, 4] >= 0], np.float64)
    none, ones = np.zeros(len(kept), np.int64), np.ones(len(kept))
    wanted = matching.Found(kept[:, :4], np.rint(kept[:, 4]).astype(np.int64), none, ones)
    found = rows.read(roles, arrays)
    hits = matching.hits(wanted, found, iou_threshold=rows.iou_threshold(roles))
    return 2.0 * hits, float(len(wanted) + len(found))


def auc(scores: Floats, labels: Floats) -> float | None:
    """Area under the ROC curve: Mann-Whitney's U over the product of the counts.

    The larger of the two labels is the positive one; None where all are the same.
    """
    positive = labels == labels.max()
    ours, others = int(positive.sum()), int((~positive).sum())
    if not ours or not others:
        return None
    above = float(ranks(scores)[positive].sum()) - ours * (ours + 1) / 2
    return above / (ours * others)


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions."""
    before = list(range(len(b) + 1))
    for row, one in enumerate(a, start=1):
        now = [row]
        for column, other in enumerate(b, start=1):
            changed = before[column - 1] + (one != other)
            now.append(min(changed, before[column] + 1, now[-1] + 1))
        before = now
    return before[-1]


def _numbered(spec: OutputSpec, label: Array) -> Array | None:
    """Labels as class numbers; names are looked up in the spec's."""
    if label.dtype.kind in "biu":
        return label.ravel().astype(np.int64)
    numbers = {name: number for number, name in enumerate(spec.classes)}
    if label.dtype.kind != "U" or not numbers:
        return None
    return np.array([numbers.get(name, -1) for name in label.ravel().tolist()])


def _sequences(spec: OutputSpec, a: Array, label: Array) -> tuple[list[Any], list[Any]] | None:
    """What was read and what is written there, as lists of classes or of characters."""
    if not a.size:
        return None
    every = classes.answers(spec, a).ravel()
    found = steps.collapse(every, spec.blank)
    if label.dtype.kind == "U" and label.ndim == 0 and spec.classes:
        names = [spec.classes[one] for one in found if 0 <= one < len(spec.classes)]
        return list("".join(names)), list(str(label))
    wanted = label.ravel()
    if label.dtype.kind not in "iu" or (spec.blank is None and len(wanted) != len(every)):
        return None
    return found, [int(one) for one in wanted if one >= 0]
