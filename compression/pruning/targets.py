"""The constants whose single weights may go: how they are rows, and what these multiply."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.calibration.moments import Input
from compression.passes import holders
from compression.pruning import layers
from compression.pruning.masks import Floats

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
_RECURRENT = {"LSTM", "GRU", "RNN"}
_LEAST_INPUTS = 16
"""Depthwise kernels and the like: little to gain, much to lose."""


@dataclass(frozen=True)
class Target:
    """One constant; `layer` where it can be fitted anew, by the name of what it makes."""

    name: str
    tensor: onnx.TensorProto
    axes: tuple[int, ...]
    """Those of its rows; the others are summed over."""
    layer: layers.Layer | None
    read: Input | None
    """What its rows multiply, where that can be seen."""

    @property
    def size(self) -> int:
        """How many weights."""
        return int(math.prod(self.tensor.dims))

    @property
    def rows(self) -> Floats:
        """The weights, float64 [groups, outputs of a group, inputs]."""
        values = numpy_helper.to_array(self.tensor)
        if self.layer is not None:
            return np.asarray(self.layer.form.rows(values.astype(np.float64)))
        return self._first(values).reshape(1, -1, self.inputs).astype(np.float64)

    @property
    def inputs(self) -> int:
        """How many weights a row has."""
        if self.layer is not None:
            return self.layer.form.inputs
        return self.size // max(1, int(math.prod(self.tensor.dims[at] for at in self.axes)))

    def write(self, rows: Floats) -> None:
        """Put rows into the tensor, in place."""
        if self.layer is not None:
            values: NDArray[Any] = self.layer.form.back(rows)
        else:
            dims = tuple(self.tensor.dims)
            turned = self._first(np.empty(dims, np.float32)).shape
            values = np.moveaxis(rows.reshape(turned), range(len(self.axes)), self.axes)
        array = np.ascontiguousarray(values, np.float32)
        self.tensor.CopyFrom(numpy_helper.from_array(array, self.tensor.name))

    def _first(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(values, self.axes, range(len(self.axes)))


def find(
    model: onnx.ModelProto, *, least_bytes: int, exclude: tuple[str, ...],
    only: tuple[str, ...] | None,
) -> list[Target]:  # fmt: skip
    """Return the float constants of weighted operators, in bodies of If, Loop and Scan too.

    They go by their own name or by the first output of a node that reads them.
    """
    fitting = {str(one.node.input[1]): one for one in layers.find(model).values()}
    found = []
    for weight in holders.weights(model.graph):
        kinds = {node.op_type for node in weight.readers}
        names = {weight.name, *(node.output[0] for node in weight.readers if node.output)}
        chosen = only is None or bool(names & set(only))
        if not kinds <= set(OPERATORS) or not chosen or names & set(exclude):
            continue
        layer = fitting.get(weight.name) if weight.graph is model.graph else None
        read = layer.input if layer else _read(weight, outer=model.graph)
        target = Target(weight.name, weight.tensor, weight.kept, layer, read)
        if weight.bytes >= least_bytes and target.inputs >= _LEAST_INPUTS:
            found.append(target)
    return found


def _read(weight: holders.Weight, *, outer: onnx.GraphProto) -> Input | None:
    """What a recurrent layer's weights multiply: its input, or what it made a step before."""
    node = weight.readers[0]
    inside = weight.graph is not outer or node.op_type not in _RECURRENT
    if inside or len(weight.readers) > 1 or weight.name not in node.input[1:3]:
        return None
    if weight.name == node.input[1]:
        name = str(node.input[0])
    else:
        name = str(node.output[0]) if node.output else ""
    constants = {one.name for one in outer.initializer}
    return Input(name, int(weight.tensor.dims[-1])) if name and name not in constants else None


def scored(target: Target, powers: Mapping[str, Floats]) -> Floats:
    """Return what each weight contributes on average, squared: w^2 E[x^2], or w^2 alone."""
    squares = np.square(target.rows)
    known = powers.get(target.name)
    return squares if known is None else squares * known[:, None, :]
