"""The layers whose weights can be fitted anew, and where their biases stand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.calibration.moments import Input, Window
from compression.passes import forms, qdq

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Layer:
    """A layer in one model. `name` is the tensor that it makes, here and in the original."""

    name: str
    node: onnx.NodeProto
    form: forms.Form
    added: onnx.NodeProto | None
    """The Add behind a MatMul that adds a bias."""
    can_shift: bool
    """Whether there is a bias, or could be one."""

    @property
    def input(self) -> Input:
        """How its rows are read."""
        return Input(self.node.input[0], self.form.groups * self.form.inputs, self.form.window)

    @property
    def output(self) -> Input:
        """How what it makes is read, position by position as `input`."""
        return pointwise(self.name, self.form.outputs, self.form.window)


def pointwise(tensor: str, channels: int, window: Window | None) -> Input:
    """Read the channels of a tensor; of a Conv's, on axis 1, the places one by one."""
    if window is None:
        return Input(tensor, channels)
    return Input(tensor, channels, points(len(window.kernel)))


def flattened(
    maker: onnx.NodeProto | None, shapes: Mapping[str, tuple[int, ...]], length: int
) -> tuple[str, tuple[int, ...]] | None:
    """The tensor [N, C, ...] and its shape that `maker` makes rows of `length` of, place by place.

    None where it does something else.
    """
    if maker is None or maker.op_type not in {"Flatten", "Reshape"}:
        return None
    shape = shapes.get(maker.input[0], ())
    fits = len(shape) > 2 and math.prod(shape[1:]) == length and math.prod(shape[2:]) > 1
    return (maker.input[0], shape) if fits else None


def points(rank: int) -> Window:
    """A window of one place in a space of `rank` dims."""
    ones = (1,) * rank
    return Window(ones, ones, ones, (0,) * 2 * rank)


def find(model: onnx.ModelProto, *, among: frozenset[str] | None = None) -> dict[str, Layer]:
    """Return the layers with constant weights of their own, in the order of the graph.

    Where surgery put an Add behind a MatMul, the layer is named by what that makes. `among`: only
    those names.
    """
    graph = qdq.Graph(model)
    found: dict[str, Layer] = {}
    for node in graph.nodes:
        if node.op_type not in LAYERS or not graph.is_float_weight(node.input[1]):
            continue
        form = forms.form(graph, node)
        shared = len(graph.readers[node.input[1]]) > 1 or node.input[1] in graph.outputs
        if form is None or shared or node.input[0] in graph.weights:
            continue
        layer = _with_bias(graph, node, form, among)
        if among is None or layer.name in among:
            found[layer.name] = layer
    return found


def _with_bias(
    graph: qdq.Graph, node: onnx.NodeProto, form: forms.Form, among: frozenset[str] | None
) -> Layer:
    if node.op_type != "MatMul":
        name = node.input[2] if len(node.input) > 2 and node.input[2] else None
        own = name is None or (name in graph.weights and graph.weights[name].size == form.outputs)
        return Layer(node.output[0], node, form, None, own)
    readers = graph.readers[node.output[0]]
    adding = readers[0] if len(readers) == 1 and node.output[0] not in graph.outputs else None
    name = None if adding is None else _added(graph, adding, node.output[0], form.outputs)
    if adding is None or name is None:
        return Layer(node.output[0], node, form, None, can_shift=False)
    known = node.output[0]
    if among is not None and known not in among and adding.output[0] in among:
        known = adding.output[0]
    return Layer(known, node, form, adding, can_shift=True)


def _added(graph: qdq.Graph, adding: onnx.NodeProto, product: str, count: int) -> str | None:
    """The constant of one value a channel that an Add gives to a product."""
    others = [name for name in adding.input if name != product]
    if adding.op_type != "Add" or len(others) != 1 or not graph.is_float_weight(others[0]):
        return None
    values = graph.weights[others[0]]
    fits = values.size == count and values.shape[-1] == count
    return others[0] if fits else None


class Bench:
    """A model whose layers get new weights and biases, in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._uses: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1

    def value(self, name: str) -> NDArray[Any]:
        """An initializer."""
        return numpy_helper.to_array(self._tensors[name])

    def rows(self, layer: Layer) -> NDArray[np.float64]:
        """The weights, float64 [groups, outputs of a group, inputs]."""
        found: NDArray[np.float64] = layer.form.rows(self.value(layer.node.input[1]).astype(float))
        return found

    def bias(self, layer: Layer) -> NDArray[np.float64]:
        """The bias, float64 [outputs]; zeros where there is none."""
        name = _bias(layer)
        if name is None or not layer.can_shift:
            return np.zeros(layer.form.outputs)
        return self.value(name).astype(np.float64).reshape(-1)

    def write(
        self, layer: Layer, rows: NDArray[np.float64], bias: NDArray[np.float64] | None
    ) -> None:
        """Give a layer new weights, and a bias if it can have one."""
        self._put(layer.node.input[1], layer.form.back(rows))
        if bias is None or not layer.can_shift:
            return
        held = _bias(layer)
        shape = (layer.form.outputs,) if held is None else self.value(held).shape
        if held is None or self._uses[held] > 1:
            self._own(layer, held)
        self._put(str(_bias(layer)), bias.reshape(shape))

    def _own(self, layer: Layer, held: str | None) -> None:
        """Give a layer a bias that nobody else reads."""
        name = f"{layer.name}.refitted"
        while name in self._tensors:
            name += "'"
        self._tensors[name] = self.model.graph.initializer.add(name=name)
        self._uses[name] = 1
        node = layer.added or layer.node
        if held is not None:
            self._uses[held] -= 1
            node.input[list(node.input).index(held)] = name
        elif len(node.input) > 2:
            node.input[2] = name
        else:
            node.input.append(name)

    def _put(self, name: str, value: NDArray[Any]) -> None:
        array = np.ascontiguousarray(value, np.float32)
        self._tensors[name].CopyFrom(numpy_helper.from_array(array, name))


def _bias(layer: Layer) -> str | None:
    """The initializer that holds the bias now."""
    if layer.added is not None:
        return next(str(name) for name in layer.added.input if name != layer.node.output[0])
    given = str(layer.node.input[2]) if len(layer.node.input) > 2 else ""
    return given or None
