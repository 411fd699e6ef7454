"""The outputs of a detector: which holds what, by name and shape (pure)."""

import re
from typing import Any

from compression.job import Column, Role
from compression.meaning.seen import Seen

ROLES: tuple[tuple[str, Role], ...] = (
    (r"num|count|valid", "count"),
    (r"class|label|categ", "classes"),
    (r"score|conf|prob", "scores"),
)
_SIBLING = re.compile(r"num|count|valid|class|label|categ|score|conf|prob")
_MANY_ROWS = 1000
"""Rows of a detector's raw head, of which each is a box."""


def role(name: str, *, rank: int, last: int, integers: bool) -> Role | None:
    """What one output of a detector holds, by its name, else by its shape."""
    lowered = name.lower()
    for pattern, named in ROLES:
        if re.search(pattern, lowered):
            return named
    shapes: tuple[tuple[bool, Role], ...] = (
        (rank >= 2 and last == 4, "boxes"),
        (rank >= 2 and last >= 5, "rows"),
        (rank >= 1 and integers, "classes"),
        (rank >= 1, "scores"),
    )
    return next((found for holds, found in shapes if holds), None)


def raw_columns(seen: Seen) -> tuple[Column, ...]:
    """The columns of a detector's raw head, as of the YOLO family; empty where it is none.

    Columns first are box and classes; rows first are box, objectness and classes.
    """
    if seen.image is None or len(seen.shape) != 3 or seen.shape[0] not in {1, -1}:
        return ()
    rows, columns = max(seen.shape[1:]), min(seen.shape[1:])
    if rows < _MANY_ROWS or not 5 <= columns <= 400:
        return ()
    if seen.shape[1] == columns:
        return ("box", "classes")
    return ("box", "objectness", "classes") if columns > 5 else ()


def fields(seen: Seen) -> dict[str, Any]:
    """What else is to be said of an output that holds detections."""
    columns = raw_columns(seen)
    if columns:
        by_column = seen.shape[1] < seen.shape[2]
        return {
            "role": "rows", "columns": columns, "box_format": "cxcywh",
            "axis": 1 if by_column else None,
        }  # fmt: skip
    rank, last = len(seen.shape), seen.last
    return {"role": role(seen.name, rank=rank, last=last, integers=seen.integers)}


def beside(seen: Seen) -> bool:
    """Whether an output that stands beside boxes belongs to them."""
    return len(seen.shape) <= 3 and bool(_SIBLING.search(seen.name.lower()))
