"""Writes a graph in QDQ form from a plan: which tensors are integers, on which grids."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import bodies
from compression.passes.rounding import Grid


class Graph:
    """Who makes and who reads each tensor of a model, and its constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.weights: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.outputs = {value.name for value in model.graph.output}
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in {*node.input, *bodies.captured(node)} - {""}:
                self.readers[name].append(node)

    def is_float_weight(self, name: str) -> bool:
        """Whether `name` is a float32 constant of finite values."""
        values = self.weights.get(name)
        if values is None or values.dtype != np.float32 or not values.size:
            return False
        return bool(np.isfinite(values).all())

    def flag(self, node: onnx.NodeProto, name: str) -> bool:
        """Whether an integer attribute is there and not zero."""
        return any(attribute.name == name and attribute.i for attribute in node.attribute)


@dataclass
class Plan:
    """Which tensors are integers. Nodes are named by their first output."""

    nodes: set[str] = field(default_factory=set)
    """Nodes that read integers wherever their inputs have them."""
    read: set[str] = field(default_factory=set)
    """Tensors that such nodes read as integers; others may read them as float."""
    whole: set[str] = field(default_factory=set)
    """Tensors that everybody reads through their integers, because their maker writes integers."""
    same_as: dict[str, str] = field(default_factory=dict)
    """Tensors on the grid of another one, whose values they only move."""
    grids: dict[str, Grid] = field(default_factory=dict)


class Writer:
    """Collects quantized constants, then writes the new model."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self._taken = set(graph.weights) | set(graph.maker) | {
            value.name for value in graph.model.graph.input
        }  # fmt: skip
        self._tensors: list[onnx.TensorProto] = []
        self._first: list[onnx.NodeProto] = []
        self._inputs: dict[tuple[str, int], str] = {}
        self._lookups: dict[str, Grid] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def constant(
        self, node: onnx.NodeProto, position: int, grid: Grid, *, axis: int | None
    ) -> None:
        """Give input `position` of a node its constant as integers behind a DequantizeLinear."""
        name = node.input[position]
        key = (name, axis, grid.zero_point, grid.dtype, grid.bound, grid.scale.tobytes())
        if key not in self._known:  # a constant that several nodes share is written once
            values = self.graph.weights[name]
            if grid.dtype == "int32":
                values = values.ravel()
            q = self._tensor(f"{name}_quantized", grid.round(values, axis=axis))
            self._known[key] = self._dequantize(self._first, q, name, grid, axis=axis)
        self._inputs[node.output[0], position] = self._known[key]

    def looked_up(self, node: onnx.NodeProto, grid: Grid) -> None:
        """Look a constant table up as integers; what was found becomes float behind the node."""
        name = node.input[0]
        key = (name, grid.dtype)
        if key not in self._known:
            q = grid.round(self.graph.weights[name], axis=None)
            self._known[key] = self._tensor(f"{name}_table", q)
        self._inputs[node.output[0], 0] = self._known[key]
        self._lookups[node.output[0]] = grid

    def write(self) -> onnx.ModelProto:
        """Build the new model; constants that nobody reads any more are left out."""
        source = self.graph.model
        raw: dict[str, str] = {}  # tensor -> its new name before the integers
        integers: dict[str, str] = {}  # tensor -> its values behind the integers
        nodes: list[onnx.NodeProto] = []
        for value in source.graph.input:
            self._cross(value.name, value.name, nodes, integers)
        for old in self.graph.nodes:
            node = onnx.NodeProto()
            node.CopyFrom(old)
            key = old.output[0]
            for position, name in enumerate(old.input):
                if (key, position) in self._inputs:
                    node.input[position] = self._inputs[key, position]
                elif name in integers and (key in self.plan.nodes or name in self.plan.whole):
                    node.input[position] = integers[name]
            for position, name in enumerate(old.output):
                split = (name in self.plan.whole and name in self.plan.grids) or (
                    name in self._lookups
                )
                if split and name:
                    raw[name] = node.output[position] = self._name(f"{name}_float")
            nodes.append(node)
            if key in self._lookups:
                self._dequantize(nodes, raw[key], key, self._lookups[key], into=key)
                self._cross(key, key, nodes, integers)
                continue
            for name in old.output:
                self._cross(name, raw.get(name, name), nodes, integers)
        return self._assembled([*self._first, *nodes])

    def _cross(
        self, name: str, made: str, nodes: list[onnx.NodeProto], integers: dict[str, str]
    ) -> None:
        """Add the crossing to integers and back behind one tensor, if it is planned."""
        grid = self.plan.grids.get(name)
        if grid is None:
            return
        q = self._name(f"{name}_quantized")
        scale, zero = self._constants(name, grid)
        nodes.append(helper.make_node("QuantizeLinear", [made, scale, zero], [q], f"{q}_node"))
        # Where the float tensor was renamed, everybody finds the old name behind the integers:
        # outputs of the graph and readers inside subgraphs too.
        into = name if made != name else None
        integers[name] = self._dequantize(nodes, q, name, grid, into=into)

    def _dequantize(
        self,
        nodes: list[onnx.NodeProto],
        q: str,
        name: str,
        grid: Grid,
        *,
        axis: int | None = None,
        into: str | None = None,
    ) -> str:
        output = into or self._name(f"{name}_dequantized")
        scale, zero = self._constants(name, grid)
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [q, scale, zero]
        nodes.append(
            helper.make_node("DequantizeLinear", inputs, [output], f"{output}_dq", **attributes)
        )
        return output

    def _constants(self, name: str, grid: Grid) -> tuple[str, str]:
        key = ("grid", name, grid.zero_point, grid.dtype, grid.scale.tobytes())
        if key not in self._known:
            scale = self._tensor(f"{name}_scale", grid.scale)
            zero = np.full(grid.scale.shape, grid.zero_point, grid.dtype)
            self._known[key] = scale
            self._known[*key, "zero"] = self._tensor(f"{name}_zero_point", zero)
        return self._known[key], self._known[*key, "zero"]

    def _tensor(self, name: str, values: NDArray[Any]) -> str:
        own = self._name(name)
        self._tensors.append(
            numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), own)
        )
        return own

    def _name(self, wish: str) -> str:
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name

    def _assembled(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        graph = model.graph
        read = {name for node in nodes for name in {*node.input, *bodies.captured(node)}}
        read |= self.graph.outputs
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        for part in (graph.node, graph.initializer, graph.value_info):
            del part[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*kept, *self._tensors])
        return model
