"""Weights of MatMul and Gemm in blocks of 8 bits, with a scale each (com.microsoft MatMulNBits).

Weight-only in the file; the runtime's int8 kernel rounds activations too, block by block and for
each row, so that outliers cost their own block alone. Right for transformers on processors with
an int8 dot product, and for products of one row; without such an instruction a product of many
rows takes up to twice as long as in float. Embedding tables become 8 bits and stay so in memory:
what was looked up becomes float behind the Gather.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import Field

from compression.errors import BadModel
from compression.passes import matrices, qdq, rounding
from compression.regular import wiring
from compression.words import Words

DOMAIN = "com.microsoft"
_MIDDLE = 128
"""The zero point of 8 bits where the node names none."""


class Settings(Words):
    """The parameters of this pass."""

    block: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale; fewer where a matrix would have to be filled up by much."""
    accuracy_level: Literal[0, 1, 4] = 4
    """The runtime's own scale: 4 computes in 8 bits, 1 in float32, 0 as it likes."""
    least_bytes: int = Field(default=1024, ge=0)
    """Matrices and tables of fewer float bytes stay as they are."""
    tables: bool = True
    """Whether tables that a Gather reads are rounded too."""
    exclude: tuple[str, ...] = ()
    """Nodes that stay float, by the name of their first output."""
    only: tuple[str, ...] | None = None
    """If given, the only nodes that are quantized."""


def eligible(model: onnx.ModelProto, settings: Settings) -> tuple[str, ...]:
    """Name the products that this pass would quantize, each by its first output, in order."""
    return tuple(
        product.name
        for product in matrices.products(model, settings)
        if product.matrix.nbytes >= settings.least_bytes
    )


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model with blocks of 8 bits in MatMul, plain Gemm and Gather nodes.

    Raises:
        BadModel: it has neither products with a constant matrix nor tables of that size.
    """
    graph = qdq.Graph(model)
    found = {
        product.name: product
        for product in matrices.products(model, settings)
        if product.matrix.nbytes >= settings.least_bytes
    }
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        product = found.get(node.output[0]) if node.output else None
        if product is not None:
            nodes += _product(product, settings, tensors)
        elif settings.tables and _is_table(graph, node, settings):
            nodes += _lookup(graph, node, tensors)
        else:
            nodes.append(node)
    if not tensors:
        raise BadModel(
            "cannot put weights into blocks: no MatMul, Gemm or Gather has "
            f"{settings.least_bytes} bytes of constant float weights"
        )
    changed = matrices.rewritten(model, nodes, list(tensors.values()))
    if found and all(entry.domain != DOMAIN for entry in changed.opset_import):
        changed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return changed


def _product(
    product: matrices.Product, settings: Settings, tensors: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    rows, columns = product.matrix.shape
    block = _fitting(settings.block, rows)
    base = f"{product.weight}::turned" if product.turned else product.weight
    q, scale = f"{base}::blocks", f"{base}::scales"
    if q not in tensors:
        _keep(tensors, dict(zip((q, scale), rounded(product.matrix, block=block), strict=True)))
    into = f"{product.name}::product" if product.bias else product.name
    node = helper.make_node(
        "MatMulNBits",
        [product.node.input[0], q, scale],
        [into],
        domain=DOMAIN,
        K=rows,
        N=columns,
        bits=8,
        block_size=block,
        accuracy_level=settings.accuracy_level,
    )
    if not product.bias:
        return [node]
    return [node, helper.make_node("Add", [into, product.bias], [product.name])]


def rounded(
    matrix: NDArray[np.float32], *, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round [K, N] to uint8 [N, blocks, block] around 128, with float32 scales [N, blocks].

    K is filled up with zeros to a whole number of blocks.
    """
    rows, columns = matrix.shape
    count = -(-rows // block)
    filled = np.zeros((columns, count * block), np.float32)
    filled[:, :rows] = matrix.T
    split = filled.reshape(columns * count, block)
    grid = rounding.weight_grid(split, kind="u8", axis=0)
    q = grid.round(split, axis=0).reshape(columns, count, block)
    return q, grid.scale.reshape(columns, count)


def _fitting(block: int, rows: int) -> int:
    """The longest block up to `block` that fills up at most an eighth; 16 where none does."""
    while block > 16 and -(-rows // block) * block > rows * 1.125:
        block //= 2
    return block


def _is_table(graph: qdq.Graph, node: onnx.NodeProto, settings: Settings) -> bool:
    if node.op_type != "Gather" or not graph.is_float_weight(node.input[0]):
        return False
    name, values = node.output[0], graph.weights[node.input[0]]
    chosen = name not in settings.exclude and (settings.only is None or name in settings.only)
    first = (wiring.attribute(node, "axis") or 0) == 0
    return chosen and first and values.ndim == 2 and values.nbytes >= settings.least_bytes


def _lookup(
    graph: qdq.Graph, node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Look integers up, then make them float: a scale for each column of the table."""
    name, out = node.input[0], node.output[0]
    q, scale, found = f"{name}::table", f"{name}::scale", f"{out}::integers"
    if q not in tensors:
        values = graph.weights[name]
        grid = rounding.weight_grid(values, kind="s8", axis=1)
        _keep(tensors, {q: grid.round(values, axis=1), scale: grid.scale})
    return [
        helper.make_node("Gather", [q, node.input[1]], [found], axis=0),
        helper.make_node("DequantizeLinear", [found, scale], [out], axis=-1),
    ]


def _keep(
    tensors: dict[str, onnx.TensorProto],
    arrays: Mapping[str, NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.float32]],
) -> None:
    tensors |= {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}
