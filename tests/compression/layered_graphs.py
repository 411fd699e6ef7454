"""Small CNNs, layer by layer, for tests of whatever may stand in a graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.simulators import models


@dataclass
class Stack:
    """A graph while it grows: each layer reads what the last one wrote."""

    random: np.random.Generator
    opset: int
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    at: str = "x"
    width: int = 3
    grown: bool = False

    def add(self, kind: str, *inputs: str, **attributes) -> None:
        """Add a node that reads the last output, then `inputs`."""
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.at, *inputs], [out], **attributes))
        self.at = out

    def weight(self, values: np.ndarray) -> str:
        """Keep a constant; its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, "f4")
        return name


def _conv(stack: Stack, group: int = 1) -> None:
    width = stack.width
    shape = (width, width // group, 3, 3)
    inputs = [stack.weight(stack.random.normal(size=shape) / (9 * width / group) ** 0.5)]
    if stack.random.random() < 0.7:
        inputs.append(stack.weight(stack.random.normal(size=width) * 0.1))
    stack.add("Conv", *inputs, group=group, pads=[1] * 4)


def _scale(stack: Stack) -> None:
    stack.add("Mul", stack.weight(stack.random.uniform(0.5, 2, (1, stack.width, 1, 1))))


def _clip(stack: Stack) -> None:
    stack.add("Clip", stack.weight(np.array(0)), stack.weight(np.array(6)))


def _residual(stack: Stack) -> None:
    stack.add("Add", "t0" if stack.width == 4 and not stack.grown else stack.at)


def _swap(stack: Stack) -> None:
    halves = [f"{stack.at}.{side}" for side in "ab"]
    parts = {} if stack.opset < 18 else {"num_outputs": 2}
    stack.nodes.append(helper.make_node("Split", [stack.at], halves, axis=1, **parts))
    stack.at = halves[1]
    stack.add("Concat", halves[0], axis=1)


def _grow(stack: Stack) -> None:
    nearest = {"mode": "nearest", "nearest_mode": "floor"}
    roi, twice = stack.weight(np.zeros(0)), stack.weight(np.array([1, 1, 2, 2]))
    stack.add("Resize", roi, twice, coordinate_transformation_mode="asymmetric", **nearest)
    stack.grown = True


def _concat(stack: Stack) -> None:
    stack.add("Concat", stack.at, axis=1)
    stack.width *= 2


LAYERS: dict[str, Callable[[Stack], None]] = {
    "conv": _conv,
    "depthwise": lambda stack: _conv(stack, group=stack.width),
    "relu": lambda stack: stack.add("Relu"),
    "clip": _clip,
    "residual": _residual,
    "maxpool": lambda stack: stack.add("MaxPool", kernel_shape=[3, 3], pads=[1] * 4),
    "sigmoid": lambda stack: stack.add("Sigmoid"),
    "scale": _scale,
    "concat": _concat,
    "swap": _swap,
    "grow": _grow,
}


def random_graph(path: Path, layers: Sequence[str], *, seed: int, opset: int) -> Path:
    """A CNN of the given layers, four channels wide, behind a stem and before a head."""
    stack = Stack(np.random.default_rng(seed), opset)
    stem = stack.weight(stack.random.normal(size=(4, 3, 3, 3)) * 0.4)
    stack.add("Conv", stem, pads=[1] * 4)
    stack.width = 4
    for layer in layers:
        LAYERS[layer](stack)
    stack.add("GlobalAveragePool")
    stack.add("Flatten")
    head = stack.weight(stack.random.normal(size=(stack.width, 5)))
    stack.nodes.append(helper.make_node("MatMul", [stack.at, head], ["y"]))
    shapes = {"x": ("N", 3, 8, 8)}, {"y": ("N", 5)}
    return models.save(path, stack.nodes, stack.weights, *shapes, opset=opset)


def few_wide(layers: list[str]) -> bool:
    """Whether the graph stays small."""
    return layers.count("concat") < 3 and layers.count("grow") < 3
