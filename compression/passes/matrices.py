"""Finds products with a constant matrix: MatMul, also of rank 3 where it is really 2, and Gemm."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import shape_inference

from compression import bodies
from compression.passes import qdq
from compression.regular import constants, wiring


@dataclass(frozen=True)
class Product:
    """One node that computes x @ matrix, + bias where there is one."""

    node: onnx.NodeProto
    weight: str
    turned: bool
    """Whether the constant holds the matrix transposed."""
    matrix: NDArray[np.float32]
    """[K, N]: K is summed over."""
    bias: str | None = None

    @property
    def name(self) -> str:
        """What recipes call the node: its first output."""
        return str(self.node.output[0])


class Chosen(Protocol):
    """Which nodes a recipe means."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Nodes that stay as they are, by the name of their first output."""

    @property
    def only(self) -> tuple[str, ...] | None:
        """If given, the only nodes that are changed."""


def products(model: onnx.ModelProto, chosen: Chosen | None = None) -> Iterator[Product]:
    """Give the products with a constant finite float matrix, in order; those that are chosen."""
    graph = qdq.Graph(model)
    ranks: dict[str, int] | None = None
    for node in model.graph.node:
        if chosen is not None and not _is_chosen(node, chosen):
            continue
        if node.op_type == "Gemm":
            found = _gemm(graph, node)
        elif node.op_type == "MatMul":
            if ranks is None and _rank(graph, node) > 2:
                ranks = _ranks(model)
            found = _matmul(graph, node, ranks or {})
        else:
            continue
        if found is not None:
            yield found


def rewritten(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """Return the model with other nodes and more constants; those that nobody reads are dropped."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    read = {value.name for value in model.graph.output}
    for node in nodes:
        read |= {*node.input, *bodies.captured(node)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    for part in (changed.graph.node, changed.graph.initializer, changed.graph.value_info):
        del part[:]
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend([*kept, *tensors])
    return changed


def _is_chosen(node: onnx.NodeProto, chosen: Chosen) -> bool:
    name = node.output[0]
    return name not in chosen.exclude and (chosen.only is None or name in chosen.only)


def _matmul(graph: qdq.Graph, node: onnx.NodeProto, ranks: dict[str, int]) -> Product | None:
    x, weight = node.input
    if x in graph.weights or not graph.is_float_weight(weight):
        return None
    values = graph.weights[weight]
    if values.ndim > 2:
        # [1, K, N] x [.., M, K] is the product with [K, N], if x has as many axes itself.
        alone = values.shape[:-2] == (1,) * (values.ndim - 2)
        if not alone or ranks.get(x, 0) < values.ndim:
            return None
        values = values.reshape(values.shape[-2:])
    return Product(node, weight, turned=False, matrix=values) if values.ndim == 2 else None


def _gemm(graph: qdq.Graph, node: onnx.NodeProto) -> Product | None:
    x, weight = node.input[:2]
    plain = all(wiring.attribute(node, name) in {None, 1.0} for name in ("alpha", "beta"))
    if not plain or x in graph.weights or not graph.is_float_weight(weight):
        return None
    if graph.flag(node, "transA"):
        return None
    turned = graph.flag(node, "transB")
    values = graph.weights[weight]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    matrix = np.ascontiguousarray(values.T) if turned else values
    return Product(node, weight, turned=turned, matrix=matrix, bias=bias)


def _rank(graph: qdq.Graph, node: onnx.NodeProto) -> int:
    values = graph.weights.get(node.input[1])
    return 0 if values is None else int(values.ndim)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """The number of axes of each tensor, where it can be told."""
    inferred: Any = shape_inference.infer_shapes(constants.light(model)).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
