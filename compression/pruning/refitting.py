"""Fits the weights of layers anew behind a cut, so that each makes what the original's makes.

Front to back: a layer's inputs are those of the model as cut and fitted so far, its target is what
the original makes at the same places, and the last of a residual branch makes up for what the other
branch lacks too, so that no error adds up (He et al., "Channel Pruning for Accelerating Very Deep
Neural Networks", ICCV 2017, section 3.2). Least squares from streamed matrices of moments, drawn
towards the weights as they were cut; how strongly, samples decide that are not fitted to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.calibration import moments, taps
from compression.calibration.moments import Input
from compression.pruning import branches, layers, pairs, stages
from compression.pruning.behind import Stays
from compression.pruning.least_squares import Centred, Floats, Sums
from compression.pruning.pairs import Mixing, Pair
from compression.pruning.parts import Parts

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Tried strengths, in parts of the mean of the Gram matrix's diagonal."""


@dataclass(frozen=True)
class Fitted:
    """What became of one layer: the share of its energy that is lost, on samples that judge."""

    layer: str
    ridge: float
    before: float
    after: float


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
        known = {name for node in original.graph.node for name in node.output}
        final = zip(cut.graph.node, late, strict=True)
        made = {name: at for node, at in final for name in node.output if name in known}
        self._other = branches.others(cut, self._step, made)
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
        others = [None if isinstance(p, Mixing) else self._other.get(p.cut.name) for p in fitted]
        beside = [name for name in others if name]
        reads, targets = (
            run.values(step, [*names, *beside], parts.feeds(), count=count, last=last)
            for run, names in (
                (self._cut, [pair.x.tensor for pair in fitted]),
                (self._original, [pair.y.tensor for pair in fitted]),
            )
        )
        for (number, x), (_, y) in zip(reads, targets, strict=True):
            for pair, other, both in zip(fitted, others, sums, strict=True):
                rows = self._rows(pair.x, x, number)
                made = self._rows(pair.y, y, number)[0][:, pair.chosen]
                if other is not None and y[other].shape == y[pair.y.tensor].shape:
                    narrow = replace(pair.y, tensor=other, inputs=rows.shape[0] * pair.shape[2])
                    whole = self._rows(replace(pair.y, tensor=other), y, number)
                    made = made + whole[0][:, pair.chosen] - self._rows(narrow, x, number)[0]
                grouped = made.reshape(len(made), rows.shape[0], -1).swapaxes(0, 1)
                both[parts.judges[number]].add(rows, grouped)
        return sums

    def _rows(
        self, read: Input, values: Mapping[str, NDArray[Any]], number: int
    ) -> NDArray[np.float32]:
        # Equal counts of places give equal places.
        rng = np.random.default_rng((self._parts.evidence.seed, number))
        return moments.unfold(read, values[read.tensor], rng, most=self._parts.positions)

    def close(self) -> None:
        """Give back what lies on disk."""
        self._cut.close()
        self._original.close()


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
