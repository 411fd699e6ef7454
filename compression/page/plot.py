"""Points with their uncertainty in two figures of merit, as SVG: what is traded for what (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compression.page.markup import Markup, element, join
from compression.page.scale import Scale, number

WIDTH, HEIGHT = 440, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 30, 44
_BOX = 14.0
"""A number's height and width, for finding it a free place."""

Kind = Literal["rung", "misses", "original", "rejected"]


@dataclass(frozen=True)
class Point:
    """One variant: where it lies, how sure that is, and what it is called."""

    x: float
    y: float
    kind: Kind
    name: str
    number: str = ""
    x_bounds: tuple[float, float] | None = None
    y_bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from where to where, and the bound that a budget sets on it."""

    title: str
    low: float
    high: float
    bound: float | None = None
    bound_name: str = ""


def draw(title: str, points: Sequence[Point], *, x: Axis, y: Axis) -> Markup:
    """One scatter plot. Marks differ by shape as well as by colour; each has a title."""
    across = Scale(x.low, x.high, _LEFT, WIDTH - _RIGHT)
    up = Scale(y.low, y.high, HEIGHT - _BOTTOM, _TOP)
    order: tuple[Kind, ...] = ("rejected", "original", "misses", "rung")
    ordered = sorted(points, key=lambda point: order.index(point.kind))
    taken = [(across.at(p.x), up.at(p.y)) for p in points if p.number]
    if y.bound is not None:  # where its name may stand
        middle = up.at(y.bound)
        taken += [(across.end - 8 - at, middle + by) for at in range(0, 96, 12) for by in (-9, 10)]
    return element(
        "svg",
        element("title", title),
        _axes(x, y, across, up),
        _bounds(x, y, across, up),
        *(_mark(point, across, up) for point in ordered),
        *(_number(point, across, up, taken) for point in ordered if point.number),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )


def _axes(x: Axis, y: Axis, across: Scale, up: Scale) -> Markup:
    bottom, left = up.start, across.start
    parts = [
        element("path", class_="axis", d=f"M{left} {_TOP}V{bottom}H{WIDTH - _RIGHT}"),
        element("text", x.title, x=(left + across.end) / 2, y=HEIGHT - 8, text_anchor="middle"),
        element("text", y.title, x=4, y=13),
    ]
    for value in across.ticks():
        at = across.at(value)
        parts += [
            element("line", class_="tick", x1=at, x2=at, y1=bottom, y2=bottom + 4),
            element("text", number(value), x=at, y=bottom + 17, text_anchor="middle"),
        ]
    for value in up.ticks():
        at = up.at(value)
        parts += [
            element("line", class_="tick", x1=left, x2=across.end, y1=at, y2=at),
            element("text", number(value), x=left - 6, y=at + 4, text_anchor="end"),
        ]
    return join(*parts)


def _bounds(x: Axis, y: Axis, across: Scale, up: Scale) -> Markup:
    parts = []
    if x.bound is not None and across.holds(x.bound):
        at = across.at(x.bound)
        parts += [
            element("line", class_="bound", x1=at, x2=at, y1=_TOP, y2=up.start),
            element("text", x.bound_name, class_="bounded", x=at - 4, y=up.start - 6,
                    text_anchor="end"),
        ]  # fmt: skip
    if y.bound is not None and up.holds(y.bound):
        at = up.at(y.bound)
        near_top = at < _TOP + 26  # where most points are
        parts += [
            element("line", class_="bound", x1=across.start, x2=across.end, y1=at, y2=at),
            element("text", y.bound_name, class_="bounded", x=across.end - 2,
                    y=at + 14 if near_top else at - 5,
                    text_anchor="end"),
        ]  # fmt: skip
    return join(*parts)


def _mark(point: Point, across: Scale, up: Scale) -> Markup:
    x, y = across.at(point.x), up.at(point.y)
    parts = []
    if point.x_bounds is not None:
        a, b = (across.at(bound) for bound in point.x_bounds)
        parts.append(element("line", class_="noise", x1=a, x2=b, y1=y, y2=y))
    if point.y_bounds is not None:
        a, b = (up.at(bound) for bound in point.y_bounds)
        parts.append(element("line", class_="noise", x1=x, x2=x, y1=a, y2=b))
    return element("g", element("title", point.name), *parts, _shape(point.kind, x, y))


def _shape(kind: Kind, x: float, y: float) -> Markup:
    if kind == "rejected":
        return element("path", class_=kind, d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8")
    if kind == "original":
        return element("rect", class_=kind, x=x - 5, y=y - 5, width=10, height=10)
    return element("circle", class_=kind, cx=x, cy=y, r=6)


def _number(point: Point, across: Scale, up: Scale, taken: list[tuple[float, float]]) -> Markup:
    """The place in the table beside the mark, where nothing else stands yet."""
    x, y = across.at(point.x), up.at(point.y)
    places = [(x + dx, y + dy) for dx, dy in _AROUND]
    free = next((p for p in places if _free(p, across, up, taken)), places[0])
    taken.append(free)
    return element(
        "text", point.number, class_="number", x=free[0], y=free[1] + 4, text_anchor="middle"
    )


_AROUND = [(13, -9), (-13, -9), (13, 10), (-13, 10), (0, -17), (0, 18), (24, 0), (-24, 0),
           (26, -18), (-26, -18), (26, 18), (-26, 18)]  # fmt: skip


def _free(
    place: tuple[float, float], across: Scale, up: Scale, taken: list[tuple[float, float]]
) -> bool:
    inside = across.start + 5 < place[0] < WIDTH - 6 and _TOP - 12 < place[1] < up.start - 5
    return inside and all(abs(place[0] - x) >= _BOX or abs(place[1] - y) >= _BOX for x, y in taken)
