"""Fits the weights of layers anew behind a cut, so that each makes what the original's makes.

Front to back: a layer's inputs are those of the model as cut and fitted so far, its target is what
the original makes at the same places, so that no error adds up (He et al., "Channel Pruning for
Accelerating Very Deep Neural Networks", ICCV 2017, section 3.2). Least squares from streamed
matrices of moments, drawn towards the weights as they were cut; how strongly, samples decide that
are not fitted to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.calibration import moments, taps
from compression.calibration.moments import Input
from compression.pruning import layers, pairs, stages
from compression.pruning.behind import Stays
from compression.pruning.pairs import Pair
from compression.pruning.parts import Parts

Floats = NDArray[np.float64]
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Tried strengths, in parts of the mean of the Gram matrix's diagonal."""


@dataclass(frozen=True)
class Fitted:
    """What became of one layer: the share of its energy that is lost, on samples that judge."""

    layer: str
    ridge: float
    before: float
    after: float


class Sums:
    """Moments of inputs x and targets y: float64 [groups, ...]."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self.count = 0
        self.x, self.y = np.zeros((groups, inputs)), np.zeros((groups, outputs))
        self.xx = np.zeros((groups, inputs, inputs))
        self.xy = np.zeros((groups, inputs, outputs))
        self.yy = np.zeros((groups, outputs))

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        self.count += x.shape[1]
        self.x += x.sum(1, dtype=np.float64)
        self.y += y.sum(1, dtype=np.float64)
        turned = np.swapaxes(x, 1, 2)
        self.xx += turned @ x
        self.xy += turned @ y
        self.yy += np.square(y, dtype=np.float64).sum(1)

    def plus(self, other: "Sums") -> "Sums":
        found = Sums(*self.x.shape, self.y.shape[1])
        for name in ("count", "x", "y", "xx", "xy", "yy"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found

    def centred(self, *, shifts: bool) -> "Centred":
        count = max(1, self.count)
        x, y = self.x / count, self.y / count
        xx, xy, yy = self.xx / count, self.xy / count, self.yy / count
        if shifts:
            xx = xx - x[:, :, None] * x[:, None, :]
            xy = xy - x[:, :, None] * y[:, None, :]
            yy = yy - y**2
        return Centred(x, y, xx, xy, yy, shifts)


@dataclass(frozen=True)
class Centred:
    """Means and second moments, about the means where a bias takes these over."""

    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats
    shifts: bool

    @property
    def scale(self) -> Floats:
        """The mean of each Gram matrix's diagonal, [groups]."""
        found: Floats = np.trace(self.xx, axis1=1, axis2=2) / self.xx.shape[1]
        return found

    def bias(self, weights: Floats) -> Floats:
        """What takes the means over, [groups, outputs]."""
        found: Floats = self.y - (self.x[:, None, :] @ weights)[:, 0]
        return found

    def error(self, weights: Floats, bias: Floats) -> float:
        """The mean square of what y lacks, summed over outputs; `weights` [groups, in, out]."""
        lost = self.yy - 2 * (weights * self.xy).sum(1) + ((self.xx @ weights) * weights).sum(1)
        if self.shifts:
            lost = lost + (self.bias(weights) - bias) ** 2
        return float(np.maximum(lost, 0).sum())

    def solve(self, prior: Floats, ridge: float) -> Floats:
        """The weights [groups, in, out] with least error, drawn to `prior`."""
        strength = ridge * np.maximum(self.scale, 1e-30)[:, None, None]
        eye = np.eye(self.xx.shape[1])
        right = self.xy + strength * prior
        return np.asarray(np.linalg.solve(self.xx + strength * eye, right), np.float64)


Fit = Callable[[onnx.ModelProto, Sequence[Pair], Sequence[tuple[Sums, Sums]]], Iterable[Fitted]]


def refit(
    original: onnx.ModelProto,
    cut: onnx.ModelProto,
    stays: Mapping[str, Stays],
    parts: Parts,
    *,
    ridge: float | None = None,
    fit: Fit | None = None,
) -> tuple[Fitted, ...]:
    """Fit the layers in `stays` of the model `cut` anew, in place; returns what became of them.

    `stays` says of each layer, by what it makes, which channels stay. `ridge` None: chosen for
    each layer. `fit` fits one layer in another way, from the sums of the part that is fitted to
    and of the part that judges. Layers whose matrices do not fit into the memory of the evidence,
    or whose values are not finite, stay as they are cut.
    """
    names = frozenset(stays)
    wanted, found = layers.find(original, among=names), layers.find(cut, among=names)
    bound = parts.evidence.work_memory_mib * 2**20
    chains = {
        name: pairs.chain(wanted[name], found[name], stays[name], reference=original, bound=bound)
        for name in wanted
        if name in found and name in stays
    }
    runs = _Runs(original, cut, [chain[0] for chain in chains.values() if chain], parts)
    fitted: list[Fitted] = []
    try:
        for step in runs.steps():
            mine = [name for name in chains if chains[name] and runs.step_of(name) == step]
            sizes = {name: sum(one.bytes for one in chains[name]) for name in mine}
            batches = taps.batches(sizes, bound=bound)
            for at, batch in enumerate(batches, start=1):
                several = [pair for name in batch for pair in chains[name]]
                sums = runs.stream(step, several, last=at == len(batches))
                for name in batch:
                    own, sums = sums[: len(chains[name])], sums[len(chains[name]) :]
                    if fit is not None:
                        fitted += fit(cut, chains[name], own)
                    else:
                        fitted += _fit(cut, chains[name], own, ridge=ridge)
    finally:
        runs.close()
    return tuple(fitted)


