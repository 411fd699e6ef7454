"""Dynamic int8 of MatMul with constant weights: activations get their scale while it runs.

Standard operators only: DynamicQuantizeLinear, MatMulInteger, Cast and Mul, which the runtime
fuses into one kernel. Right for models whose activations differ much between inputs; wrong for
Conv, which has no fast kernel of this kind.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.passes import qdq, rounding
from compression.words import Words


class Settings(Words):
    """The parameters of this pass."""

    per_channel: bool = True
    weights: rounding.WeightFormat = "s8"
    exclude: tuple[str, ...] = ()
    """Nodes that stay float, by the name of their first output."""


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model whose MatMul and plain Gemm nodes run in integers.

    Raises:
        BadModel: it has none with constant float weights.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    done: dict[str, tuple[str, str, str]] = {}
    graph = qdq.Graph(model)
    for node in model.graph.node:
        if not _possible(graph, node) or node.output[0] in settings.exclude:
            nodes.append(node)
            continue
        name = node.input[1]
        if name not in done:
            done[name] = _integers(changed, graph, name, settings)
        nodes += _nodes(node, done[name])
    if not done:
        raise BadModel("cannot quantize dynamically: no MatMul with constant weights")
    read = {name for node in nodes for name in node.input} | graph.outputs
    kept = [tensor for tensor in changed.graph.initializer if tensor.name in read]
    for part in (changed.graph.node, changed.graph.initializer, changed.graph.value_info):
        del part[:]
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend(kept)
    return changed


def _possible(graph: qdq.Graph, node: onnx.NodeProto) -> bool:
    if node.op_type != "MatMul" or not graph.is_float_weight(node.input[1]):
        return False
    return graph.weights[node.input[1]].ndim == 2 and node.input[0] not in graph.weights


def _integers(
    changed: onnx.ModelProto, graph: qdq.Graph, name: str, settings: Settings
) -> tuple[str, str, str]:
    values = graph.weights[name]
    axis = 1 if settings.per_channel else None
    grid = rounding.weight_grid(values, kind=settings.weights, axis=axis)
    tensors = {
        f"{name}::integers": grid.round(values, axis=axis),
        f"{name}::scale": grid.scale,
        f"{name}::zero": np.array(grid.zero_point, grid.dtype),
    }
    for key, array in tensors.items():
        changed.graph.initializer.append(numpy_helper.from_array(array, key))
    q, scale, zero = tensors
    return q, scale, zero


def _nodes(node: onnx.NodeProto, weights: tuple[str, str, str]) -> list[onnx.NodeProto]:
    q, scale, zero = weights
    out = node.output[0]
    x, x_scale, x_zero, total, real, both = (
        f"{out}::{part}" for part in ("x", "x_scale", "x_zero", "total", "real", "scale")
    )
    return [
        helper.make_node("DynamicQuantizeLinear", [node.input[0]], [x, x_scale, x_zero], x),
        helper.make_node("MatMulInteger", [x, q, x_zero, zero], [total], total),
        helper.make_node("Cast", [total], [real], real, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [x_scale, scale], [both], both),
        helper.make_node("Mul", [real, both], [out], f"{out}::result"),
    ]
