"""Draws the rows of test_pruning.py: agreement against the share of products removed, as SVG."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, ACROSS = 300, 210, 2
LEFT, TOP, RIGHT, BOTTOM = 40, 28, 10, 30
COLOURS = {
    ("magnitude", False): "#9a9a9a",
    ("activations", False): "#d08a2c",
    ("magnitude", True): "#5c86c7",
    ("activations", True): "#137a4c",
}
RADII = {32: 2.5, 256: 4.0}
"""By inputs; more than these: the largest."""
LARGEST = 5.5
Row = Mapping[str, Any]


def draw(rows: Sequence[Row]) -> str:
    """Return one SVG with a panel for each model."""
    panels: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "problem" not in row:
            panels[row["model"]].append(row)
    lines = -(-len(panels) // ACROSS)
    high = lines * HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * WIDTH} {high}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
    ]
    for at, (name, mine) in enumerate(panels.items()):
        x, y = at % ACROSS * WIDTH, at // ACROSS * HEIGHT
        parts += [f'<g transform="translate({x},{y})">', *panel(name, mine), "</g>"]
    parts += [*legend(lines * HEIGHT + 14), "</svg>"]
    return "\n".join(parts)


def panel(name: str, rows: Sequence[Row]) -> Iterator[str]:
    """One model's figures, from no product removed to all, and from no agreement to all."""
    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(name)}</text>'
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>'
        yield f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{tick:.2f}</text>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{tick:.2f}</text>'
    for (order, refit), colour in COLOURS.items():
        mine = [row for row in rows if (row["order"], row["refit"]) == (order, refit)]
        for count in sorted({row["inputs"] for row in mine}):
            of_count = [row for row in mine if row["inputs"] == count]
            points = sorted((1 - row["macs"], row["agreement"]) for row in of_count)
            spots = [place(*point) for point in points]
            if len(spots) > 1:
                path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
                yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            for (x, y), (removed, agreement) in zip(spots, points, strict=True):
                yield (
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADII.get(count, LARGEST)}" '
                    f'fill="{colour}" fill-opacity=".65"><title>{count} inputs, {order}'
                    f"{', refit' if refit else ''}: {removed:.2f} removed, {agreement:.3f}"
                    "</title></circle>"
                )


def place(removed: float, agreement: float) -> tuple[float, float]:
    """Where a point lies in its panel."""
    return (
        LEFT + removed * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - agreement * (HEIGHT - TOP - BOTTOM),
    )


def legend(y: float) -> Iterator[str]:
    """What colours and sizes mean."""
    for at, ((order, refit), colour) in enumerate(COLOURS.items()):
        yield f'<circle cx="{20 + at * 140}" cy="{y}" r="4" fill="{colour}"/>'
        what = f"{order}{', refit' if refit else ''}"
        yield f'<text x="{28 + at * 140}" y="{y + 3}">{what}</text>'
    yield (
        f'<text x="16" y="{y + 20}">agreement on held-out inputs against the share of products '
        "removed; small 32, middle 256, large up to 2,000 inputs</text>"
    )
