"""Whether one variant answers more like the original than another, beyond chance (numpy only).

Both answer the same inputs, so that each input is its own comparison. Two figures are judged: the
agreement by the output's kind, and a loss that moves before answers change. A loss alone may fall
while answers get worse, and an agreement alone may rise by chance: both have to be better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression import agreement
from compression.alike import classes, numbers, roles, steps
from compression.alike.detections import f1
from compression.findings import Paired
from compression.job import OutputSpec

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Floats = NDArray[np.float64]
LEVEL = 0.025
"""One-sided: chance alone looks as good in one of forty comparisons."""
WORST_NATS = 28.0
"""The loss of an answer that cannot be compared; above any divergence, see classes.py."""
_DRAWS = 4000
_EXACT = 12
"""Up to so many pairs all signs are gone through."""
_MEANINGLESS = frozenset({"tensor", "state"})
_BY_CLASS = frozenset({"logits", "steps"})


@dataclass
class _Side:
    """One variant's figures on one output, sample by sample."""

    agreed: list[float] = field(default_factory=list)
    near: list[float] = field(default_factory=list)
    """S / (S + E): for scores that never cross their threshold."""
    lost: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Whether `after` is better than `before`, why or why not, and by which figures."""

    better: bool
    reason: str
    agreement: Paired
    loss: Paired
    samples: int

    @property
    def promising(self) -> bool:
        """Whether nothing speaks against a look at more inputs: less loss, no fewer answers."""
        fewer = self.agreement.after < self.agreement.before
        return self.better or (not fewer and self.loss.after < self.loss.before)


class Pairs:
    """Compares two variants with the original, sample by sample."""

    def __init__(self, outputs: Sequence[OutputSpec], *, first: Sequence[Arrays] = ()) -> None:
        """`first` are a few of the original's answers: where no blank is named, they show it."""
        outputs = [_with_blank(one, first) for one in outputs]
        self._boxes = [one for one in outputs if one.kind == "detections"]
        others = [one for one in outputs if one.kind != "detections"]
        meant = [one for one in others if one.kind not in _MEANINGLESS]
        self._specs = meant if meant or self._boxes else others
        self._sides: dict[str, tuple[_Side, _Side]] = {}
        self._sources: list[int] = []

    def add(self, original: Arrays, before: Arrays, after: Arrays, *, source: int) -> None:
        """Compare one sample's answers; samples of one `source` count as one."""
        self._sources.append(source)
        for side, answers in enumerate((before, after)):
            for spec in self._specs:
                mine = self._side(spec.name, side)
                a, b = np.asarray(original[spec.name]), np.asarray(answers[spec.name])
                mine.agreed.append(agreement.score(spec, a, b) if _sound(a, b) else 0.0)
                mine.near.append(numbers.signal_share(spec, a, b))
                mine.lost.append(_loss(spec, a, b))
            if self._boxes:
                self._add_boxes(original, answers, self._side("detections", side))

    def verdict(self) -> Verdict:
        """Judge by the output that agreed least before; no other one may have got worse."""
        figures = {name: _figures(*both) for name, both in self._sides.items()}
        main = min(figures, key=lambda name: float(figures[name][0].mean()))
        before, after, lost_before, lost_after = figures[main]
        agreed = self._paired(before, after, gain=after - before)
        lost = self._paired(lost_before, lost_after, gain=lost_before - lost_after)
        worse = [
            name
            for name, (ours, theirs, _, _) in figures.items()
            if name != main and self._chance(ours - theirs) <= LEVEL
        ]
        told = (
            f"agreement {agreed.before:.4f} -> {agreed.after:.4f} (chance {agreed.chance:.3f}), "
            f"loss {lost.before:.4g} -> {lost.after:.4g} (chance {lost.chance:.3f}), "
            f"{len(self._sources)} samples"
        )
        lacking = [
            name
            for name, paired in (("agreement", agreed), ("loss", lost))
            if paired.chance > LEVEL
        ]
        if worse:
            reason = f"output {worse[0]!r} became worse: {told}"
        elif lacking:
            reason = f"no better beyond chance in {' and '.join(lacking)}: {told}"
        else:
            reason = f"better: {told}"
        return Verdict(not (worse or lacking), reason, agreed, lost, len(self._sources))

    def _side(self, name: str, at: int) -> _Side:
        return self._sides.setdefault(name, (_Side(), _Side()))[at]

    def _add_boxes(self, original: Arrays, answers: Arrays, mine: _Side) -> None:
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

    def _paired(self, before: Floats, after: Floats, *, gain: Floats) -> Paired:
        return Paired(
            before=float(before.mean()), after=float(after.mean()), chance=self._chance(gain)
        )

    def _chance(self, gains: Floats) -> float:
        return chance(gains, self._sources)


def chance(gains: Floats, sources: Sequence[int]) -> float:
    """How often chance alone shows a sum of `gains` as large: one-sided, in (0, 1].

    Fisher's randomization of pairs ("The Design of Experiments", 1935, section 21): where nothing
    is better, each source's gain is as likely to have the other sign. Samples of one source are
    added up first, since they are nearly copies of one another.
    """
    _, groups = np.unique(np.asarray(sources), return_inverse=True)
    each = np.bincount(groups.ravel(), weights=gains)
    each = each[each != 0.0]
    if not len(each):
        return 1.0
    if len(each) <= _EXACT:
        bits = np.arange(2 ** len(each))[:, None] >> np.arange(len(each))
        signs, extra = 2.0 * (bits & 1) - 1.0, 0
    else:
        rng = np.random.default_rng(0)
        signs, extra = rng.integers(0, 2, (_DRAWS, len(each))) * 2.0 - 1.0, 1
    sums = np.einsum("ij,j->i", signs, each)  # no BLAS: its threads wait for busy cores
    observed = float(each.sum())
    slack = 1e-9 * float(np.abs(each).sum())
    return float((extra + int((sums >= observed - slack).sum())) / (extra + len(sums)))


def _with_blank(spec: OutputSpec, first: Sequence[Arrays]) -> OutputSpec:
    if spec.kind != "steps" or spec.blank is not None or not first:
        return spec
    blank = steps.majority([classes.answers(spec, np.asarray(one[spec.name])) for one in first])
    return spec if blank is None else spec.model_copy(update={"blank": int(blank)})


def _figures(before: _Side, after: _Side) -> tuple[Floats, Floats, Floats, Floats]:
    """Agreement of both and loss of both; near where nothing was ever counted as different."""
    by_kind = min(before.agreed) < 1.0 or min(after.agreed) < 1.0
    agreed = [side.agreed if by_kind else side.near for side in (before, after)]
    columns = [*agreed, before.lost, after.lost]
    first, second, third, fourth = (np.array(column, np.float64) for column in columns)
    return first, second, third, fourth


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
