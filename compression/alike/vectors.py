"""Outputs that are embeddings: the angle between vectors, and who is whose nearest neighbour."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike.classes import axis_of
from compression.alike.interval import FEW, Agreed, Reservoir, Running
from compression.job import OutputSpec

Array = NDArray[Any]
Floats = NDArray[np.float64]
NEIGHBOURS_MOST = 512
"""Vectors that are kept of each model; a neighbour needs all of them."""
_MOST_BYTES = 16 * 2**20
_EQUAL = 1e-6
"""Cosines this close are equal: two float32 vectors tell no more."""


def cosine(spec: OutputSpec, a: Array, b: Array) -> float:
    """Mean cosine of the vectors along the axis (the last one), 0 where they point apart."""
    x, y = _rows(spec, a), _rows(spec, b)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    equal = (x == y).all(axis=1)
    products = (x * y).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    cosines = np.where(equal, 1.0, np.clip(products, 0.0, 1.0))
    return float(cosines.mean()) if cosines.size else 1.0


class Neighbours:
    """Embeddings: same nearest neighbour among the samples; with fewer than 8 the cosine.

    At most 512 vectors of each model are kept, chosen evenly among all that come, and no more
    than 16 MiB of them. Sequences of vectors stand in by their mean.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._cosines = Running()
        self._kept: Reservoir | None = None

    def add(self, a: Array, b: Array, *, sound: bool) -> None:
        """Compare one sample; an unsound answer has no neighbour."""
        self._cosines.add(cosine(self._spec, a, b) if sound else 0.0)
        ours = _vectors(self._spec, a)
        theirs = _vectors(self._spec, b) if sound else np.full_like(ours, np.nan)
        if self._kept is None:
            fitting = _MOST_BYTES // max(1, 8 * ours.shape[-1])
            self._kept = Reservoir(max(FEW, min(NEIGHBOURS_MOST, fitting)))
        for pair in zip(ours, theirs, strict=True):
            self._kept.add(*(vector.astype(np.float32) for vector in pair))

    def agreed(self) -> Agreed:
        """Share of the samples that keep their nearest neighbour."""
        pairs: list[Any] = [] if self._kept is None else self._kept.items
        also = {"cosine": self._cosines.value}
        if len(pairs) < FEW or len({pair[0].shape for pair in pairs}) > 1:
            return self._cosines.agreed(also)
        running = Running()
        for one in same_neighbours(*(np.stack([pair[side] for pair in pairs]) for side in (0, 1))):
            running.add(float(one))
        return running.agreed(also)


def same_neighbours(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    """Which rows of `theirs` [N, D] have a nearest other row that is also nearest in `ours`.

    Where several are equally near in `ours`, each of them is right. NaN is nobody's neighbour.
    """
    wanted, found = cosines(ours), cosines(theirs)
    nearest = found.argmax(axis=1)
    best = wanted.max(axis=1) - _EQUAL
    right = np.asarray(wanted[np.arange(len(ours)), nearest] >= best)
    return right & np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)


def cosines(rows: Array) -> Floats:
    """All cosines between rows [N, D] -> [N, N]; a row is no neighbour of its own."""
    unit = np.asarray(rows, np.float64)
    sound = np.asarray(np.isfinite(unit).all(axis=1))
    unit = np.where(sound[:, None], unit, 0.0)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    found: Floats = unit @ unit.T
    found[:, ~sound] = -2.0
    np.fill_diagonal(found, -np.inf)
    return found


def _rows(spec: OutputSpec, a: Array) -> Floats:
    """Every vector of one sample, [rows, D]."""
    last = np.moveaxis(np.atleast_1d(a), axis_of(spec, np.atleast_1d(a)), -1)
    return np.asarray(last.reshape(-1, last.shape[-1]), np.float64)


def _vectors(spec: OutputSpec, a: Array) -> Floats:
    """One vector per row of the batch, [N, D]."""
    last = np.moveaxis(np.atleast_1d(a), axis_of(spec, np.atleast_1d(a)), -1)
    batch = 1 if last.ndim == 1 else last.shape[0]
    rows = last.reshape(batch, -1, last.shape[-1])
    return np.asarray(rows.mean(axis=1, dtype=np.float64)) if rows.size else np.zeros((0, 1))
