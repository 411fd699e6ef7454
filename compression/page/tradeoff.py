"""The two pictures of a ladder: agreement and size, each against latency (pure)."""

from collections.abc import Sequence

from compression import judging
from compression.findings import Ladder, Measurement
from compression.job import Budget
from compression.page import plot
from compression.page.markup import Markup, element, join
from compression.page.plot import Axis, Kind, Point
from compression.page.scale import around
from compression.page.tables import ratio

_SLOWEST = 2.0
"""The latency axis ends here, whatever is slower: it would press all others together."""
_LEAST_AGREEMENT = 0.02
"""The agreement axis shows at least this much below 1."""


def figures(found: Ladder) -> Markup:
    """Both pictures, with what their marks mean."""
    marks = (
        "● meets the budget  ○ misses it  ■ the original; crosses were rejected. The numbers are "
        "those of the table; bars are 95 % intervals; dashed lines are the budget. What lies "
        "beyond an axis is drawn at its edge."
    )
    drawn = [_agreement(found), _size(found)]
    both = element("div", *(element("figure", one) for one in drawn), class_="plots")
    return join(both, element("p", marks, class_="soft"))


def _agreement(found: Ladder) -> Markup:
    points = _points(found, size=False)
    kept = [p for p in points if p.kind != "rejected"] or points
    floor = found.budget.min_agreement
    lows = [p.y_bounds[0] if p.y_bounds else p.y for p in kept if p.kind != "original"]
    low = min([*lows, *([floor] if floor is not None else []), 1.0 - _LEAST_AGREEMENT])
    low = max(0.0, low - 0.08 * (1.0 - low))
    y = Axis("agreement with the original", low, 1.0 + 0.04 * (1.0 - low), floor, "least agreement")
    return plot.draw("Agreement against latency", points, x=_latency(found, points), y=y)


def _size(found: Ladder) -> Markup:
    points = _points(found, size=True)
    bound = found.budget.size_ratio
    if found.budget.size_mib is not None and found.rungs:
        of_mib = ratio(found.budget.size_mib, found.rungs[0].measurement.original_size_mib)
        bound = of_mib if bound is None else min(bound, of_mib)
    high = max([1.05, *(p.y for p in points if p.kind != "rejected")])
    y = Axis("size, as a share of the original's", 0.0, high, bound, "largest size")
    return plot.draw("Size against latency", points, x=_latency(found, points), y=y)


def _latency(found: Ladder, points: Sequence[Point]) -> Axis:
    kept = [p for p in points if p.kind != "rejected"] or points
    values = [value for p in kept for value in (p.x, *(p.x_bounds or ()))]
    bound = _latency_bound(found.budget, [rung.measurement for rung in found.rungs])
    shown = [*values, 1.0, *([bound] if bound is not None else [])]
    low, high = around([min(value, _SLOWEST) for value in shown])
    title = "latency, as a share of the original's (left is faster)"
    return Axis(title, max(0.0, low), high, bound, "slowest")


def _latency_bound(budget: Budget, measured: Sequence[Measurement]) -> float | None:
    bounds = [budget.latency_ratio]
    if budget.latency_p95_ms is not None and measured:
        bounds.append(ratio(budget.latency_p95_ms, measured[0].original_latency_p95_ms))
    return min((bound for bound in bounds if bound is not None), default=None)


def _points(found: Ladder, *, size: bool) -> list[Point]:
    points = [
        _point(one.measurement, one.recipe.label, "rejected", size=size)
        for one in found.rejected
        if one.measurement is not None
    ]
    for place, rung in enumerate(found.rungs, start=1):
        met: Kind = "rung" if rung.meets_budget else "misses"
        kind: Kind = met if rung.recipe.passes else "original"
        label = f"{place} {rung.recipe.label}"
        points.append(_point(rung.measurement, label, kind, size=size, number=str(place)))
    return points


def _point(m: Measurement, label: str, kind: Kind, *, size: bool, number: str = "") -> Point:
    agreement = m.agreement
    share = judging.BOUNDS["size_ratio"][2](m)
    x_bounds = None if m.ratio_low is None or m.ratio_high is None else (m.ratio_low, m.ratio_high)
    certain = kind in {"original", "rejected"}
    return Point(
        x=m.latency_ratio,
        y=share if size else agreement.value,
        kind=kind,
        name=f"{label}: latency {m.latency_ratio:.2f}, size {share:.2f}, agreement "
        f"{agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}]",
        number=number,
        x_bounds=None if kind == "rejected" else x_bounds,
        y_bounds=None if size or certain else (agreement.low, agreement.high),
    )
