"""How alike a candidate and the original answer, by what their outputs mean (numpy only).

| kind | agreement | judged by |
| --- | --- | --- |
| logits | share of rows with the same class | alike/classes.py |
| steps | share of steps with the same class where either is not blank | alike/steps.py |
| embedding | share that keep their nearest neighbour, of few the cosine | alike/vectors.py |
| detections | F1 of one-to-one hits by class and overlap | alike/detections.py |
| mask | intersection over union, its mean over classes | alike/regions.py |
| score | share of values on their side of the threshold, or rank correlation | alike/numbers.py |
| tensor, state | S / (S + E): signal in signal plus error power | alike/numbers.py |

An answer of another shape, or with NaN on either side, never agrees. The same functions serve the
trial, the probe at a swap and the observation of live traffic: memory does not grow with samples.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compression.alike import classes, numbers, regions, roles, steps, vectors
from compression.alike.detections import Detections, f1
from compression.alike.interval import Agreed, Running
from compression.alike.labels import Labels
from compression.alike.numbers import EXACT_DB, powers, sqnr_db
from compression.errors import BadInputs
from compression.findings import Agreement, Labelled
from compression.job import OutputKind, OutputSpec, Split

__all__ = ["EXACT_DB", "Judge", "powers", "score", "sqnr_db"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]
_MEANINGLESS: frozenset[OutputKind] = frozenset({"tensor", "state"})

RULES: dict[OutputKind, Callable[[OutputSpec, Array, Array], float]] = {
    "logits": classes.rows,
    "steps": steps.share,
    "score": numbers.same_side,
    "mask": regions.overlap,
    "embedding": vectors.cosine,
    "tensor": numbers.signal_share,
    "state": numbers.signal_share,
}


class Gatherer(Protocol):
    """What one kind of output remembers from sample to sample."""

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample; `sound` says that shapes are equal and nothing is NaN."""

    def agreed(self) -> Agreed:
        """The agreement so far."""


class Mean:
    """The mean of the scores by the kind's rule."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._running = Running()

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample."""
        self._running.add(RULES[self._spec.kind](self._spec, a, b) if sound else 0.0)

    def agreed(self) -> Agreed:
        """The mean so far."""
        return self._running.agreed()


GATHERERS: dict[OutputKind, Callable[[OutputSpec], Gatherer]] = {
    "logits": classes.Rows,
    "steps": steps.Steps,
    "score": numbers.Scores,
    "embedding": vectors.Neighbours,
}
"""Kinds that remember more than a mean; the others are a Mean."""


def score(spec: OutputSpec, original: Array, candidate: Array) -> float:
    """One sample's score in [0, 1]; 0 where shapes differ or anything is NaN.

    Detections are compared where they are rows of one output; the rest of them as tensors.

    Raises:
        BadInputs: the output does not have the axis or the columns that `spec` names.
    """
    a, b = np.asarray(original), np.asarray(candidate)
    if spec.kind != "detections":
        return RULES[spec.kind](spec, a, b) if sound(a, b) else 0.0
    found = roles.resolve([spec], {spec.name: a})
    if has_nan(a) or has_nan(b):
        return 0.0
    if found is None:
        return numbers.signal_share(spec, a, b)
    hits, ours, theirs = f1(found, {spec.name: a}, {spec.name: b})
    return 2 * hits / (ours + theirs) if ours + theirs else 1.0


def sound(a: Array, b: Array) -> bool:
    """Whether two answers can be compared value by value."""
    return a.shape == b.shape and not has_nan(a) and not has_nan(b)


def has_nan(array: Array) -> bool:
    """Whether any value is NaN; what is not numbers has none."""
    return bool(np.issubdtype(array.dtype, np.inexact) and np.isnan(array).any())


class Judge:
    """Gathers outputs sample by sample, and labels where there are any."""

    def __init__(self, outputs: Sequence[OutputSpec]) -> None:
        self._specs = {spec.name: spec for spec in outputs}
        self._gatherers = {
            name: GATHERERS.get(spec.kind, Mean)(spec)
            for name, spec in self._specs.items()
            if spec.kind != "detections"
        }
        self._boxes = [spec for spec in outputs if spec.kind == "detections"]
        self._detections: Detections | None = None
        self._powers = dict.fromkeys(self._specs, (0.0, 0.0))
        self._labels = Labels(outputs)
        self.samples = 0

    def add(self, original: Arrays, candidate: Arrays, label: Array | None = None) -> None:
        """Compare the outputs of one sample, by name; `label` is its row of `::labels`.

        Raises:
            BadInputs: an output is missing, or is not shaped as its spec says.
        """
        if missing := sorted(set(self._specs) - (set(original) & set(candidate))):
            raise BadInputs(f"cannot judge output {missing[0]!r}: the model gives {list(original)}")
        a = {name: np.asarray(original[name]) for name in self._specs}
        b = {name: np.asarray(candidate[name]) for name in self._specs}
        if not self.samples:
            self._begin(a)
        self.samples += 1
        for name, gatherer in self._gatherers.items():
            gatherer.add(a[name], b[name], sound=sound(a[name], b[name]))
        for name, before in self._powers.items():
            signal, error = powers(a[name], b[name])
            self._powers[name] = before[0] + signal, before[1] + error
        self._add_detections(a, b)
        if label is not None:
            self._labels.add(a, b, label)

    def _begin(self, arrays: Arrays) -> None:
        """Find the roles of detections; where they are unclear they are plain tensors."""
        found = roles.resolve(self._boxes, arrays) if self._boxes else None
        if found is not None:
            self._detections = Detections(self._boxes, found)
            self._labels.detections(self._detections.main, found)
            return
        for spec in self._boxes:
            self._specs[spec.name] = spec.model_copy(update={"kind": "tensor"})
            self._gatherers[spec.name] = Mean(self._specs[spec.name])

    def _add_detections(self, a: Arrays, b: Arrays) -> None:
        if self._detections is None:
            return
        names = self._detections.names
        whole = not any(has_nan(side[name]) for side in (a, b) for name in names)
        self._detections.add(a, b, sound=whole)

    def sqnr_db(self) -> dict[str, float]:
        """Per output, over all samples; 200 stands for exactly equal."""
        return {name: sqnr_db(*both) for name, both in self._powers.items()}

    def agreement(self, split: Split, *, guessed: bool = False) -> Agreement:
        """The output that agrees least, among those whose meaning is known (else among all).

        `guessed` marks it although its spec does not.
        """
        found = [(self._specs[name], each.agreed()) for name, each in self._gatherers.items()]
        if self._detections is not None:
            found.append((self._detections.main, self._detections.agreed()))
        meant = [one for one in found if one[0].kind not in _MEANINGLESS]
        spec, least = min(meant or found, key=lambda one: one[1].value)
        return Agreement(
            value=least.value, low=least.low, high=least.high, kind=spec.kind, output=spec.name,
            samples=least.samples, split=split, guessed=guessed or spec.guessed, also=least.also,
        )  # fmt: skip

    def labelled(self) -> tuple[Labelled, ...]:
        """The user's own metrics, of the original and of the candidate; empty without labels."""
        return self._labels.results()
