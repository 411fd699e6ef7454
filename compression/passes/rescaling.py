"""Takes each sample's own magnitude out of a Conv: Conv(x) = s Conv(x / s) with s = max |x|.

Exact in float. Behind it quantization sees inputs of magnitude one, so that a rare sample with
values ten times the usual costs the others none of their 256 steps.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.passes import qdq
from compression.statistics import Range
from compression.words import Words

OUTLYING = 2.0
"""A tensor whose whole range is this many times a sample's typical range has outlying samples."""


class Settings(Words):
    """The parameters of this pass."""

    nodes: tuple[str, ...]
    """Conv nodes by the name of their output."""


def outlying(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """Name the Conv nodes, by output, whose inputs have outlying samples."""
    found = []
    for node in model.graph.node:
        seen = ranges.get(node.input[0]) if node.op_type == "Conv" else None
        if seen is not None:
            typical = seen.mean_high - seen.mean_low
            if seen.high - seen.low > OUTLYING * typical > 0:
                found.append(str(node.output[0]))
    return tuple(found)


def inner(node: str) -> str:
    """Name the Conv that is left inside a rescaled node."""
    return f"{node}::raw"


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model that computes the same, with the named Conv nodes rescaled.

    Raises:
        BadModel: none of the names is a Conv with constant weights.
    """
    graph = qdq.Graph(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    found = False
    for node in model.graph.node:
        constant = all(name in graph.weights for name in node.input[1:] if name)
        if node.op_type == "Conv" and node.output[0] in settings.nodes and constant:
            changed.graph.node.extend(_rescaled(changed, graph, node))
            found = True
        else:
            changed.graph.node.append(node)
    if not found:
        raise BadModel(f"cannot rescale: no Conv among {', '.join(settings.nodes[:5])}")
    return changed


def _rescaled(
    changed: onnx.ModelProto, graph: qdq.Graph, node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    x, y = node.input[0], node.output[0]
    rank = graph.weights[node.input[1]].ndim
    size, peak, scale, scaled, product, least, axes = (
        f"{y}::{part}" for part in ("abs", "peak", "by", "scaled", "product", "least", "axes")
    )
    raw = inner(y)
    changed.graph.initializer.append(
        numpy_helper.from_array(np.array(np.finfo(np.float32).tiny), least)
    )
    conv = onnx.NodeProto()
    conv.CopyFrom(node)
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    del conv.input[2:]
    conv.input[0], conv.output[0] = scaled, raw
    nodes = [
        helper.make_node("Abs", [x], [size], size),
        _reduce_max(changed, size, peak, axes_name=axes, rank=rank),
        helper.make_node("Max", [peak, least], [scale], scale),
        helper.make_node("Div", [x, scale], [scaled], scaled),
        conv,
        helper.make_node("Mul", [raw, scale], [product if bias else y], product),
    ]
    if bias:
        wide = graph.weights[bias].reshape(1, -1, *[1] * (rank - 2))
        changed.graph.initializer.append(numpy_helper.from_array(wide, f"{y}::bias"))
        nodes.append(helper.make_node("Add", [product, f"{y}::bias"], [y], f"{y}::sum"))
    return nodes


def _reduce_max(
    changed: onnx.ModelProto, source: str, target: str, *, axes_name: str, rank: int
) -> onnx.NodeProto:
    axes = list(range(1, rank))
    version = max(entry.version for entry in changed.opset_import if entry.domain == "")
    if version < 18:  # axes became an input in opset 18
        return helper.make_node("ReduceMax", [source], [target], target, axes=axes, keepdims=1)
    changed.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), axes_name))
    return helper.make_node("ReduceMax", [source, axes_name], [target], target, keepdims=1)
