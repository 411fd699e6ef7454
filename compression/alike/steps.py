"""Outputs that are classes step by step, as those of readers and taggers (numpy only)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike import classes
from compression.alike.interval import Agreed, Running
from compression.job import OutputSpec

Array = NDArray[Any]
Bools = NDArray[np.bool_]
UNDECIDED = 32
"""Samples that are held back to find the class which most steps have, where no blank is named."""


def share(spec: OutputSpec, a: Array, b: Array) -> float:
    """Share of steps with the same class, among those where either is not blank."""
    agreeing, of = counted(
        classes.same(spec, a, b), classes.answers(spec, a), classes.answers(spec, b), spec.blank
    )
    return agreeing / of if of else 1.0


def counted(agree: Bools, ours: Array, theirs: Array, blank: int | None) -> tuple[int, int]:
    """Agreeing steps and steps, without those that are blank to both."""
    if blank is None:
        return int(agree.sum()), agree.size
    kept = (ours != blank) | (theirs != blank)
    return int(agree[kept].sum()), int(kept.sum())


def collapse(found: Array, blank: int | None) -> list[Any]:
    """A sequence as CTC reads it: repeats become one, then blanks go (Graves et al. 2006).

    Without a blank the steps stay as they are.
    """
    if blank is None:
        return list(found.tolist())
    first = np.ones(len(found), bool)
    first[1:] = found[1:] != found[:-1]
    return list(found[first & (found != blank)].tolist())


def sequences(found: Array) -> list[Array]:
    """The sequences among the steps of one sample: [T], [1, T] and [T, 1] hold one, [N, T] N."""
    if found.ndim < 2 or 1 in found.shape[:2]:
        return [found.ravel()]
    return [row.ravel() for row in found]


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
        self._divergence = classes.Divergence(spec)

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample."""
        ours = classes.answers(self._spec, np.nan_to_num(a) if a.dtype.kind == "f" else a)
        theirs, agree = ours, None
        if sound:
            theirs, agree = classes.answers(self._spec, b), classes.same(self._spec, a, b)
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
            self._blank = majority([ours for ours, _, _ in self._held])
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


def majority(samples: list[Array]) -> Any:
    """The class that more than half of all steps have; None where there is none."""
    values, counts = np.unique(np.concatenate([one.ravel() for one in samples]), return_counts=True)
    if not len(values) or 2 * counts.max() <= counts.sum():
        return None
    return values[counts.argmax()]
