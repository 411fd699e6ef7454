"""Which boxes of one answer are those of another: one to one, by overlap and class (numpy only)."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROUNDING = 1e-9
_FREE = -1


@dataclass(frozen=True)
class Found:
    """Detections of one sample: boxes [K, 4] as x1, y1, x2, y2; class, image and score [K]."""

    boxes: Floats
    classes: Ints
    images: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.boxes)


def hits(ours: Found, theirs: Found, *, iou_threshold: float) -> int:
    """The most pairs of one class and image with at least this IoU, each box in at most one.

    It is the size of a maximum matching, so it does not hang on the order of the rows, as a
    greedy choice does (Kuhn 1955; breadth first).
    """
    if not len(ours) or not len(theirs):
        return 0
    near = iou(ours.boxes, theirs.boxes) >= iou_threshold - _ROUNDING
    near &= ours.classes[:, None] == theirs.classes[None]
    near &= ours.images[:, None] == theirs.images[None]
    neighbours = [np.flatnonzero(row).tolist() for row in near]
    holder = [_FREE] * len(theirs)  # of each of theirs: which of ours has it
    return sum(_augment(start, neighbours, holder) for start in range(len(ours)))


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes [K, 4] and [L, 4] -> [K, L]; of equal boxes 1.

    Boxes that are turned over or not finite have no area.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    with np.errstate(invalid="ignore", over="ignore"):  # infinities overlap with nothing
        inside = np.clip(high - low, 0.0, None).prod(axis=2)
        union = _areas(a)[:, None] + _areas(b)[None] - inside
        shares = np.where(union > 0, inside / np.where(union > 0, union, 1.0), 0.0)
    equal = (a[:, None] == b[None]).all(axis=2)
    return np.asarray(np.where(equal, 1.0, np.nan_to_num(shares, nan=0.0, posinf=0.0)))


def _areas(boxes: Floats) -> Floats:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1))


def _augment(start: int, neighbours: list[list[int]], holder: list[int]) -> bool:
    """Give `start` a partner, moving others to their second choices where that helps."""
    came_from: dict[int, int] = {}
    waiting = deque([start])
    while waiting:
        one = waiting.popleft()
        for other in neighbours[one]:
            if other in came_from:
                continue
            came_from[other] = one
            if holder[other] == _FREE:
                _flip(other, came_from, holder, start)
                return True
            waiting.append(holder[other])
    return False


def _flip(other: int, came_from: dict[int, int], holder: list[int], start: int) -> None:
    """Walk the path back, each box taking the partner that was found for it."""
    while (one := came_from[other]) != start:
        before = holder.index(one)
        holder[other] = one
        other = before
    holder[other] = start
