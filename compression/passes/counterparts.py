"""Finds the layers of a float model in a variant of it whose weights have become integers.

A variant keeps the names of tensors: what a layer of the float model calls `y` is called `y` in
the variant too, whether integers lie behind it or before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from compression.calibration.channels import Layout
from compression.passes import qdq

LAYERS = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True)
class Integers:
    """Constant weights as initializers of the variant, by name: real = scale x (q - zero)."""

    q: str
    scale: str
    zero: str
    axis: int | None
    """Along which the scale has one value a slice; None: a single one."""


@dataclass(frozen=True)
class Layer:
    """One layer in both models. `kernel` multiplies with the integers in the variant."""

    node: onnx.NodeProto
    """In the float model."""
    kernel: onnx.NodeProto
    """In the variant: the same operator behind DequantizeLinear, or a MatMulInteger."""
    weights: Integers

    @property
    def output(self) -> str:
        """The tensor that both models have, which names the layer."""
        return str(self.node.output[0])

    @property
    def layout(self) -> Layout:
        """Where the channels of its output lie."""
        return "first" if self.node.op_type == "Conv" else "last"

    @property
    def is_static(self) -> bool:
        """Whether the scales of its input are constants."""
        return self.kernel.op_type != "MatMulInteger"


def layers(reference: qdq.Graph, variant: qdq.Graph) -> Iterator[Layer]:
    """Yield the layers whose weights are integers in the variant, in the reference's order."""
    for node in reference.nodes:
        if node.op_type not in LAYERS or not reference.is_float_weight(node.input[1]):
            continue
        made = variant.maker.get(source(variant, node.output[0]))
        if made is None:
            continue
        if made.op_type in LAYERS:
            kernel, integers = made, _static(variant, made)
        else:
            kernel, integers = _dynamic(variant, made)
        if kernel is not None and integers is not None:
            yield Layer(node, kernel, integers)


def source(variant: qdq.Graph, name: str) -> str:
    """Name the tensor before the integers, where `name` is what they are read back as."""
    node = variant.maker.get(name)
    if node is not None and node.op_type == "DequantizeLinear":
        rounding = variant.maker.get(node.input[0])
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            return str(rounding.input[0])
    return name


def _scaled(variant: qdq.Graph, made: onnx.NodeProto) -> onnx.NodeProto | None:
    """The Mul that makes integers real, which is `made` or what `made` adds a bias to."""
    if made.op_type == "Add":
        inner = variant.maker.get(made.input[0])
        return inner if inner is not None and inner.op_type == "Mul" else None
    return made if made.op_type == "Mul" else None


def _integer_product(variant: qdq.Graph, scaled: onnx.NodeProto) -> onnx.NodeProto | None:
    cast = variant.maker.get(scaled.input[0])
    if cast is None or cast.op_type != "Cast":
        return None
    total = variant.maker.get(cast.input[0])
    return total if total is not None and total.op_type == "MatMulInteger" else None


def _static(variant: qdq.Graph, kernel: onnx.NodeProto) -> Integers | None:
    made = variant.maker.get(kernel.input[1])
    if made is None or made.op_type != "DequantizeLinear":
        return None
    q, scale, zero = made.input
    if not all(name in variant.weights for name in (q, scale, zero)):
        return None
    axes = [attribute.i for attribute in made.attribute if attribute.name == "axis"]
    per_channel = variant.weights[scale].ndim == 1
    return Integers(q, scale, zero, (axes[0] if axes else 1) if per_channel else None)


def _dynamic(
    variant: qdq.Graph, made: onnx.NodeProto
) -> tuple[onnx.NodeProto | None, Integers | None]:
    scaled = _scaled(variant, made)
    kernel = _integer_product(variant, scaled) if scaled is not None else None
    if scaled is None or kernel is None:
        return None, None
    both = variant.maker.get(scaled.input[1])
    scale = both.input[1] if both is not None and both.op_type == "Mul" else ""
    q, zero = kernel.input[1], kernel.input[3] if len(kernel.input) > 3 else ""
    if not all(name in variant.weights for name in (q, scale, zero)):
        return None, None
    per_channel = variant.weights[scale].ndim == 1 and variant.weights[scale].size > 1
    return kernel, Integers(q, scale, zero, variant.weights[q].ndim - 1 if per_channel else None)
