"""How much of a model's weights is no longer float."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

_FLOAT_BYTES = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
}


def share_quantized(original: Path, variant: Path) -> float:
    """1 - float bytes left / float bytes of the original, over constants of all graphs.

    Scales and biases that stay float count as left; so does a float copy of anything.
    """
    whole, left = float_bytes(onnx.load(original)), float_bytes(onnx.load(variant))
    return 1.0 - left / whole if whole else 0.0


def float_bytes(model: onnx.ModelProto) -> int:
    """Bytes of float initializers and of Constant nodes, also inside branches and functions."""
    nodes = [node for function in model.functions for node in function.node]
    tensors = [*_of_graph(model.graph), *_of_nodes(nodes)]
    return sum(_FLOAT_BYTES.get(one.data_type, 0) * _count(one) for one in tensors)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterator[onnx.NodeProto] | list[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield attribute.t
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _of_graph(graph)


def _count(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count
