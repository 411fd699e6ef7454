"""What the answers lose when one group alone is cut, on samples that nothing was fitted to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression import runtime
from compression.calibration import taps
from compression.pruning import layers, surgery
from compression.pruning.groups import ChannelMap, Group
from compression.pruning.ordering import DAMPING, Order
from compression.pruning.parts import Parts
from compression.pruning.readers import Seen
from compression.statistics import Arrays

Floats = NDArray[np.float64]
LEVELS = (0.25, 0.5, 0.75)
"""Shares of a group that are cut."""
MOST = 48
"""Samples that judge one cut."""
_MEMORY_SHARE = 4
_LOST = 4.0
"""Where so much is lost, a deeper cut is not looked at: it loses twice that."""


class Judge:
    """Compares a changed model's answers with the original's, which are kept."""

    def __init__(self, original: onnx.ModelProto, parts: Parts) -> None:
        self._threads = parts.evidence.threads
        makers = {name: node.op_type for node in original.graph.node for name in node.output}
        names = [value.name for value in original.graph.output]
        self._is_share = [makers.get(name) == "Softmax" for name in names]
        session = taps.session(original, threads=self._threads)
        self._cases: list[tuple[Arrays, list[NDArray[Any]]]] = []
        room = parts.evidence.work_memory_mib * 2**20 / _MEMORY_SHARE
        for _, sample in parts.feeds(judging=True):
            answers = list(runtime.run(session, sample).values())
            room -= sum(array.nbytes for array in (*answers, *sample.values()))
            if self._cases and (room < 0 or len(self._cases) >= MOST):
                break
            self._cases.append((sample, answers))

    def lost(self, changed: onnx.ModelProto) -> float:
        """The mean loss over outputs: of shares the divergence in nats, else the energy's share.

        Infinite where the answers are not finite.

        Raises:
            BadModel: it does not run.
        """
        session = taps.session(changed, threads=self._threads)
        totals = np.zeros((len(self._is_share), 2))
        for sample, answers in self._cases:
            found = runtime.run(session, sample).values()
            for at, (y, z) in enumerate(zip(answers, found, strict=True)):
                if np.issubdtype(y.dtype, np.floating) and y.shape == z.shape:
                    totals[at] += (_divergence if self._is_share[at] else _energy)(y, z)
        judged = totals[totals[:, 1] > 0]
        if not len(judged):
            return 0.0
        lost = float((judged[:, 0] / judged[:, 1]).mean())
        return lost if np.isfinite(lost) else float("inf")


def _divergence(y: NDArray[Any], z: NDArray[Any]) -> Floats:
    y, z = (np.clip(each.astype(np.float64), 1e-6, 1) for each in (y, z))
    return np.array([(y * np.log(y / z)).sum(), y.size / y.shape[-1]])


def _energy(y: NDArray[Any], z: NDArray[Any]) -> Floats:
    y, z = y.astype(np.float64), z.astype(np.float64)
    return np.array([np.square(y - z).sum(), np.square(y).sum()])


def measure(
    original: onnx.ModelProto,
    channels: ChannelMap,
    groups: Sequence[Group],
    orders: Mapping[str, Order],
    seen: Mapping[str, Sequence[Seen]],
    *,
    judge: Judge,
) -> dict[str, tuple[float, ...]]:
    """Return what is lost at each of `LEVELS`, by group of `groups`, where it alone is cut.

    Its readers make up for it in closed form. Deeper cuts never lose less.
    """
    found: dict[str, tuple[float, ...]] = {}
    for group in groups:
        losses: list[float] = []
        for level in LEVELS:
            if losses and losses[-1] >= _LOST:
                losses.append(2 * losses[-1])
                continue
            kept = orders[group.id].kept(max(1, round(group.width * (1 - level))))
            cut = alone(original, channels, group, kept, seen[group.id])
            losses.append(max([judge.lost(cut), *losses[-1:]]))
        found[group.id] = tuple(losses)
    return found


def alone(
    original: onnx.ModelProto,
    channels: ChannelMap,
    group: Group,
    kept: Sequence[int],
    seen: Sequence[Seen],
) -> onnx.ModelProto:
    """The model as it answers where one group is cut and its readers make up for that.

    Shapes stay where all readers are seen: what goes is no longer read.
    """
    if len(seen) < len(group.consumers) or not seen:
        return surgery.cut(original, channels, {group.id: kept})
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    bench, known = layers.Bench(changed), layers.find(changed)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    for one in seen:
        layer = known.get(one.slot.node)
        shifts = layer is not None and layer.can_shift
        weights = compensated(one, kept, shifts=shifts)
        if layer is not None and shifts:
            bias = bench.bias(layer) + _moved(one, weights)
            bench.write(layer, bench.rows(layer), bias)
        name = one.slot.initializer
        tensors[name].CopyFrom(numpy_helper.from_array(one.back(weights), name))
    return changed


def compensated(one: Seen, kept: Sequence[int], *, shifts: bool) -> Floats:
    """Weights [n, outputs] that are zero for units not kept, and make up for them."""
    stays = (one.units < 0) | np.isin(one.units, list(kept))
    gram = one.reader(shifts=shifts).gram
    own = gram[np.ix_(stays, stays)]
    strength = DAMPING * max(float(np.trace(own)) / len(own), 1e-30)
    across = gram[np.ix_(stays, ~stays)]
    weights = np.zeros_like(one.weights)
    taken = np.linalg.solve(own + strength * np.eye(len(own)), across)
    weights[stays] = one.weights[stays] + taken @ one.weights[~stays]
    return weights


def _moved(one: Seen, weights: Floats) -> Floats:
    """What the outputs' means lose, float64 [outputs]: at a border as if nothing were padding."""
    mean = one.mean.reshape(one.groups, 1, -1)
    lost = mean @ (one.weights - weights).reshape(one.groups, mean.shape[2], -1)
    found: Floats = lost.reshape(one.places, one.shape[1], -1).sum((0, 2))
    return found
