"""A float16 model in float32 inside, float16 at its inputs and outputs.

CPUs of edge devices compute few operators in float16: onnxruntime casts around each of the others.
In float32 the passes see plain weights, and an int8 variant is a quarter of them.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression import bodies
from compression.regular import constants, reading

HALF = onnx.TensorProto.FLOAT16
FLOAT = onnx.TensorProto.FLOAT
_TYPES = frozenset({"to", "dtype", "output_dtype", "stash_type"})
"""Attributes that name a tensor's type."""


def present(model: onnx.ModelProto) -> bool:
    """Whether any constant, input, output or cast of a model is float16."""
    values = [*model.graph.input, *model.graph.output]
    return (
        any(value.type.tensor_type.elem_type == HALF for value in values)
        or any(tensor.data_type == HALF for tensor in reading.tensors(model))
        or any(
            attribute.name in _TYPES and attribute.i == HALF
            for node in bodies.nodes(model.graph)
            for attribute in node.attribute
        )
    )


def widen(model: onnx.ModelProto) -> bool:
    """Compute in float32, in place; False, and unchanged, where bodies or functions hide halves."""
    graph = model.graph
    if model.functions or any(True for node in graph.node for _ in bodies.of(node)):
        return False
    constants.hoist(model)
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i == HALF:
                attribute.i = FLOAT
            if attribute.HasField("t"):
                _widen(attribute.t)
    weights = {tensor.name for tensor in graph.initializer}
    inside = _inner_names(graph, weights)
    for node in graph.node:
        _rename(node.input, inside)
        _rename(node.output, inside)
    before = [_cast(v.name, inside[v.name], FLOAT) for v in graph.input if v.name in inside]
    after = [_cast(inside[v.name], v.name, HALF) for v in graph.output if v.name in inside]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.input:
        if value.name in weights and value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT
    return True


def _inner_names(graph: onnx.GraphProto, weights: set[str]) -> dict[str, str]:
    """New names for what is float16 at the boundary: there a Cast takes the old name."""
    given = [value for value in graph.input if value.name not in weights]
    return {
        value.name: f"{value.name}.float32"
        for value in [*given, *graph.output]
        if value.type.tensor_type.elem_type == HALF
    }


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)


def _rename(names: Any, inside: dict[str, str]) -> None:
    for at, name in enumerate(names):
        names[at] = inside.get(name, name)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
