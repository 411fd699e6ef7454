"""Lets the values inside a model be seen: reduced in the graph, or brought out as outputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression import bodies, runtime
from compression.job import Runtime

SEEN = "::seen::"
_ONE = "::one"


def float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all float32 tensors that inputs and nodes of the main graph bring, in order."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name]
    del probe.graph.output[:]
    # An output without a type takes the one that onnxruntime infers: better than onnx's guess.
    produced = names[len(model.graph.input) :]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in produced)
    session = runtime.session(probe, runtime.options(optimization="disabled"))
    values = [*session.get_inputs(), *session.get_outputs()]
    return tuple(value.name for value in values if value.type == "tensor(float)")


def session(tapped: onnx.ModelProto, *, threads: int) -> Any:
    """Load a tapped model so that it holds no more than it must.

    An arena keeps what it ever had, and a memory pattern is a plan for one shape.

    Raises:
        BadModel: onnxruntime does not load it.
    """
    how = runtime.options(Runtime(threads=threads, arena=False), optimization="basic")
    how.enable_mem_pattern = False
    return runtime.session(tapped, how)


def extremes(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a model that says of each tensor its least value, its largest and its shape.

    Output `::seen::3` is of `names[3]`: float32 [2 + rank]. No tensor leaves the session.
    """
    tapped = only(model, names)
    tapped.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), _ONE))
    # onnxruntime orders nodes by a search that begins at the last one. With the taps of the first
    # tensors last, each tensor is reduced as soon as it is there; in the other order it keeps all
    # activations until the end: 260 MiB instead of 5 on a text recogniser, in twice the time.
    # One output for each tensor, because one that only gives a shape is put off to the end too.
    for index, name in reversed(list(enumerate(names))):
        tapped.graph.node.extend(_seen(name, f"{SEEN}{index}"))
    for index in range(len(names)):
        output = helper.make_tensor_value_info(f"{SEEN}{index}", onnx.TensorProto.FLOAT, [None])
        tapped.graph.output.append(output)
    return tapped


def _seen(name: str, output: str) -> Iterator[onnx.NodeProto]:
    parts = []
    for operator in ("ReduceMin", "ReduceMax"):
        scalar, part = f"{output}::{operator}", f"{output}::{operator}::1"
        yield helper.make_node(operator, [name], [scalar], scalar, keepdims=0)
        yield helper.make_node("Reshape", [scalar, _ONE], [part], part)
        parts.append(part)
    shape, part = f"{output}::shape", f"{output}::shape::float"
    yield helper.make_node("Shape", [name], [shape], shape)
    yield helper.make_node("Cast", [shape], [part], part, to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Concat", [*parts, part], [output], output, axis=0)


def outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a model whose outputs are these tensors, each made by one of its nodes."""
    tapped = only(model, names)
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return tapped


def only(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return the part of a model that these tensors need, without outputs."""
    needed, nodes = set(names), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= {*node.input, *bodies.captured(node)}
            nodes.append(node)
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name
    part.graph.input.extend(model.graph.input)
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(w for w in model.graph.initializer if w.name in needed)
    part.graph.sparse_initializer.extend(
        w for w in model.graph.sparse_initializer if w.values.name in needed
    )
    return part


def batches(bytes_of: Mapping[str, int], *, bound: float) -> list[list[str]]:
    """Divide tensors, in their order, so that each part and a copy of its largest fit `bound`.

    One that takes more is a part by itself. Neighbours stay together: a part of the first
    layers needs no others to run.
    """
    parts: list[list[str]] = []
    held = largest = 0
    for name, size in bytes_of.items():
        if not parts or held + size + max(largest, size) > bound:
            parts.append([])
            held = largest = 0
        parts[-1].append(name)
        held, largest = held + size, max(largest, size)
    return parts
