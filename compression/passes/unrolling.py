"""Writes a Conv as a MatMul over its unrolled windows, whose int8 form keeps a float output.

An int8 Conv must round its output to 256 steps; an int8 MatMul need not (its 32-bit sums become
float at once). Exact in float. For Conv nodes of stride 1 without padding, groups or dilation.
The windows are concatenated as in Chellapilla et al., "High Performance Convolutional Neural
Networks for Document Processing", IWFHR 2006.
"""

from itertools import product

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.passes import qdq
from compression.words import Words

MOST_WINDOW = 9
"""Elements in a window; unrolled, the input is this many times as large."""
_END = np.iinfo(np.int64).max


class Settings(Words):
    """The parameters of this pass."""

    nodes: tuple[str, ...]
    """Conv nodes by the name of their output."""


def possible(model: onnx.ModelProto, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `names` that are Conv nodes which can be unrolled."""
    graph = qdq.Graph(model)
    return tuple(
        node.output[0]
        for node in graph.nodes
        if node.output and node.output[0] in names and _plain(graph, node)
    )


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model that computes the same, with the named Conv nodes unrolled.

    Raises:
        BadModel: none of the names is a Conv that can be unrolled.
    """
    graph = qdq.Graph(model)
    chosen = set(possible(model, settings.nodes))
    if not chosen:
        raise BadModel(f"cannot unroll: no plain Conv among {', '.join(settings.nodes[:5])}")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    for node in model.graph.node:
        if node.output and node.output[0] in chosen:
            changed.graph.node.extend(_unrolled(changed, graph, node))
        else:
            changed.graph.node.append(node)
    read = {name for node in changed.graph.node for name in node.input} | graph.outputs
    kept = [tensor for tensor in changed.graph.initializer if tensor.name in read]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(kept)
    return changed


def _plain(graph: qdq.Graph, node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv" or not all(name in graph.weights for name in node.input[1:] if name):
        return False
    shape = graph.weights[node.input[1]].shape
    values = {attribute.name: attribute for attribute in node.attribute}
    ones = all(set(values[name].ints) <= {1} for name in ("strides", "dilations") if name in values)
    unpadded = "pads" not in values or not any(values["pads"].ints)
    alone = "group" not in values or values["group"].i == 1
    valid = "auto_pad" not in values or values["auto_pad"].s in {b"NOTSET", b"VALID"}
    return len(shape) == 4 and np.prod(shape[2:]) <= MOST_WINDOW and (
        ones and unpadded and alone and valid
    )  # fmt: skip


def _unrolled(
    changed: onnx.ModelProto, graph: qdq.Graph, node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    y = node.output[0]
    weight = graph.weights[node.input[1]]
    outputs, channels, height, width = weight.shape

    def constant(name: str, values: object, dtype: str) -> str:
        tensor = numpy_helper.from_array(np.array(values, dtype), f"{y}::{name}")
        changed.graph.initializer.append(tensor)
        return f"{y}::{name}"

    # Channels last: each position's window is then one contiguous row.
    last, windows, product_name = f"{y}::last", f"{y}::windows", f"{y}::product"
    nodes = [helper.make_node("Transpose", [node.input[0]], [last], last, perm=[0, 2, 3, 1])]
    axes = constant("axes", [1, 2], "int64")
    parts: list[str] = []
    for i, j in product(range(height), range(width)):
        starts = constant(f"start{i}_{j}", [i, j], "int64")
        ends = [at - size if at < size else _END for at, size in ((i, height - 1), (j, width - 1))]
        stop = constant(f"stop{i}_{j}", ends, "int64")
        parts.append(f"{y}::part{i}_{j}")
        nodes.append(helper.make_node("Slice", [last, starts, stop, axes], [parts[-1]], parts[-1]))
    nodes.append(helper.make_node("Concat", parts, [windows], windows, axis=3))
    rows = weight.transpose(2, 3, 1, 0).reshape(height * width * channels, outputs)
    matrix = constant("rows", rows, "float32")
    nodes.append(helper.make_node("MatMul", [windows, matrix], [product_name], product_name))
    if len(node.input) > 2 and node.input[2]:
        total = f"{y}::total"
        nodes.append(helper.make_node("Add", [product_name, node.input[2]], [total], total))
        product_name = total
    nodes.append(
        helper.make_node("Transpose", [product_name], [y], f"{y}::first", perm=[0, 3, 1, 2])
    )
    return nodes
