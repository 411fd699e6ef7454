"""In which order units of a group go: by magnitude, or by what others cannot replace (pure).

By activations it is the optimal brain surgeon on whole units (Hassibi and Stork, 1993; Kurtic et
al., "ZipLM", NeurIPS 2023): of what the readers of a group sum, how much is lost where a unit goes
and the weights of all that are left take over what they can. The least goes first; then again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.pruning.groups import Group

Array = NDArray[Any]
Floats = NDArray[np.float64]
DAMPING = 0.01
"""What is added to the diagonal of a Gram matrix, in parts of its mean."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Reader:
    """What one reader of a group sums: `gram` of its inputs [n, n], its `weights` [n, outputs].

    `units` is int64 [n]: which unit of the group each input belongs to, or -1.
    """

    gram: Floats
    weights: Floats
    units: Array


@dataclass(frozen=True)
class Order:
    """`units` int64 [width], the first to go first, and what is lost with each, added up.

    `lost` is float64 [width], in parts of all that the readers sum, averaged over them.
    """

    units: Array
    lost: Floats

    def kept(self, count: int) -> tuple[int, ...]:
        """The units that stay where `count` of them do."""
        return tuple(sorted(self.units[len(self.units) - count :].tolist()))


def by_magnitude(group: Group, weights: dict[str, Array]) -> Order:
    """Order units by the squares of the weights that make them, each matrix at a mean of one."""
    scores = np.zeros(group.width)
    for slot in group.slots:
        value = weights.get(slot.initializer)
        if slot.role != "makes" or value is None or not np.issubdtype(value.dtype, np.floating):
            continue
        rows = np.moveaxis(value.astype(np.float64), slot.axis, 0).reshape(
            value.shape[slot.axis], -1
        )
        mine = slot.units >= 0
        own = np.bincount(slot.units[mine], (rows**2).sum(1)[mine], minlength=group.width)
        scores += own / max(own.mean(), _LEAST)
    units = np.argsort(scores, kind="stable")
    lost = np.cumsum(scores[units])
    return Order(units, lost / max(float(lost[-1]), _LEAST))


def by_activations(width: int, readers: Sequence[Reader]) -> Order | None:
    """Order units by what their readers lose; None where no reader says anything."""
    tables = [table for one in readers if (table := _Table.of(one, width)) is not None]
    if not tables:
        return None
    alive = np.ones(width, bool)
    units, lost, total = [], [], 0.0
    for _ in range(width):
        scores = np.where(alive, sum(table.losses() for table in tables), np.inf)
        unit = int(np.argmin(scores))
        total += max(float(scores[unit]), 0.0) / len(tables)
        alive[unit] = False
        units.append(unit)
        lost.append(total)
        for table in tables:
            table.remove(unit)
    return Order(np.array(units), np.array(lost))


class _Table:
    """The inverse of one reader's Gram matrix and its weights, as units are taken out."""

    def __init__(self, inverse: Floats, weights: Floats, members: list[Array], energy: float):
        self._inverse = inverse
        self._weights = weights
        self._members = members
        self._energy = energy

    @classmethod
    def of(cls, reader: Reader, width: int) -> "_Table | None":
        """None where the inputs never change, or are not finite."""
        gram = reader.gram
        scale = float(np.trace(gram)) / len(gram)
        energy = float(((gram @ reader.weights) * reader.weights).sum())
        if not np.isfinite(energy) or energy <= 0 or scale <= 0:
            return None
        damped = gram + DAMPING * scale * np.eye(len(gram))
        inverse = np.asarray(np.linalg.inv(damped), np.float64)
        members = [np.flatnonzero(reader.units == unit) for unit in range(width)]
        return cls(inverse, reader.weights.copy(), members, energy)

    def losses(self) -> Floats:
        """What each unit would take with it now, float64 [units], in parts of the energy."""
        if all(len(at) == 1 for at in self._members):
            at = np.concatenate(self._members)
            squares = (self._weights[at] ** 2).sum(1)
            found: Floats = squares / np.maximum(np.diag(self._inverse)[at], 1e-30) / self._energy
            return found
        return np.array([self._loss(at) for at in self._members]) / self._energy

    def _loss(self, at: Array) -> float:
        if not len(at):
            return 0.0
        own, weights = self._inverse[np.ix_(at, at)], self._weights[at]
        return float((weights * _solved(own, weights)).sum())

    def remove(self, unit: int) -> None:
        """Take a unit out; the weights of the others make up for it as far as they can."""
        at = self._members[unit]
        if not len(at):
            return
        own, column = self._inverse[np.ix_(at, at)], self._inverse[:, at]
        self._weights -= column @ _solved(own, self._weights[at])
        self._inverse -= column @ _solved(own, column.T)
        self._weights[at] = 0
        self._inverse[at] = self._inverse[:, at] = 0
        self._inverse[at, at] = 1e30  # nothing more is lost with it


def _solved(matrix: Floats, right: Floats) -> Floats:
    """Solve a small system that may be singular: of a dead unit nothing is left."""
    size = len(matrix)
    floor = 1e-12 * max(float(np.trace(matrix)) / size, 1e-30)
    return np.asarray(np.linalg.solve(matrix + floor * np.eye(size), right), np.float64)
