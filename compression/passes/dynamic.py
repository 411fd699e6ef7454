"""Dynamic int8 of MatMul and Gemm with constant weights: activations get their scale as it runs.

Standard operators only: DynamicQuantizeLinear, MatMulInteger, Cast and Mul, which the runtime
fuses into one kernel. Right for models whose activations differ much between inputs; wrong for
Conv, which has no fast kernel of this kind. Nodes that a static pass has made integers already
are left to it, so that the two may follow one another.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.passes import matrices, rounding
from compression.words import Words


class Settings(Words):
    """The parameters of this pass."""

    per_channel: bool = True
    weights: rounding.WeightFormat = "s8"
    exclude: tuple[str, ...] = ()
    """Nodes that stay float, by the name of their first output."""
    only: tuple[str, ...] | None = None
    """If given, the only nodes that are quantized."""


def eligible(model: onnx.ModelProto, settings: Settings) -> tuple[str, ...]:
    """Name the nodes that this pass would quantize, each by its first output, in order."""
    return tuple(product.name for product in matrices.products(model, settings))


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model whose MatMul and plain Gemm nodes run in integers.

    Raises:
        BadModel: it has none with constant float weights.
    """
    found = {product.name: product for product in matrices.products(model, settings)}
    if not found:
        raise BadModel("cannot quantize dynamically: no MatMul or Gemm with constant weights")
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        product = found.get(node.output[0]) if node.output else None
        if product is None:
            nodes.append(node)
        else:
            nodes += _nodes(product, _integers(product, settings, tensors))
    return matrices.rewritten(model, nodes, list(tensors.values()))


def _integers(
    product: matrices.Product, settings: Settings, tensors: dict[str, onnx.TensorProto]
) -> tuple[str, str, str]:
    """Round a matrix, unless another node has it already; returns its names."""
    base = f"{product.weight}::turned" if product.turned else product.weight
    q, scale, zero = f"{base}::integers", f"{base}::scale", f"{base}::zero"
    if q not in tensors:
        axis = 1 if settings.per_channel else None
        grid = rounding.weight_grid(product.matrix, kind=settings.weights, axis=axis)
        arrays = {
            q: grid.round(product.matrix, axis=axis),
            scale: grid.scale,
            zero: np.array(grid.zero_point, grid.dtype),
        }
        tensors |= {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}
    return q, scale, zero


def _nodes(product: matrices.Product, weights: tuple[str, str, str]) -> list[onnx.NodeProto]:
    q, scale, zero = weights
    out = product.name
    x, x_scale, x_zero, total, real, both, result = (
        f"{out}::{part}" for part in ("x", "x_scale", "x_zero", "total", "real", "scale", "product")
    )
    into = result if product.bias else out
    nodes = [
        helper.make_node("DynamicQuantizeLinear", [product.node.input[0]], [x, x_scale, x_zero]),
        helper.make_node("MatMulInteger", [x, q, x_zero, zero], [total]),
        helper.make_node("Cast", [total], [real], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [x_scale, scale], [both]),
        helper.make_node("Mul", [real, both], [into]),
    ]
    if product.bias:
        nodes.append(helper.make_node("Add", [result, product.bias], [out]))
    return nodes
