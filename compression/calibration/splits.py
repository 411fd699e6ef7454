"""Which samples calibrate, which choose among candidates, which report: never the same (pure).

A figure is honest only on inputs that had no part in what it judges. So candidates are accepted,
rejected and ordered by the choosing part, and the reporting part is read once they are. Samples
of one source (crops of one photograph, frames of one film) are nearly copies of one another, so a
source lies in one part as a whole.
"""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from compression.findings import Division
from compression.job import Split

Indices = tuple[int, ...]
SHARES = (0.35, 0.3, 0.35)
MOST = (128, 300, 400)
"""More samples than these say little more, and take their time."""
MOST_FITTING = 2048
"""Weights that are fitted anew gain from more than ranges do: what no other part needs."""


@dataclass(frozen=True)
class Splits:
    """Sample indices of one file in three parts, each sorted.

    With three sources or more the parts are disjoint. Of two, one calibrates and chooses and the
    other reports. A single one does everything, and its figures are no better than that.
    `fitting` is what weights may be fitted to: those that calibrate, and more of their kind.
    """

    calibrating: Indices
    fitting: Indices
    choosing: Indices
    reporting: Indices
    sources: int
    copies: int

    def division(self, *, reporting: int | None = None, split: Split | None = None) -> Division:
        """Put the parts into numbers; `reporting` and `split` where another file reports."""
        return Division(
            calibrating=len(self.calibrating),
            fitting=len(self.fitting) if len(self.fitting) > len(self.calibrating) else 0,
            choosing=len(self.choosing),
            reporting=len(self.reporting) if reporting is None else reporting,
            split=split or ("held-out" if self.sources > 1 else "calibration"),
            sources=self.sources,
            copies=self.copies,
            apart=self.sources >= (2 if split else 3),
        )


def divide(
    digests: Sequence[Hashable],
    *,
    seed: int,
    sources: Sequence[int] | None = None,
    shares: tuple[float, float, float] = SHARES,
    most: tuple[int, int, int] = MOST,
    most_fitting: int = MOST_FITTING,
) -> Splits:
    """Divide samples into calibrating, choosing and reporting parts of about these `shares`.

    `digests` are equal for equal samples, of which only the first is used. `sources` names the
    source of each sample (None: each its own). No part holds more than its `most`; what is left
    out then comes from the sources with the most samples. A part with the share 0 stays empty.
    What the other parts would leave out goes to what weights are fitted to.
    """
    groups = _grouped(digests, sources)
    kept = sum(len(group) for group in groups)
    random.Random(seed).shuffle(groups)  # noqa: S311  # a split, not a secret
    wanted = [at for at, share in enumerate(shares) if share > 0]
    parts: list[list[list[int]]] = [[], [], []]
    if len(groups) >= len(wanted):
        _deal(groups, parts, _quotas(kept, shares, most), wanted)
    else:
        largest, *others = sorted(groups, key=len, reverse=True)
        parts = [[largest], [largest], others or [largest]]
    calibrating, choosing, reporting = (
        _most(part, count) if at in wanted else ()
        for at, (part, count) in enumerate(zip(parts, most, strict=True))
    )
    fitting = _most(parts[0], max(most_fitting, len(calibrating)))
    return Splits(calibrating, fitting, choosing, reporting, len(groups), len(digests) - kept)


def _quotas(
    kept: int, shares: tuple[float, float, float], most: tuple[int, int, int]
) -> list[float]:
    """How many samples each part gets: the last two no more than they may hold."""
    others = [min(share * kept, count) for share, count in zip(shares[1:], most[1:], strict=True)]
    return [kept - sum(others), *others]


def _grouped(digests: Sequence[Hashable], sources: Sequence[int] | None) -> list[list[int]]:
    seen: set[Hashable] = set()
    groups: dict[int, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest not in seen:
            seen.add(digest)
            groups.setdefault(index if sources is None else sources[index], []).append(index)
    return list(groups.values())


def _deal(
    groups: list[list[int]], parts: list[list[list[int]]], quotas: list[float], wanted: list[int]
) -> None:
    """Give each group, the largest first, to the part that lacks most; none stays empty."""
    lacking = list(quotas)
    for done, group in enumerate(sorted(groups, key=len, reverse=True)):
        empty = [at for at in wanted if not parts[at]]
        open_to = empty if len(groups) - done <= len(empty) else wanted
        at = max(open_to, key=lambda part: lacking[part])
        parts[at].append(group)
        lacking[at] -= len(group)


def _most(groups: list[list[int]], count: int) -> Indices:
    """At most `count` samples, from as many sources as there are: one of each, then the next."""
    ranked = sorted(
        (rank, place, index)
        for place, group in enumerate(groups)
        for rank, index in enumerate(group)
    )
    return tuple(sorted(index for _, _, index in ranked[:count]))
