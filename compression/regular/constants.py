"""Constants as initializers, unused things dropped, and a graph without its heavy weights."""

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression import bodies

LIGHT_ELEMENTS = 512
"""Constants up to this size may hold shapes and axes, which rewriting wants to see."""
LEAST_IR = 8
"""Since 4 initializers need not be inputs; 8 is what opset 15 to 18 come with."""


def hoist(model: onnx.ModelProto) -> None:
    """Make initializers of Constant nodes. Those in bodies of If, Loop and Scan stay there."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = None if node.output[0] in outputs else _constant(node)
        if tensor is not None:
            graph.initializer.append(tensor)
            graph.node.remove(node)


def tidy(model: onnx.ModelProto, *, metadata: Iterable[onnx.StringStringEntryProto]) -> None:
    """Hoist constants; drop dead nodes, unread initializers, and initializers posing as inputs.

    `metadata` is the original's: a consumer may live by it.
    """
    graph = model.graph
    hoist(model)
    weights = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)
    _sweep(graph)
    used = {node.domain for node in bodies.nodes(graph)} | {""}
    used |= {node.domain for function in model.functions for node in function.node}
    kept = {
        "" if entry.domain == "ai.onnx" else entry.domain: entry.version
        for entry in model.opset_import
        if entry.domain in used or entry.domain == "ai.onnx"
    }
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in kept.items())
    entries = list(metadata)
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    model.ir_version = max(model.ir_version, LEAST_IR)


def light(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its heavy initializers as inputs, so that rewriting copies no weights."""
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph = copy.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if is_heavy(tensor):
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            graph.initializer.append(tensor)
    return copy


def is_heavy(tensor: onnx.TensorProto) -> bool:
    """Whether a constant is so large that it must be weights."""
    return bool(math.prod(tensor.dims) > LIGHT_ELEMENTS)


def _sweep(graph: onnx.GraphProto) -> None:
    """Remove nodes that nobody reads, from the end, and then initializers that nobody reads."""
    read = {value.name for value in graph.output}
    dead = []
    for node in reversed(graph.node):
        if any(name in read for name in node.output):
            read |= set(node.input) | bodies.captured(node)
        else:
            dead.append(node)
    for node in dead:
        graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None where it is sparse or text, and left alone."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
        elif attribute.name in {"value_float", "value_floats"}:
            tensor = numpy_helper.from_array(np.asarray(value, np.float32))
        elif attribute.name in {"value_int", "value_ints"}:
            tensor = numpy_helper.from_array(np.asarray(value, np.int64))
        else:
            continue
        tensor.name = node.output[0]
        return tensor
    return None
