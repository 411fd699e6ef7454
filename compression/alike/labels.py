"""Labelled inputs: the user's own metric, of the original and of the candidate (numpy only).

| kind | labels, samples first | metrics |
| --- | --- | --- |
| logits | the class, by number or name | accuracy |
| steps | sequences of classes, filled up with -1; or text | sequences, characters |
| score | yes or no; or numbers | auc; rank_correlation |
| detections | rows of x1, y1, x2, y2, class; class -1 is padding | f1 |
| mask | classes, or yes and no, for each point | iou |

Labels are a finite set, so what is kept of each sample (a few numbers) is not bounded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike import metrics
from compression.alike.numbers import rank_correlation
from compression.alike.rows import Roles
from compression.findings import Labelled
from compression.job import OutputKind, OutputSpec

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]

RULES: dict[OutputKind, dict[str, metrics.Rule]] = {
    "logits": {"accuracy": metrics.accuracy},
    "steps": {"sequences": metrics.whole_sequences, "characters": metrics.characters},
    "mask": {"iou": metrics.overlap},
}
"""By kind: a metric's name, and what one sample adds to it as (right, of)."""
_RESAMPLED = 1000
_RESAMPLED_ORDER = 300


class Labels:
    """Gathers one output's metrics: of the first output that the labels fit."""

    def __init__(self, outputs: Sequence[OutputSpec]) -> None:
        self._outputs = outputs
        self._roles: Roles | None = None
        self._spec: OutputSpec | None = None
        self._shares: dict[str, list[tuple[metrics.Share, metrics.Share]]] = {}
        self._values: list[tuple[float, float, float]] = []
        self._samples = 0
        self._unfit = False

    def detections(self, main: OutputSpec, roles: Roles) -> None:
        """Hear how detections are read."""
        self._outputs, self._roles = [main], roles

    def add(self, original: Arrays, candidate: Arrays, label: Array) -> None:
        """Judge both models' answers to one sample; labels that fit no output are left."""
        label = np.asarray(label)
        self._samples += 1
        for spec in [self._spec] if self._spec else self._outputs:
            if not self._unfit and self._one(spec, original, candidate, label):
                self._spec = spec
                return
        # A metric over some of the samples would be another metric.
        self._unfit = True

    def _one(self, spec: OutputSpec, a: Arrays, b: Arrays, label: Array) -> bool:
        if spec.kind == "score":
            return self._score(a[spec.name], b[spec.name], label)
        found = self._of_sample(spec, a, b, label)
        for metric, pair in found.items():
            self._shares.setdefault(metric, []).append(pair)
        return bool(found)

    def _of_sample(
        self, spec: OutputSpec, a: Arrays, b: Arrays, label: Array
    ) -> dict[str, tuple[metrics.Share, metrics.Share]]:
        if spec.kind == "detections" and self._roles is not None:
            pair = [metrics.f1(self._roles, side, label) for side in (a, b)]
            return {} if pair[0] is None or pair[1] is None else {"f1": (pair[0], pair[1])}
        shares = {}
        for name, rule in RULES.get(spec.kind, {}).items():
            ours = rule(spec, a[spec.name], label)
            if ours is None:
                return {}
            theirs = rule(spec, b[spec.name], label) if _sound(b[spec.name]) else None
            shares[name] = ours, theirs or (0.0, ours[1])
        return shares

    def _score(self, a: Array, b: Array, label: Array) -> bool:
        fits = a.size == label.size == b.size and label.dtype.kind in "biuf"
        if not (fits and _sound(a) and _sound(b)):
            return False
        columns = (np.asarray(one, np.float64).ravel().tolist() for one in (label, a, b))
        self._values += zip(*columns, strict=True)
        return True

    def results(self) -> tuple[Labelled, ...]:
        """Each metric of both models, with the interval of their difference."""
        if self._unfit or self._spec is None:
            return ()
        if self._values:
            return self._order()
        return tuple(
            self._labelled(name, np.array(pairs, np.float64), metrics.ratio)
            for name, pairs in self._shares.items()
        )

    def _order(self) -> tuple[Labelled, ...]:
        table = np.array(self._values, np.float64)
        yes_or_no = len(np.unique(table[:, 0])) == 2
        name, of = ("auc", metrics.auc) if yes_or_no else ("rank_correlation", rank_correlation)
        if of(table[:, 1], table[:, 0]) is None:
            return ()

        def statistic(values: Floats) -> float:
            found = of(values[:, 1], values[:, 0])
            return 0.0 if found is None else found

        pairs = np.stack([table[:, [0, 1]], table[:, [0, 2]]], axis=1)
        return (self._labelled(name, pairs, statistic, resampled=_RESAMPLED_ORDER),)

    def _labelled(
        self, metric: str, pairs: Floats, statistic: Statistic, *, resampled: int = _RESAMPLED
    ) -> Labelled:
        """`pairs` is [samples, 2 models, figures]; both models are resampled alike."""
        assert self._spec is not None
        original, candidate = statistic(pairs[:, 0]), statistic(pairs[:, 1])
        rng = np.random.default_rng(0)
        differences = [candidate - original]
        for _ in range(resampled):
            some = pairs[rng.integers(0, len(pairs), len(pairs))]
            differences.append(statistic(some[:, 1]) - statistic(some[:, 0]))
        low, high = np.quantile(differences, (0.025, 0.975))
        return Labelled(
            metric=metric, output=self._spec.name, original=original, candidate=candidate,
            low=min(float(low), differences[0]), high=max(float(high), differences[0]),
            samples=self._samples,
        )  # fmt: skip


def _sound(array: Array) -> bool:
    return not (np.issubdtype(array.dtype, np.inexact) and np.isnan(array).any())
