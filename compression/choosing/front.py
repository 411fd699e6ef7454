"""Which looks are worth a trial: those that no other one beats in speed, size and likeness (pure).

A candidate is left out only where another is at least as good in all three within what a look can
tell apart, and clearly better in one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from compression import ladder
from compression.findings import Agreement

SAME_SHARE = 0.02
"""Ratios of time and size closer than this are the same."""
SAME_DB = 1.0


class Figures(Protocol):
    """What is compared."""

    @property
    def cpu_ratio(self) -> float:
        """Process CPU time against the original's."""

    @property
    def size_bytes(self) -> int:
        """Of the file."""

    @property
    def sqnr_db(self) -> float:
        """Of the judged output."""

    @property
    def agreement(self) -> Agreement | None:
        """On the choosing part."""

    @property
    def place(self) -> int | None:
        """By nearness to the original, input by input; None where nobody compared them so."""

    @property
    def peak_mib(self) -> float | None:
        """In memory, where that is bounded."""


T = TypeVar("T", bound=Figures)


@dataclass(frozen=True)
class Sorted(Generic[T]):
    """The front in the order of trials, and what lies behind it with who beats it."""

    front: tuple[T, ...]
    behind: tuple[tuple[T, T], ...]


def beats(a: Figures, b: Figures) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere clearly better.

    Likeness is by places, where both have them. Else shares of equal answers on a few inputs differ
    by chance, so that less than one standard error is no difference; then the signal to noise
    ratio decides.
    """
    more = 1 + SAME_SHARE
    farther, nearer = _likeness(a, b)
    nowhere_worse = (
        a.cpu_ratio <= b.cpu_ratio * more
        and a.size_bytes <= b.size_bytes * more
        and not farther
        and _peak(a) <= _peak(b) * more
    )
    somewhere_better = (
        a.cpu_ratio * more < b.cpu_ratio
        or a.size_bytes * more < b.size_bytes
        or nearer
        or _peak(a) * more < _peak(b)
    )
    return nowhere_worse and somewhere_better


def _likeness(a: Figures, b: Figures) -> tuple[bool, bool]:
    """Whether `a` is clearly farther from the original than `b`, and whether it is nearer."""
    if a.place is not None and b.place is not None:
        return a.place > b.place, a.place < b.place
    apart = _value(a) - _value(b)
    chance = max(_error(a), _error(b))
    farther = apart < -chance or (a.sqnr_db < b.sqnr_db - SAME_DB and apart <= chance)
    return farther, a.sqnr_db > b.sqnr_db + SAME_DB or apart > chance


def split(looks: Sequence[T]) -> Sorted[T]:
    """Divide looks into the front and what it beats.

    The front begins with the best compromise, the most alike, the smallest and the fastest, so
    that whatever time allows is spread over it; then comes what is farthest from all before.
    """
    beaten: dict[int, T] = {}
    for at, b in enumerate(looks):
        for other, a in enumerate(looks):
            if at != other and other not in beaten and beats(a, b) and not _twins(a, b, at, other):
                beaten[at] = a
                break
    front = [look for at, look in enumerate(looks) if at not in beaten]
    return Sorted(
        front=tuple(spread(front)),
        behind=tuple((looks[at], by) for at, by in beaten.items()),
    )


def _twins(a: Figures, b: Figures, at: int, other: int) -> bool:
    """Whether each beats the other by the leave that noise gets; then the earlier one stays."""
    return beats(b, a) and other > at


def spread(front: Sequence[T]) -> list[T]:
    """Put the best compromise first, then the corners, then what is farthest from all before."""
    if not front:
        return []
    best = max(_value(one) for one in front)
    slack = max(_error(one) for one in front if _value(one) == best)
    alike = [one for one in front if _value(one) >= best - slack]
    corners = [
        min(alike, key=_cost),
        max(alike, key=lambda one: one.sqnr_db),
        min(front, key=lambda one: (one.size_bytes, one.cpu_ratio)),
        min(front, key=lambda one: (one.cpu_ratio, one.size_bytes)),
    ]
    chosen = list({id(one): one for one in corners}.values())
    left = [one for one in front if all(one is not other for other in chosen)]
    while left:
        farthest = max(left, key=lambda one: min(_apart(one, other) for other in chosen))
        chosen.append(farthest)
        left = [one for one in left if one is not farthest]
    return chosen


def _apart(a: Figures, b: Figures) -> float:
    """How different two candidates are: a tenth of the time, a third of the size, or 8 dB are 1."""
    return (
        abs(math.log(a.cpu_ratio / b.cpu_ratio)) / 0.1
        + abs(math.log(a.size_bytes / b.size_bytes)) / 0.3
        + min(abs(a.sqnr_db - b.sqnr_db), 40.0) / 8.0
    )


def _cost(one: Figures) -> float:
    return one.cpu_ratio * one.size_bytes


def _value(one: Figures) -> float:
    return one.agreement.value if one.agreement else 0.0


def _peak(one: Figures) -> float:
    """What nobody has weighed counts as alike."""
    return one.peak_mib or 1.0


def _error(one: Figures) -> float:
    return ladder.standard_error(one.agreement) if one.agreement else 0.0
