"""Finds the parts of a graph that compute one tensor from one other, value by value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from compression import bodies
from compression.regular import constants

ELEMENTWISE = frozenset({
    "Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid",
    "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "ThresholdedRelu",
})  # fmt: skip
"""Operators whose every value hangs on the values at the same place, where the rest is constant."""
ALIKE = frozenset({"FastGelu", "Gelu", "QuickGelu"})
"""Of onnxruntime's own: onnx does not know that they keep shape and type."""
MOST_NODES = 16


@dataclass(frozen=True)
class Region:
    """Nodes, in order, that make `target` of `source` and else only of single constants."""

    source: str
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, NDArray[np.float32]]
    """float32, of one value each."""

    @property
    def key(self) -> str:
        """The same for regions that compute the same in the same way, whatever their names."""
        names = {self.source: "x"}
        names |= {node.output[0]: f"t{at}" for at, node in enumerate(self.nodes)}
        names |= {name: repr(float(value.ravel()[0])) for name, value in self.constants.items()}
        return ";".join(
            f"{node.op_type}({','.join(names.get(name, name) for name in node.input)})"
            + b"".join(sorted(one.SerializeToString() for one in node.attribute)).hex()
            for node in self.nodes
        )


@dataclass
class Map:
    """What is known of a graph's tensors: makers and readers by node index, ranks, dtypes."""

    nodes: list[onnx.NodeProto]
    maker: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    """Names that must stay: outputs, and what bodies capture."""
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dims: dict[str, tuple[int | str | None, ...]] = field(default_factory=dict)
    """Of tensors whose rank is known: a number, a dim's name, or None."""
    floats: set[str] = field(default_factory=set)
    """Tensors of float32."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "Map":
        """Read a model; the map holds until it is changed."""
        graph = model.graph
        found = cls(list(graph.node))
        found.tensors = {tensor.name: tensor for tensor in graph.initializer}
        found.fixed = {value.name for value in graph.output}
        for at, node in enumerate(found.nodes):
            found.fixed |= bodies.captured(node)
            for name in node.output:
                found.maker[name] = at
            for name in set(node.input) - {""}:
                found.readers.setdefault(name, []).append(at)
        for value in _inferred(model):
            kind = value.type.tensor_type
            if kind.elem_type == onnx.TensorProto.FLOAT:
                found.floats.add(value.name)
            if kind.HasField("shape"):
                found.dims[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
                    for dim in kind.shape.dim
                )
        found.dims |= {name: tuple(tensor.dims) for name, tensor in found.tensors.items()}
        return found

    def scalar(self, name: str) -> NDArray[np.float32] | None:
        """The constant of this name, where it is a single float32."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        if any(dim != 1 for dim in tensor.dims):
            return None
        return np.asarray(numpy_helper.to_array(tensor), np.float32)

    def inner(self, name: str, region: set[int]) -> bool:
        """Whether only nodes of a region read a tensor."""
        return name not in self.fixed and all(at in region for at in self.readers.get(name, []))


def ending_at(graph: Map, last: int) -> Iterator[Region]:
    """The regions whose last node is this one, the smaller first.

    From the last node back, the latest maker of what is still needed is taken in: so a region is
    closed exactly where one tensor alone is needed.
    """
    taken: set[int] = set()
    needed: set[str] = set()
    scalars: dict[str, NDArray[np.float32]] = {}
    at = last
    while len(taken) < MOST_NODES and _elementwise(graph, at):
        node = graph.nodes[at]
        if taken and not graph.inner(node.output[0], taken):
            return
        taken.add(at)
        needed -= set(node.output)
        for name in node.input:
            value = graph.scalar(name) if name else None
            if value is not None:
                scalars[name] = value
            elif name:
                needed.add(name)
        if len(needed) == 1:
            (source,) = needed
            if _ranks_stay(graph, source, scalars):
                nodes = tuple(graph.nodes[one] for one in sorted(taken))
                yield Region(source, graph.nodes[last].output[0], nodes, dict(scalars))
        makers = [graph.maker.get(name, -1) for name in needed]
        at = max(makers, default=-1)
        if at < 0:
            return


def _elementwise(graph: Map, at: int) -> bool:
    node = graph.nodes[at]
    return (
        node.op_type in ELEMENTWISE
        and node.domain in {"", "ai.onnx"}
        and len(node.output) == 1
        and node.output[0] in graph.floats
    )


def _ranks_stay(graph: Map, source: str, scalars: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether broadcasting adds no axes: a constant of shape [1, 1, 1] would to a matrix."""
    if source not in graph.floats:
        return False
    rank = len(graph.dims[source]) if source in graph.dims else 0
    return all(value.ndim <= rank for value in scalars.values())


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The types of all tensors as far as inputs and weights decide them; declarations may lie."""
    light = constants.light(model)
    del light.graph.value_info[:]
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in light.graph.node:
        if node.op_type in ALIKE and node.domain == "com.microsoft":
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    try:
        graph = shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # a graph that onnx cannot infer is left as it is
        return []
    return [*graph.input, *graph.value_info, *graph.output]
