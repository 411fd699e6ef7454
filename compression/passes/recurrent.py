"""Dynamic int8 of LSTM nodes by the runtime's own kernel (com.microsoft DynamicQuantizeLSTM).

Both products of each step run in integers; gates, states and biases stay float. The node has
the same inputs, outputs and attributes, so that states which are the model's contract stay as
they are. There is no such kernel for GRU and RNN: their weights can be stored in 8 bits.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.passes import matrices, qdq, rounding
from compression.regular import wiring
from compression.words import Words

DOMAIN = "com.microsoft"
_ATTRIBUTES = (
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
    "input_forget",
)  # fmt: skip
_INPUTS = 8
"""X, W, R, B, sequence_lens, initial_h, initial_c, P: as LSTM has them; then scales and zeros."""
_PEEPHOLES = 7


class Settings(Words):
    """The parameters of this pass."""

    weights: rounding.WeightFormat = "s8"
    per_channel: bool = True
    exclude: tuple[str, ...] = ()
    """Nodes that stay float, by the name of their first output."""
    only: tuple[str, ...] | None = None
    """If given, the only nodes that are quantized."""


def eligible(model: onnx.ModelProto, settings: Settings) -> tuple[str, ...]:
    """Name the LSTM nodes that this pass would quantize, each by its first output, in order."""
    graph = qdq.Graph(model)
    return tuple(_name(node) for node in graph.nodes if _possible(graph, node, settings))


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model whose LSTM nodes with constant weights run in integers.

    Raises:
        BadModel: it has none; those with peepholes or batch-first layout do not count.
    """
    graph = qdq.Graph(model)
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, onnx.TensorProto] = {}
    for node in graph.nodes:
        if _possible(graph, node, settings):
            nodes.append(_integers(graph, node, settings, tensors))
        else:
            nodes.append(node)
    if not tensors:
        raise BadModel("cannot quantize recurrent layers: no plain LSTM with constant weights")
    changed = matrices.rewritten(model, nodes, list(tensors.values()))
    if all(entry.domain != DOMAIN for entry in changed.opset_import):
        changed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return changed


def _name(node: onnx.NodeProto) -> str:
    """Its first output that has a name: an LSTM may give the last state alone."""
    return next((str(name) for name in node.output if name), "")


def _possible(graph: qdq.Graph, node: onnx.NodeProto, settings: Settings) -> bool:
    if node.op_type != "LSTM" or node.domain not in {"", "ai.onnx"}:
        return False
    name = _name(node)
    if name in settings.exclude or (settings.only is not None and name not in settings.only):
        return False
    peepholes = len(node.input) > _PEEPHOLES and node.input[_PEEPHOLES]
    batch_first = wiring.attribute(node, "layout")
    constant = all(graph.is_float_weight(name) for name in node.input[1:3])
    return constant and not peepholes and not batch_first


def _integers(
    graph: qdq.Graph,
    node: onnx.NodeProto,
    settings: Settings,
    tensors: dict[str, onnx.TensorProto],
) -> onnx.NodeProto:
    inputs = [*node.input, *[""] * (_INPUTS - len(node.input))]
    for position in (1, 2):
        name = node.input[position]
        arrays = rounded(graph.weights[name], settings)
        names = [f"{name}::{part}" for part in ("integers", "scale", "zero")]
        for at, one in enumerate(names):
            tensors[one] = numpy_helper.from_array(arrays[at], one)
        inputs[position] = names[0]
        inputs += names[1:]
    attributes = {
        name: value for name in _ATTRIBUTES if (value := wiring.attribute(node, name)) is not None
    }
    return helper.make_node(
        "DynamicQuantizeLSTM", inputs, node.output, node.name, domain=DOMAIN, **attributes
    )


def rounded(
    weights: NDArray[np.float32], settings: Settings
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Round [directions, 4 hidden, K] to integers [directions, K, 4 hidden] with scales and zeros.

    Scales and zero points are [directions, 4 hidden], or [directions].
    """
    turned = np.ascontiguousarray(weights.transpose(0, 2, 1))
    axis = 1 if settings.per_channel else None
    grids = [rounding.weight_grid(one, kind=settings.weights, axis=axis) for one in turned]
    q = np.stack([grid.round(one, axis=axis) for grid, one in zip(grids, turned, strict=True)])
    scale = np.stack([grid.scale for grid in grids])
    return q, scale, np.full(scale.shape, grids[0].zero_point, q.dtype)
