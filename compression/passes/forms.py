"""The weights of Conv, Gemm and MatMul as rows, one for each output, and how inputs meet them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.calibration.moments import Window
from compression.passes import qdq


@dataclass(frozen=True)
class Form:
    """How the weights of one layer become rows [groups, outputs of a group, inputs]."""

    shape: tuple[int, ...]
    """As the model holds them."""
    window: Window | None
    """Of a Conv; else weights are [inputs, outputs], or `turned`."""
    turned: bool = False

    @property
    def groups(self) -> int:
        """How many parts see inputs of their own."""
        return self.window.groups if self.window else 1

    @property
    def inputs(self) -> int:
        """How many values one output is the sum over."""
        return math.prod(self.shape[1:]) if self.window or self.turned else self.shape[0]

    @property
    def outputs(self) -> int:
        """How many channels come out."""
        return self.shape[0] if self.window or self.turned else self.shape[1]

    @property
    def is_depthwise(self) -> bool:
        """Whether each output sees one channel of several."""
        return self.groups > 1 and self.shape[1] == 1

    @property
    def order(self) -> NDArray[np.int64]:
        """The inputs in the order in which kernels sum them: channels run fastest."""
        if self.window is None:
            return np.arange(self.inputs)
        return np.arange(self.inputs).reshape(self.shape[1], -1).T.ravel()

    def rows(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Weights of the model's shape as rows."""
        flat = weights if self.window or self.turned else weights.T
        return flat.reshape(self.groups, -1, self.inputs)

    def back(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows as weights of the model's shape."""
        flat = rows.reshape(self.outputs, self.inputs)
        return (flat if self.window or self.turned else flat.T).reshape(self.shape)

    def per_output(self, scale: NDArray[Any]) -> NDArray[Any]:
        """A scale, or one for each output, as [groups, outputs of a group]."""
        return np.broadcast_to(scale, (self.outputs,)).reshape(self.groups, -1)


def form(graph: qdq.Graph, node: onnx.NodeProto) -> Form | None:
    """Say how the weights of a Conv, Gemm or MatMul are read; None where they are no matrix."""
    shape = graph.weights[node.input[1]].shape
    if node.op_type != "Conv":
        turned = graph.flag(node, "transB")
        plain = not graph.flag(node, "transA") and all(
            one.f == 1.0 for one in node.attribute if one.name in {"alpha", "beta"}
        )
        return Form(shape, None, turned) if len(shape) == 2 and plain else None
    given = {one.name: one for one in node.attribute}
    rank = len(shape) - 2

    def ints(name: str, default: int, count: int = rank) -> tuple[int, ...]:
        return tuple(given[name].ints) if name in given else (default,) * count

    auto = given["auto_pad"].s.decode() if "auto_pad" in given else "NOTSET"
    pads: tuple[int, ...] | str = auto
    if auto in {"NOTSET", "VALID"}:
        pads = ints("pads", 0, 2 * rank) if auto == "NOTSET" else (0,) * 2 * rank
    groups = int(given["group"].i) if "group" in given else 1
    window = Window(shape[2:], ints("strides", 1), ints("dilations", 1), pads, groups)
    return Form(shape, window)
