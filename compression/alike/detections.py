"""Detections: how many of the original's the candidate finds, and finds no others (numpy only)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike import matching, rows
from compression.alike.interval import Agreed, Running
from compression.job import OutputSpec

Array = NDArray[Any]


def f1(roles: rows.Roles, a: Mapping[str, Array], b: Mapping[str, Array]) -> tuple[int, int, int]:
    """Hits, and detections of the original and of the candidate, in one sample."""
    ours, theirs = rows.read(roles, a), rows.read(roles, b)
    hits = matching.hits(ours, theirs, iou_threshold=rows.iou_threshold(roles))
    return hits, len(ours), len(theirs)


class Detections:
    """F1 over all samples' detections: 2 hits / (detections of either).

    A sample that is empty to both agrees, and adds nothing to F1: a camera that mostly sees
    nothing would hide what is missed. With nothing found anywhere the agreement is 1.
    """

    def __init__(self, specs: Sequence[OutputSpec], roles: rows.Roles) -> None:
        self.main = roles.get("rows") or roles["boxes"]
        self.names = {spec.name for spec in specs}
        self._roles = roles
        self._f1, self._images = Running(), Running()
        self._hits = self._ours = self._theirs = 0

    def add(self, a: Mapping[str, Array], b: Mapping[str, Array], *, sound: bool) -> None:
        """Compare one sample; an unsound answer finds nothing, and that is wrong."""
        if not sound:
            self._f1.add(0.0, max(1.0, float(_count(self._roles, a))))
            self._images.add(0.0)
            return
        hits, ours, theirs = f1(self._roles, a, b)
        self._f1.add(2.0 * hits, float(ours + theirs))
        self._images.add(float(2 * hits == ours + theirs))
        self._hits, self._ours = self._hits + hits, self._ours + ours
        self._theirs += theirs

    def agreed(self) -> Agreed:
        """F1; also precision and recall against the original, and samples with no difference."""
        also = {"images": self._images.value}
        if self._theirs:
            also["precision"] = self._hits / self._theirs
        if self._ours:
            also["recall"] = self._hits / self._ours
        return self._f1.agreed(also)


def _count(roles: rows.Roles, arrays: Mapping[str, Array]) -> int:
    sound = {name: np.nan_to_num(array) for name, array in arrays.items()}
    return len(rows.read(roles, sound))
