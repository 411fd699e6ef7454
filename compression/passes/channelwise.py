"""Scales what a layer makes and what the next one reads, channel by channel, in their weights."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.passes import leftovers, qdq

Floats = NDArray[np.float64]


class Weights:
    """The constants of a model's layers as they change; each layer gets its own copy."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = qdq.Graph(model)
        self._changed: dict[tuple[str, int], Floats] = {}

    def making(self, layer: onnx.NodeProto) -> Floats:
        """The largest weight of each output channel, float64 [channels]."""
        values = self._values(layer, 1)
        axis = self._axis(layer)
        others = tuple(at for at in range(values.ndim) if at != axis)
        return np.asarray(np.abs(values).max(axis=others, initial=0.0))

    def reading(self, layer: onnx.NodeProto) -> Floats:
        """The largest weight that each input channel meets, float64 [channels]."""
        view = self._inputs(layer, self._values(layer, 1))
        return np.asarray(np.abs(view).max(axis=(1, 3), initial=0.0).ravel())

    def is_depthwise(self, layer: onnx.NodeProto) -> bool:
        """Whether each output channel reads a single input channel."""
        return layer.op_type == "Conv" and self._values(layer, 1).shape[1] == 1

    def scale(self, first: onnx.NodeProto, second: onnx.NodeProto, by: Floats) -> bool:
        """Divide what `first` makes by `by` [channels], multiply what `second` reads by it.

        False, and nothing is done, where `by` is one throughout or a weight would not be finite.
        """
        if (by == 1.0).all():
            return False
        values = self._values(first, 1)
        shape = [-1 if at == self._axis(first) else 1 for at in range(values.ndim)]
        made = {(first.output[0], 1): values / by.reshape(shape)}
        if len(first.input) > 2 and first.input[2]:
            bias = self._values(first, 2)
            made[first.output[0], 2] = (bias.ravel() / by).reshape(bias.shape)
        view = self._inputs(second, self._values(second, 1))
        read = view * by.reshape(view.shape[0], 1, view.shape[2], 1)
        made[second.output[0], 1] = self._back(second, read)
        if any(np.abs(new).max(initial=0.0) > np.finfo(np.float32).max for new in made.values()):
            return False
        self._changed |= made
        return True

    def written(self) -> onnx.ModelProto:
        """Return a new model with the changed constants; what nobody reads any more is left out."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for node in model.graph.node:
            for position, name in enumerate(node.input):
                values = self._changed.get((node.output[0], position)) if node.output else None
                if values is not None:
                    node.input[position] = f"{node.output[0]}::{position}::{name}"
                    array = values.astype(np.float32)
                    tensor = numpy_helper.from_array(array, node.input[position])
                    model.graph.initializer.append(tensor)
        leftovers.remove(model)
        return model

    def _values(self, layer: onnx.NodeProto, position: int) -> Floats:
        known = self._changed.get((layer.output[0], position))
        if known is not None:
            return known
        return np.asarray(self._graph.weights[layer.input[position]], np.float64)

    def _axis(self, layer: onnx.NodeProto) -> int:
        """Of the weights, along which the output channels lie."""
        return 0 if layer.op_type == "Conv" or self._graph.flag(layer, "transB") else 1

    def _inputs(self, layer: onnx.NodeProto, values: Floats) -> Floats:
        """A view [groups, outputs of a group, inputs of a group, kernel]."""
        if layer.op_type == "Conv":
            groups = next((a.i for a in layer.attribute if a.name == "group"), 1)
            return values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
        rows = values if self._graph.flag(layer, "transB") else values.T
        return rows[None, :, :, None]

    def _back(self, layer: onnx.NodeProto, view: Floats) -> Floats:
        if layer.op_type == "Conv":
            return view.reshape(self._values(layer, 1).shape)
        rows = view[0, :, :, 0]
        return rows if self._graph.flag(layer, "transB") else rows.T
