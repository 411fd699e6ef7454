"""The table of a dynamic programme over parts, pairs of parts and discretised time (pure).

Parts are taken one by one. A row of the table is one choice for each part that a later pair still
asks about (the frontier); a column is how much time is spent. A part that nobody asks about any
more is chosen for each row, which is remembered for the way back (Bertele and Brioschi, "Nonserial
Dynamic Programming", 1972).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pairs = Mapping[tuple[int, int], Floats]
MOST_ROWS = 2048
"""Choices of the frontier, times the options of one part. Pairs that need more are split into what
each part adds on average, those first of which that says most."""
_TINY = 1e-9


@dataclass(frozen=True)
class Terms:
    """What options cost, float64 [options], and pairs by (a, b), float64 [options a, options b]."""

    costs: tuple[Floats, ...]
    times: tuple[Floats, ...]
    pair_costs: Pairs
    pair_times: Pairs


@dataclass(frozen=True)
class _Step:
    """One part added: who was open before, who is chosen behind it, and what was chosen."""

    open: tuple[int, ...]
    closed: tuple[int, ...]
    chosen: NDArray[np.int64]
    """[rows that stay, columns]: the joint number of what is closed."""
    spent: NDArray[np.int64]
    """[rows, options]: the steps of time that the part adds."""


def cheapest(terms: Terms, *, bound: float, buckets: int) -> tuple[int, ...] | None:
    """Return the option of each part that cost least together within `bound`; None: there are none.

    Each part's time is rounded up to a step, of which there are `buckets` between the least time of
    all and `bound`.
    """
    terms = _narrowed(terms)
    counts = [len(cost) for cost in terms.costs]
    floors = [_least_time(terms, part) for part in range(len(counts))]
    room = bound - sum(floors)
    if room < -_TINY * max(1.0, abs(bound)):
        return None
    step = max(room, _TINY * max(1.0, abs(bound))) / buckets
    table = np.zeros((1, buckets + 1))
    steps: list[_Step] = []
    frontier: tuple[int, ...] = ()
    for part in range(len(counts)):
        cost, time = _added(terms, part, frontier, counts)
        # Rounding must not push what fits exactly over the edge.
        spent = np.ceil((time - floors[part]) / step - 1e-9).astype(np.int64)
        spent = np.minimum(spent, buckets + 1)
        grown = _grown(table, cost, spent)
        opened = (*frontier, part)
        stay = tuple(one for one in opened if _asked(terms, one, after=part))
        closed = tuple(one for one in opened if one not in stay)
        table, chosen = _closed(grown, opened, stay, closed, counts)
        steps.append(_Step(frontier, closed, chosen, spent))
        frontier = stay
    if not np.isfinite(table[0, buckets]):
        return None
    return _way_back(steps, counts, column=buckets)


def _least_time(terms: Terms, part: int) -> float:
    """What a part takes at least, with the pairs that it closes."""
    closing = [time for (_, b), time in terms.pair_times.items() if b == part]
    return float(terms.times[part].min()) + sum(float(time.min()) for time in closing)


def _added(
    terms: Terms, part: int, frontier: tuple[int, ...], counts: Sequence[int]
) -> tuple[Floats, Floats]:
    """What each option adds in each row: cost and time, float64 [rows, options]."""
    shape = (*(counts[one] for one in frontier), counts[part])
    found: list[Floats] = []
    for singles, pairs in ((terms.costs, terms.pair_costs), (terms.times, terms.pair_times)):
        total = np.broadcast_to(singles[part], shape)
        for (a, b), values in pairs.items():
            if b == part:
                at = [1] * len(shape)
                at[frontier.index(a)], at[-1] = values.shape
                total = total + values.reshape(at)
        found.append(total.reshape(-1, counts[part]))
    return found[0], found[1]


def _grown(table: Floats, cost: Floats, spent: NDArray[np.int64]) -> Floats:
    """The table with the options of one more part: [rows, options, columns]."""
    rows, columns = table.shape
    grown = np.full((rows, spent.shape[1], columns), np.inf)
    for row in range(rows):
        for option in range(spent.shape[1]):
            late = int(spent[row, option])
            if late < columns:
                grown[row, option, late:] = table[row, : columns - late] + cost[row, option]
    return grown


def _closed(
    grown: Floats,
    opened: tuple[int, ...],
    stay: tuple[int, ...],
    closed: tuple[int, ...],
    counts: Sequence[int],
) -> tuple[Floats, NDArray[np.int64]]:
    """Choose for those that nobody asks about any more: the table, and what was chosen."""
    columns = grown.shape[-1]
    whole = grown.reshape(*(counts[one] for one in opened), columns)
    order = [opened.index(one) for one in (*stay, *closed)]
    whole = whole.transpose(*order, len(opened))
    rows = int(np.prod([counts[one] for one in stay], dtype=np.int64))
    split = whole.reshape(rows, -1, columns)
    chosen = split.argmin(axis=1)
    return np.take_along_axis(split, chosen[:, None], axis=1)[:, 0], chosen


def _asked(terms: Terms, part: int, *, after: int) -> bool:
    keys = {*terms.pair_times, *terms.pair_costs}
    return any(a == part and b > after for a, b in keys)


def _way_back(steps: Sequence[_Step], counts: Sequence[int], *, column: int) -> tuple[int, ...]:
    """Read the options off what was chosen, from the last part to the first."""
    known: dict[int, int] = {}
    for part in range(len(steps) - 1, -1, -1):
        step = steps[part]
        opened = (*step.open, part)
        stay = tuple(one for one in opened if one not in step.closed)
        number = int(step.chosen[_row(stay, known, counts), column])
        for one in reversed(step.closed):
            number, known[one] = divmod(number, counts[one])
        column -= int(step.spent[_row(step.open, known, counts), known[part]])
    return tuple(known[part] for part in range(len(steps)))


def _row(parts: tuple[int, ...], known: Mapping[int, int], counts: Sequence[int]) -> int:
    row = 0
    for part in parts:
        row = row * counts[part] + known[part]
    return row


def _narrowed(terms: Terms) -> Terms:
    """Split pairs until the table has at most `MOST_ROWS` rows anywhere."""
    costs, times = list(terms.costs), list(terms.times)
    pair_costs, pair_times = dict(terms.pair_costs), dict(terms.pair_times)
    counts = [len(cost) for cost in costs]
    while (wide := _widest(counts, {*pair_costs, *pair_times})) is not None:
        # Of those that cross the widest place, the one that two single terms say best.
        key = min(wide, key=lambda one: _together(pair_times.get(one), pair_costs.get(one)))
        for singles, pairs in ((costs, pair_costs), (times, pair_times)):
            if key in pairs:
                values = pairs.pop(key)
                middle = values.mean()
                singles[key[0]] = singles[key[0]] + values.mean(axis=1) - middle / 2
                singles[key[1]] = singles[key[1]] + values.mean(axis=0) - middle / 2
    return Terms(tuple(costs), tuple(times), pair_costs, pair_times)


def _widest(counts: Sequence[int], keys: set[tuple[int, int]]) -> list[tuple[int, int]] | None:
    """The pairs across the first place that needs too many rows; None where there is none."""
    for part in range(len(counts)):
        crossing = sorted(key for key in keys if key[0] < part <= key[1])
        rows = counts[part]
        for one in {a for a, _ in crossing}:
            rows *= counts[one]
        if rows > MOST_ROWS and crossing:
            return crossing
    return None


def _together(*pairs: Floats | None) -> float:
    """How much of a pair is neither the one's nor the other's."""
    spread = 0.0
    for values in pairs:
        if values is not None:
            alone = values.mean(axis=1, keepdims=True) + values.mean(axis=0) - values.mean()
            spread = max(spread, float(np.abs(values - alone).max()) / (np.ptp(values) + 1e-30))
    return spread
