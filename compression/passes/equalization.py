"""Evens out the channels between two layers: what one makes smaller the next makes larger again.

Exact in float for s > 0 where only f(s x) = s f(x) lies between: Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1. One step
for all channels of an activation then serves each of them as well as it can.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field

from compression.calibration.channels import Layout
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.passes import channelwise, qdq
from compression.words import Words

WEIGHTED = ("Conv", "Gemm", "MatMul")
HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
"""f(s x) = s f(x) in each channel; a PRelu where its slopes are constant."""
_ROUNDS = 12
"""Of weight equalization: a chain settles in a few."""
Floats = NDArray[np.float64]


class Settings(Words):
    """The parameters of this pass."""

    by: Literal["activations", "weights"] = "activations"
    """What is evened out: an activation's channels against the weights that read them, or the
    weights on both sides, which needs no inputs and helps where weights have one scale."""
    share: float = Field(default=0.5, ge=0, le=1)
    """By activations: how much of the unevenness the weights take over (Xiao et al., SmoothQuant,
    2023). Those of a depthwise Conv, each channel with its own scale, take all of it."""
    uneven: float = Field(default=4.0, ge=1)
    """Only channels of which the largest is this many times the median are evened out."""
    most: float = Field(default=256.0, gt=1)
    """The most that a channel is scaled by."""
    samples: int = Field(default=48, ge=1)
    """The most calibration inputs that are run."""
    only: tuple[str, ...] | None = None
    """If given, the only first layers of pairs, by the name of their output."""


@dataclass(frozen=True)
class Pair:
    """Two layers, and the tensor that the second one reads."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    between: str

    @property
    def layout(self) -> Layout:
        """Where the channels lie."""
        return "first" if self.first.op_type == "Conv" else "last"


def pairs(model: onnx.ModelProto) -> tuple[Pair, ...]:
    """Find the pairs of layers with nothing between that minds a scale, in the graph's order."""
    graph = qdq.Graph(model)
    found = []
    for node in graph.nodes:
        if not _constant(graph, node):
            continue
        name = str(node.output[0])
        reader = _only_reader(graph, name)
        while reader is not None and _passes(graph, reader):
            name = str(reader.output[0])
            reader = _only_reader(graph, name)
        if reader is not None and _fits(graph, node, reader, name):
            found.append(Pair(node, reader, name))
    return tuple(found)


def apply(
    model: onnx.ModelProto, settings: Settings, *, evidence: Evidence | None
) -> onnx.ModelProto:
    """Return a new model that computes the same, up to float rounding, from evener channels.

    Raises:
        BadModel: it has no pair of layers with uneven channels.
    """
    chosen = [
        pair
        for pair in pairs(model)
        if settings.only is None or pair.first.output[0] in settings.only
    ]
    weights = channelwise.Weights(model)
    if settings.by == "weights":
        done = _by_weights(weights, chosen, settings)
    elif evidence is None:
        raise BadModel("cannot equalize by activations: there are no calibration inputs")
    else:
        layouts = {pair.between: pair.layout for pair in chosen}
        seen = evidence.extremes(model, layouts, most=settings.samples) if layouts else {}
        done = _by_activations(weights, chosen, settings, seen)
    if not done:
        raise BadModel(f"cannot equalize: none of {len(chosen)} pairs of layers is uneven")
    return weights.written()


def _by_activations(
    weights: channelwise.Weights,
    chosen: list[Pair],
    settings: Settings,
    seen: Mapping[str, Floats],
) -> int:
    done = 0
    for pair in chosen:
        reading = weights.reading(pair.second)
        extremes = seen.get(pair.between)
        if extremes is None or extremes.shape[1] != len(reading):
            continue
        size = np.maximum(extremes[1], 0) - np.minimum(extremes[0], 0)
        share = 1.0 if weights.is_depthwise(pair.second) else settings.share
        alive = (size > 0) & (reading > 0)
        scale = size**share / np.where(alive, reading, 1.0) ** (1.0 - share)
        if _uneven(size, settings):
            middle = np.exp(np.log(scale[alive]).mean()) if alive.any() else 1.0
            done += weights.scale(
                pair.first, pair.second, _bounded(scale / middle, alive, settings)
            )
    return done


def _by_weights(weights: channelwise.Weights, chosen: list[Pair], settings: Settings) -> int:
    touched: set[str] = set()
    for _ in range(_ROUNDS):
        for pair in chosen:
            making, reading = weights.making(pair.first), weights.reading(pair.second)
            if len(making) != len(reading):
                continue
            alive = (making > 0) & (reading > 0)
            scale = np.sqrt(making / np.where(alive, reading, 1.0))
            uneven = _uneven(making, settings) or _uneven(reading, settings)
            if (pair.between in touched or uneven) and weights.scale(
                pair.first, pair.second, _bounded(scale, alive, settings)
            ):
                touched.add(pair.between)
    return len(touched)


def _uneven(size: Floats, settings: Settings) -> bool:
    alive = size[size > 0]
    return alive.size > 1 and bool(alive.max() > settings.uneven * np.median(alive))


def _bounded(scale: Floats, alive: NDArray[np.bool_], settings: Settings) -> Floats:
    """Powers of two, by which nothing is rounded; dead channels are left alone."""
    most = np.log2(settings.most)
    powers = np.rint(np.clip(np.log2(np.where(alive, scale, 1.0)), -most, most))
    return np.asarray(np.exp2(powers), np.float64)


def _only_reader(graph: qdq.Graph, name: str) -> onnx.NodeProto | None:
    readers = graph.readers.get(name, [])
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def _constant(graph: qdq.Graph, node: onnx.NodeProto) -> bool:
    """Whether it is a layer whose weights and bias are constants, one bias value a channel."""
    if node.op_type not in WEIGHTED:
        return False
    if not all(graph.is_float_weight(name) for name in node.input[1:] if name):
        return False
    weights = graph.weights[node.input[1]]
    if node.op_type == "Conv":
        return True
    plain = not graph.flag(node, "transA") and all(
        attribute.f == 1.0 for attribute in node.attribute if attribute.name in {"alpha", "beta"}
    )
    bias = node.input[2] if len(node.input) > 2 else ""
    columns = weights.shape[0 if graph.flag(node, "transB") else -1]
    return weights.ndim == 2 and plain and (not bias or graph.weights[bias].size == columns)


def _passes(graph: qdq.Graph, node: onnx.NodeProto) -> bool:
    return node.op_type in HOMOGENEOUS and all(name in graph.weights for name in node.input[1:])


def _fits(graph: qdq.Graph, first: onnx.NodeProto, second: onnx.NodeProto, between: str) -> bool:
    """Whether both see the same channels on the same axis."""
    same = (first.op_type == "Conv") == (second.op_type == "Conv")
    return same and second.input[0] == between and _constant(graph, second)
