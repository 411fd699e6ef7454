"""A bar for each node: how far the output moves when that node alone is quantized (pure)."""

from collections.abc import Sequence

from compression.findings import Sensitivity
from compression.page.markup import Markup, element
from compression.page.scale import Scale, number

WIDTH = 440
MOST = 24
"""Nodes in the chart: the worst; the table has all."""
_ROW, _TOP, _BOTTOM, _RIGHT = 22, 8, 40, 14
_LABEL = 168
_LETTERS = 24
GOOD_DB = 40.0
"""Below this a node is worth a look: an error of one percent of the signal's amplitude."""


def draw(nodes: Sequence[Sensitivity]) -> Markup:
    """Bars of SQNR in dB, the worst node first; a short bar is a bad one."""
    shown = nodes[:MOST]
    height = _TOP + _ROW * len(shown) + _BOTTOM
    bottom = height - _BOTTOM
    lowest = min([0.0, *(node.sqnr_db for node in shown)])
    across = Scale(lowest, max([60.0, *(node.sqnr_db for node in shown)]), _LABEL, WIDTH - _RIGHT)
    parts = [element("title", f"SQNR of the output with one node quantized: {len(shown)} nodes")]
    for value in across.ticks():
        at = across.at(value)
        parts += [
            element("line", class_="tick", x1=at, x2=at, y1=_TOP, y2=bottom),
            element("text", number(value), x=at, y=bottom + 16, text_anchor="middle"),
        ]
    parts.append(
        element("text", "dB (longer is better)", x=(_LABEL + WIDTH) / 2, y=height - 6,
                text_anchor="middle")
    )  # fmt: skip
    for at, node in enumerate(shown):
        y, end = _TOP + _ROW * at, across.at(node.sqnr_db)
        low = node.sqnr_db < GOOD_DB
        parts.append(
            element(
                "g",
                element("title", f"{node.node} ({node.operator}): {node.sqnr_db:.1f} dB"),
                element("text", short(node.node), class_="label", x=_LABEL - 6, y=y + 15,
                        text_anchor="end"),
                element("rect", class_="low" if low else "bar", x=across.start, y=y + 4,
                        width=max(1.0, end - across.start), height=_ROW - 8, rx=2),
                element("text", f"{node.sqnr_db:.0f}", x=min(end + 5, WIDTH - 22), y=y + 15)
                if not low or end < WIDTH - 30
                else None,
            )
        )  # fmt: skip
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img")


def short(name: str) -> str:
    """A name cut in the middle, where it is told apart from its neighbours at both ends."""
    if len(name) <= _LETTERS:
        return name
    return f"{name[: _LETTERS // 2 - 1]}…{name[-_LETTERS // 2 :]}"
