"""Biases of quantized layers that can be moved: int32 constants, and float ones added behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression.calibration.channels import Layout
from compression.passes import counterparts, leftovers, qdq

_MOST = 2**30
"""An accumulator of 32 bits must hold the bias and the products."""


@dataclass
class Bias:
    """One bias that is this layer's alone. `scale` is None where it is float."""

    layer: str
    """The output of the layer."""
    output: str
    """The tensor whose channels the bias moves; both models have it."""
    layout: Layout
    name: str
    """Its initializer."""
    values: NDArray[np.float64]
    """In double, of which the initializer holds the nearest."""
    scale: NDArray[np.float64] | None = None
    scale_name: str = ""

    def rescale(self, model: onnx.ModelProto, scale: NDArray[np.float32]) -> None:
        """Give an int32 bias another `scale`, [] or [channels]; `add` then rounds to it."""
        self.scale = np.broadcast_to(scale.astype(np.float64), self.values.shape)
        _put(model, self.scale_name, scale)

    def add(self, model: onnx.ModelProto, shift: NDArray[np.float64]) -> None:
        """Move the bias in `model` by `shift`, float64 [channels]."""
        self.values = self.values + shift.reshape(self.values.shape)
        if self.scale is None:
            array: NDArray[Any] = self.values.astype(np.float32)
        else:
            q = np.rint(self.values / self.scale)
            array = np.clip(q, -_MOST, _MOST).astype(np.int32)
        _put(model, self.name, array)


def find(model: onnx.ModelProto, layers: Sequence[counterparts.Layer]) -> list[Bias]:
    """Give each of these layers of `model` a bias of its own, where it can have one.

    The model is changed, and computes the same.
    """
    graph = qdq.Graph(model)
    found = []
    for layer in layers:
        if layer.is_static and layer.node.op_type in {"Conv", "Gemm"}:
            found.append(_integer(model, graph, layer))
        else:
            added = _added(model, graph, layer)
            if added is not None:
                found.append(added)
    leftovers.remove(model)
    return found


def _integer(model: onnx.ModelProto, graph: qdq.Graph, layer: counterparts.Layer) -> Bias:
    """An int32 bias behind a DequantizeLinear, with the scale of the accumulator."""
    kernel = _same(model, layer.kernel)
    made = graph.maker.get(kernel.input[2]) if len(kernel.input) > 2 else None
    weights = graph.weights[layer.weights.q]
    axis = 0 if layer.node.op_type == "Conv" or graph.flag(layer.node, "transB") else 1
    channels = weights.shape[axis]
    if made is not None:
        scale = graph.weights[made.input[1]]
        q = graph.weights[made.input[0]].astype(np.int64)
    else:
        x = graph.maker[kernel.input[0]]
        scale = graph.weights[layer.weights.scale] * graph.weights[x.input[1]]
        q = np.zeros(channels, np.int64)
    scale = np.asarray(scale, np.float32)
    name = _free(graph, f"{layer.output}::bias")
    tensors = {
        f"{name}_q": q.astype(np.int32),
        f"{name}_scale": scale,
        f"{name}_zero": np.zeros(scale.shape, np.int32),
    }
    for key, array in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(array, key))
    expand = helper.make_node("DequantizeLinear", list(tensors), [name], name)
    if scale.ndim:
        expand.attribute.append(helper.make_attribute("axis", 0))
    model.graph.node.insert(0, expand)
    while len(kernel.input) < 3:
        kernel.input.append("")
    kernel.input[2] = name
    wide = scale.astype(np.float64)
    return Bias(
        layer=layer.output,
        output=layer.output,
        layout=layer.layout,
        name=f"{name}_q",
        values=q * wide,
        scale=np.broadcast_to(wide, q.shape),
        scale_name=f"{name}_scale",
    )


def _added(model: onnx.ModelProto, graph: qdq.Graph, layer: counterparts.Layer) -> Bias | None:
    """A float constant of one value a channel that an Add puts behind the layer."""
    made, product = graph.maker[layer.output], layer.output
    if made.op_type == "Add":  # of a Gemm the bias is added within
        product = made.input[0]
    else:
        readers = graph.readers.get(layer.output, [])
        if len(readers) != 1 or layer.output in graph.outputs or readers[0].op_type != "Add":
            return None
        made = readers[0]
    adding = _same(model, made)
    others = [at for at, name in enumerate(adding.input) if name != product]
    channels = graph.weights[layer.weights.q].shape[-1]
    if len(others) != 1 or not graph.is_float_weight(adding.input[others[0]]):
        return None
    values = graph.weights[adding.input[others[0]]]
    if values.size != channels or values.shape[-1] != channels:
        return None
    name = _free(graph, f"{adding.output[0]}::bias")
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    adding.input[others[0]] = name
    return Bias(layer.output, str(adding.output[0]), layer.layout, name, values.astype(np.float64))


def _put(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def _same(model: onnx.ModelProto, other: onnx.NodeProto) -> onnx.NodeProto:
    """Find in `model` the node that makes what `other` makes in a copy of it."""
    found: onnx.NodeProto
    found = next(node for node in model.graph.node if node.output[0] == other.output[0])
    return found


def _free(graph: qdq.Graph, wish: str) -> str:
    """A name that is not taken by another correction before."""
    name, count = wish, 1
    while name in graph.maker or name in graph.weights:
        count += 1
        name = f"{wish}_{count}"
    return name
