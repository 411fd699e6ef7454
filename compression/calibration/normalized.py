"""What BatchNormalization nodes remember of the data that a model was trained on.

A node's output has mean `shift` and deviation `scale` in each channel, because training made its
input have mean 0 and deviation 1: so its range is known without any data, as shift +- 6 scale
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2.2). It is read before the nodes are folded away, and is carried on behind what follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compression import runtime
from compression.errors import BadModel
from compression.statistics import Range

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

REACH = 6.0
"""Deviations to the extreme of all samples."""
USUAL = 4.0
"""Deviations to the extreme of a usual sample."""
_MOST = 60
"""Nodes that are asked when scales are told apart."""
MOVES = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
)


@dataclass(frozen=True)
class Remembered:
    """One node's constants per channel: mean and variance of its input; shift and scale behind."""

    before: str
    after: str
    mean: Floats
    variance: Floats
    shift: Floats
    scale: Floats

    def range(self) -> Range:
        """Where the values behind the node lie."""
        low, high = ((self.shift + sign * REACH * self.scale) for sign in (-1, 1))
        usual = ((self.shift + sign * USUAL * self.scale) for sign in (-1, 1))
        mean_low, mean_high = usual
        return Range(
            float(low.min()), float(high.max()), float(mean_low.min()), float(mean_high.max())
        )


def remembered(model: onnx.ModelProto) -> tuple[Remembered, ...]:
    """Read the BatchNormalization nodes of a model as it came, in order."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    found = []
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or any(n not in constants for n in node.input[1:5]):
            continue
        scale, shift, mean, variance = (
            constants[name].astype(np.float64).ravel() for name in node.input[1:5]
        )
        if all(np.isfinite(each).all() for each in (scale, shift, mean, variance)):
            found.append(
                Remembered(node.input[0], node.output[0], mean, variance, shift, np.abs(scale))
            )
    return tuple(found)


def misfit(model: onnx.ModelProto, feeds: Sequence[Arrays]) -> float | None:
    """How far the inputs of the BatchNormalization nodes are from what these remember.

    The median over channels of the divergence of two normal distributions, in nats; None where
    there are no such nodes, or the model does not run with their inputs as outputs.
    """
    known = remembered(model)[:_MOST]
    if not known:
        return None
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    names = list(dict.fromkeys(one.before for one in known))
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in outputs
    )
    sums = {name: np.zeros((3, 1)) for name in names}
    try:
        session = runtime.session(tapped)
        for sample in feeds:
            found = runtime.run(session, sample)
            for name in names:
                sums[name] = sums[name] + _moments(found[name])
    except BadModel:
        return None
    parts = [_divergence(sums[one.before], one) for one in known]
    return float(np.median(np.concatenate(parts)))


def _moments(values: NDArray[Any]) -> Floats:
    """Count, sum and sum of squares of each channel: [3, channels]."""
    rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
    return np.stack([np.full(len(rows), rows.shape[1]), rows.sum(axis=1), (rows**2).sum(axis=1)])


def _divergence(sums: Floats, one: Remembered) -> Floats:
    """KL(seen || remembered) of normal distributions, for each channel."""
    count, total, squares = sums
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 1e-12)
    wanted = np.maximum(one.variance, 1e-12)
    apart = (variance + (mean - one.mean) ** 2) / wanted - 1.0 - np.log(variance / wanted)
    return np.asarray(apart / 2)


def behind(model: onnx.ModelProto, found: Mapping[str, Range]) -> dict[str, Range]:
    """Add to the ranges of some tensors those of what only moves their values, or cuts them off."""
    known = dict(found)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if len(node.output) == 1 and node.input and node.input[0] in known:
            carried = _behind(node, known[node.input[0]], constants)
            if carried is not None:
                known.setdefault(node.output[0], carried)
    return known


def _behind(
    node: onnx.NodeProto, seen: Range, constants: Mapping[str, onnx.TensorProto]
) -> Range | None:
    """The range behind a node that moves values, or cuts them off."""
    if node.op_type in MOVES:
        return seen
    if node.op_type == "Relu":
        return _cut(seen, 0.0, np.inf)
    if node.op_type == "Clip":
        bounds = [-np.inf, np.inf]
        for at, name in enumerate(node.input[1:3]):
            if name in constants:
                bounds[at] = float(numpy_helper.to_array(constants[name]).ravel()[0])
            elif name:
                return None
        for attribute in node.attribute:
            bounds[("min", "max").index(attribute.name)] = attribute.f
        return _cut(seen, *bounds)
    return None


def _cut(seen: Range, least: float, most: float) -> Range:
    values = (seen.low, seen.high, seen.mean_low, seen.mean_high)
    low, high, mean_low, mean_high = (min(max(value, least), most) for value in values)
    return Range(low, high, mean_low, mean_high)
