"""One layer of a model alone, as wide as some widths of the channel groups make it.

A layer is a node that multiplies. Alone it shows what it costs at widths that no whole model was
made of yet; what stands at its borders (crossings to integers, other layouts) is left out, since
neighbours may share it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import pipeline
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.latency.kernels import Kernels
from compression.pruning import surgery
from compression.pruning.edits import Count
from compression.pruning.groups import UNITS, ChannelMap
from compression.pruning.tracing import Axes
from compression.statistics import Range

BORDERS = frozenset(
    {"ReorderInput", "ReorderOutput", "Transpose", "QuantizeLinear", "DequantizeLinear"}
)
INTEGERS = ("quantization", "dynamic", "recurrent", "blocks")
"""Passes that decide in which kernel a layer runs; the others change values alone."""
_RANGE = Range(low=-1.0, high=1.0, mean_low=-1.0, mean_high=1.0)


@dataclass(frozen=True)
class Layer:
    """A node that multiplies, by its place in the graph and the name of its first output.

    `reads` and `makes` are the numbers of the groups that carry most of what it reads and makes;
    None where that cannot be cut, and `reads` where it is the same as `makes`.
    """

    at: int
    name: str
    reads: int | None
    makes: int | None
    products: int


def find(channels: ChannelMap) -> tuple[Layer, ...]:
    """Return the layers of a model in the order of its graph."""
    trace = channels.trace
    found = []
    for at, products in sorted(trace.macs.items()):
        node = trace.graph.node[at]
        makes = _group(channels, [trace.of(name) for name in node.output if name])
        reads = _group(channels, [trace.of(name) for name in node.input if name])
        found.append(Layer(at, node.output[0], None if reads == makes else reads, makes, products))
    return tuple(found)


def carried(channels: ChannelMap, name: str) -> int | None:
    """The number of the group that most channels of a tensor belong to; None: to none."""
    return _group(channels, [channels.trace.of(name)])


def _group(channels: ChannelMap, carried: Sequence[Axes]) -> int | None:
    """The group that most channels of some tensors belong to."""
    counts: Counter[int] = Counter()
    for axes in carried:
        for one in axes:
            if one is not None:
                units = channels.unit_of[one.atoms]
                counts.update((units[units >= 0] // UNITS).tolist())
    return counts.most_common(1)[0][0] if counts else None


def alone(
    model: onnx.ModelProto, channels: ChannelMap, layer: Layer, widths: Mapping[str, int]
) -> onnx.ModelProto:
    """Return one layer as a model whose shapes are those at `widths` by group; others are whole.

    Inputs and outputs keep their names; their shapes are fixed.
    """
    kept = surgery.kept_atoms(channels, {name: range(width) for name, width in widths.items()})
    trace = channels.trace
    node = onnx.NodeProto()
    node.CopyFrom(trace.graph.node[layer.at])
    held: list[onnx.TensorProto] = []
    given: list[onnx.ValueInfoProto] = []
    for position, name in enumerate(node.input):
        values = trace.constant(name) if name else None
        if values is not None:
            for use in trace.uses:
                if use.node == layer.at and use.position == position:
                    values = np.compress(kept[use.channels.atoms], values, axis=use.axis)
            if name not in [tensor.name for tensor in held]:
                held.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        elif name and name not in [value.name for value in given]:
            given.append(_value(name, _shape(channels, name, kept)))
    for edit in trace.edits:
        if isinstance(edit, Count) and edit.node == layer.at:
            _put(node, edit.attribute, int(kept[edit.atoms].sum()))
    outputs = [_value(name, _shape(channels, name, kept)) for name in node.output if name]
    graph = helper.make_graph([node], "layer", given, outputs, held)
    made = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    made.opset_import.extend(model.opset_import)
    return made


def in_integers(layer: onnx.ModelProto, passes: Collection[PassSpec]) -> onnx.ModelProto | None:
    """Return a layer as the passes of a recipe would run it; None where it stays float."""
    names = [value.name for part in (layer.graph.input, layer.graph.output) for value in part]

    def ranges(model: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> dict[str, Range]:
        del model, least_error  # where a range ends decides no kernel
        return dict.fromkeys(names, _RANGE)

    changed = layer
    for spec in passes:
        if spec.name in INTEGERS:
            try:
                recipe = Recipe(label=spec.name, passes=(spec,))
                changed = pipeline.run(recipe, changed, calibrate=ranges)
            except BadModel:  # it takes no node like this one
                continue
    return None if changed is layer else changed


def feeds(layer: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Inputs of a layer's shapes."""
    random = np.random.default_rng(0)
    found = {}
    for value in layer.graph.input:
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        found[value.name] = random.normal(size=shape).astype(np.float32)
    return found


def inner(kernels: Kernels) -> Kernels:
    """What a layer runs as, without its borders."""
    return Kernels(tuple(one for one in kernels.all if one.operator not in BORDERS))


def elements(channels: ChannelMap, layer: Layer, widths: Mapping[str, int]) -> int:
    """How many constants a layer has at some widths."""
    kept = surgery.kept_atoms(channels, {name: range(width) for name, width in widths.items()})
    trace = channels.trace
    node = trace.graph.node[layer.at]
    total = 0
    for position, name in enumerate(node.input):
        if name and trace.is_constant(name):
            shape = list(trace.shape(name))
            for use in trace.uses:
                if use.node == layer.at and use.position == position:
                    shape[use.axis] = int(kept[use.channels.atoms].sum())
            total += math.prod(shape)
    return total


def _shape(channels: ChannelMap, name: str, kept: NDArray[np.bool_]) -> tuple[int, ...]:
    shape = list(channels.trace.shape(name))
    for axis, one in enumerate(channels.trace.of(name)):
        if one is not None:
            shape[axis] = int(kept[one.atoms].sum())
    return tuple(shape)


def _value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _put(node: onnx.NodeProto, name: str, value: int) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.i = value
            return
    node.attribute.append(helper.make_attribute(name, value))