class _Runs:
    """Both models, run step by step: at each, layers that hang on none of it or a later one."""

    def __init__(
        self, original: onnx.ModelProto, cut: onnx.ModelProto, fitted: Sequence[Pair], parts: Parts
    ) -> None:
        self._parts = parts
        threads = parts.evidence.threads
        kernels = {str(pair.cut.node.output[0]): pair.cut.name for pair in fitted}
        before = stages.depths(cut, kernels)
        self._step = {
            kernels[node.output[0]]: depth
            for node, depth in zip(cut.graph.node, before, strict=True)
            if node.output[0] in kernels
        }
        # A layer of the cut model is run once it is fitted, one of the original at once.
        late = [
            d + (node.output[0] in kernels) for node, d in zip(cut.graph.node, before, strict=True)
        ]
        self._cut = stages.Staged(cut, late, threads)
        names = [str(pair.original.node.output[0]) for pair in fitted]
        self._original = stages.Staged(original, stages.depths(original, names), threads)

    def steps(self) -> list[int]:
        """The steps, front to back."""
        return sorted(set(self._step.values()))

    def step_of(self, name: str) -> int:
        """At which step a layer is fitted."""
        return self._step[name]

    def stream(self, step: int, fitted: Sequence[Pair], *, last: bool) -> list[tuple[Sums, Sums]]:
        """Run all samples; moments of the part that is fitted to, and of the other."""
        parts, count = self._parts, len(self._parts.judges)
        sums = [(Sums(*pair.shape), Sums(*pair.shape)) for pair in fitted]
        reads, targets = (
            run.values(step, names, parts.feeds(), count=count, last=last)
            for run, names in (
                (self._cut, [pair.x.tensor for pair in fitted]),
                (self._original, [pair.y.tensor for pair in fitted]),
            )
        )
        for (number, x), (_, y) in zip(reads, targets, strict=True):
            for pair, both in zip(fitted, sums, strict=True):
                seed = (parts.evidence.seed, number)
                rows = _rows(pair.x, x, seed, parts.positions)
                made = _rows(pair.y, y, seed, parts.positions)[0][:, pair.chosen]
                grouped = made.reshape(len(made), rows.shape[0], -1).swapaxes(0, 1)
                both[parts.judges[number]].add(rows, grouped)
        return sums

    def close(self) -> None:
        """Give back what lies on disk."""
        self._cut.close()
        self._original.close()


def _rows(
    read: Input, values: Mapping[str, NDArray[Any]], seed: tuple[int, int], most: int
) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)  # equal counts of places give equal places
    return moments.unfold(read, values[read.tensor], rng, most=most)


def _fit(
    cut: onnx.ModelProto,
    chain: Sequence[Pair],
    sums: Sequence[tuple[Sums, Sums]],
    *,
    ridge: float | None,
) -> Iterator[Fitted]:
    """Find how strongly each step is drawn, then solve all of them on all samples."""
    solved: list[tuple[Pair, Centred, float]] = []
    for pair, (fit, judge) in zip(chain, sums, strict=True):
        own, other = (one.centred(shifts=pair.shifts) for one in (fit, judge))
        if not all(np.isfinite(one).all() for one in (own.xx, own.xy, other.xx, other.xy)):
            continue
        found, weights = _chosen(cut, pair, own, other, ridge=ridge)
        if weights is not None:
            if pair is not chain[-1]:  # what the next step is drawn to
                pair.write(cut, weights, own.bias(weights))
            solved.append((pair, fit.plus(judge).centred(shifts=pair.shifts), found.ridge))
        yield found
    for pair, both, strength in solved:
        weights = both.solve(pair.prior(cut)[0], strength)
        pair.write(cut, weights, both.bias(weights))


def _chosen(
    cut: onnx.ModelProto, pair: Pair, own: Centred, other: Centred, *, ridge: float | None
) -> tuple[Fitted, Floats | None]:
    """The strength that the samples that judge like best, and its weights; None: as it is."""
    prior, shift = pair.prior(cut)
    energy = max(float(other.yy.sum()), 1e-30)
    before = other.error(prior, shift)
    best: tuple[float, float, Floats | None] = (before, np.inf, None)
    for strength in RIDGES if ridge is None else (ridge,):
        weights = own.solve(prior, strength)
        error = other.error(weights, own.bias(weights))
        if np.isfinite(weights).all() and (error < best[0] or ridge is not None):
            best = (error, strength, weights)
    error, strength, found = best
    return Fitted(pair.cut.name, strength, before / energy, error / energy), found
