"""How far one variant's answers are from the original's, input by input (numpy only).

Two figures of each output: the agreement by the output's kind, and a loss that moves before answers
change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression import agreement
from compression.alike import classes, numbers, roles, steps
from compression.alike.detections import f1
from compression.findings import Each
from compression.job import OutputSpec

Array = NDArray[Any]
Arrays = Mapping[str, Array]
WORST_NATS = 28.0
"""The loss of an answer that cannot be compared; above any divergence, see classes.py."""
_MEANINGLESS = frozenset({"tensor", "state"})
_BY_CLASS = frozenset({"logits", "steps"})
_DETECTIONS = "detections"


@dataclass
class Side:
    """One variant's figures on one output, sample by sample."""

    agreed: list[float] = field(default_factory=list)
    near: list[float] = field(default_factory=list)
    """S / (S + E): for scores that never cross their threshold."""
    lost: list[float] = field(default_factory=list)


class Apart:
    """Compares one variant with the original, sample by sample; outputs that mean nothing count
    where there are no others."""

    def __init__(self, outputs: Sequence[OutputSpec], *, first: Sequence[Arrays] = ()) -> None:
        """`first` are a few of the original's answers: where no blank is named, they show it."""
        outputs = [_with_blank(one, first) for one in outputs]
        self._boxes = [one for one in outputs if one.kind == _DETECTIONS]
        others = [one for one in outputs if one.kind != _DETECTIONS]
        meant = [one for one in others if one.kind not in _MEANINGLESS]
        self._specs = meant if meant or self._boxes else others
        names = [one.name for one in self._specs]
        self.sides = {name: Side() for name in (*names, *([_DETECTIONS] if self._boxes else ()))}
        """By output; boxes are one."""

    def add(self, original: Arrays, answers: Arrays) -> None:
        """Compare one sample's answers."""
        for spec in self._specs:
            mine = self.sides[spec.name]
            a, b = np.asarray(original[spec.name]), np.asarray(answers[spec.name])
            mine.agreed.append(agreement.score(spec, a, b) if _sound(a, b) else 0.0)
            mine.near.append(numbers.signal_share(spec, a, b))
            mine.lost.append(_loss(spec, a, b))
        if self._boxes:
            self._add_boxes(original, answers, self.sides[_DETECTIONS])

    def found(self) -> Each:
        """The means over outputs, for each sample."""
        agreed = np.mean([side.agreed for side in self.sides.values()], axis=0)
        lost = np.mean([side.lost for side in self.sides.values()], axis=0)
        near = np.mean([side.near for side in self.sides.values()], axis=0)
        error = np.maximum(0.0, 1.0 - near)
        return Each(
            agreed=tuple(agreed.tolist()), lost=tuple(lost.tolist()), error=tuple(error.tolist())
        )

    def _add_boxes(self, original: Arrays, answers: Arrays, mine: Side) -> None:
        a = {one.name: np.asarray(original[one.name]) for one in self._boxes}
        b = {one.name: np.asarray(answers[one.name]) for one in self._boxes}
        sound = all(_sound(a[name], b[name]) for name in a)
        near = float(np.mean([numbers.signal_share(one, a[one.name], b[one.name])
                              for one in self._boxes]))  # fmt: skip
        found = roles.resolve(self._boxes, a)
        score = near
        if found is not None:
            hits, ours, theirs = f1(found, a, b) if sound else (0.0, 1.0, 1.0)
            score = 2 * hits / (ours + theirs) if ours + theirs else 1.0
        mine.agreed.append(score)
        mine.near.append(near)
        mine.lost.append(1.0 - near)


def _with_blank(spec: OutputSpec, first: Sequence[Arrays]) -> OutputSpec:
    if spec.kind != "steps" or spec.blank is not None or not first:
        return spec
    blank = steps.majority([classes.answers(spec, np.asarray(one[spec.name])) for one in first])
    return spec if blank is None else spec.model_copy(update={"blank": int(blank)})


def _sound(a: Array, b: Array) -> bool:
    """Whether an answer can be compared; infinities only where the original has them too.

    An argmax over infinities alone is class 0, which may be the right one.
    """
    if not agreement.sound(a, b):
        return False
    return b.dtype.kind != "f" or bool((np.isfinite(b) | (a == b)).all())


def _loss(spec: OutputSpec, a: Array, b: Array) -> float:
    """Divergence in nats of classes; of all else the share of the error's power."""
    if spec.kind in _BY_CLASS:
        if not _sound(a, b):
            return WORST_NATS
        found = classes.divergence_nats(spec, a, b)
        if found is not None:
            return found
    return 1.0 - numbers.signal_share(spec, a, b)
