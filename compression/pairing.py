"""Whether one variant answers more like the original than another, beyond chance (numpy only).

Both answer the same inputs, so that each input is its own comparison. Two figures are judged: the
agreement by the output's kind, and a loss that moves before answers change. A loss alone may fall
while answers get worse, and an agreement alone may rise by chance: both have to be better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compression.apart import Apart, Arrays, Side
from compression.findings import Each, Paired
from compression.job import OutputSpec

Floats = NDArray[np.float64]
LEVEL = 0.025
"""One-sided: chance alone looks as good in one of forty comparisons."""
SAME_LOSS = 1.25
"""Losses nearer than this factor (1 dB of power) are the same."""
NO_LOSS = 1e-6
"""What is lost on one input below this is nothing: it moves no answer."""
_DRAWS = 4000
_EXACT = 12
"""Up to so many pairs all signs are gone through."""


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
        self._before, self._after = Apart(outputs, first=first), Apart(outputs, first=first)
        self._sources: list[int] = []

    def add(self, original: Arrays, before: Arrays, after: Arrays, *, source: int) -> None:
        """Compare one sample's answers; samples of one `source` count as one."""
        self._sources.append(source)
        self._before.add(original, before)
        self._after.add(original, after)

    def verdict(self) -> Verdict:
        """Judge by the output that agreed least before; no other one may have got worse."""
        both = self._before.sides, self._after.sides
        figures = {name: _figures(both[0][name], both[1][name]) for name in both[0]}
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

    def _paired(self, before: Floats, after: Floats, *, gain: Floats) -> Paired:
        return Paired(
            before=float(before.mean()), after=float(after.mean()), chance=self._chance(gain)
        )

    def _chance(self, gains: Floats) -> float:
        return chance(gains, self._sources)


def nearer(a: Each, b: Each, sources: Sequence[int]) -> bool:
    """Whether `a` answers more like the original than `b` beyond chance, on the same inputs.

    By agreement where that differs beyond chance; else by the loss; else, since a sure answer loses
    nothing for a long while, by the error in the outputs themselves.
    """
    count = min(len(a.agreed), len(b.agreed), len(sources))
    sources = sources[:count]
    ours, theirs = (np.array(one.agreed[:count]) for one in (a, b))
    if chance(ours - theirs, sources) <= LEVEL:
        return True
    if chance(theirs - ours, sources) <= LEVEL:
        return False
    for mine, other in ((a.lost, b.lost), (a.error, b.error)):
        less, more = np.array(mine[:count]), np.array(other[:count])
        if _less(less, more, sources):
            return True
        if _less(more, less, sources):
            return False
    return False


def _less(less: Floats, more: Floats, sources: Sequence[int]) -> bool:
    """Whether losses are less on the whole and, input by input, beyond chance and `SAME_LOSS`.

    They are compared by their ratio: of those of classes one wrong answer would outweigh all
    others, and no sum of them be beyond chance.
    """
    gains = np.log((more + NO_LOSS) / (less + NO_LOSS))
    apart = float(gains.mean()) > np.log(SAME_LOSS) and float(less.mean()) <= float(more.mean())
    return apart and chance(gains, sources) <= LEVEL


def places(every: Sequence[Each], sources: Sequence[int]) -> tuple[int, ...]:
    """The place of each among all, by nearness: 0 for the nearest and all that chance may make so.

    `sources` are of the inputs that all were asked, in order; who answered fewer is compared on
    those.
    """
    found, left, place = [0] * len(every), list(range(len(every))), 0
    while left:
        best = min(left, key=lambda at: (float(np.mean(every[at].lost)), at))
        for other in left:  # more answers count before less loss
            if other != best and nearer(every[other], every[best], sources):
                best = other
        behind = [at for at in left if at != best and nearer(every[best], every[at], sources)]
        for at in left:
            found[at] = place
        left, place = behind, place + 1
    return tuple(found)


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


def _figures(before: Side, after: Side) -> tuple[Floats, Floats, Floats, Floats]:
    """Agreement of both and loss of both; near where nothing was ever counted as different."""
    by_kind = min(before.agreed) < 1.0 or min(after.agreed) < 1.0
    agreed = [side.agreed if by_kind else side.near for side in (before, after)]
    columns = [*agreed, before.lost, after.lost]
    first, second, third, fourth = (np.array(column, np.float64) for column in columns)
    return first, second, third, fourth
