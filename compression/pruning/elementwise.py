"""Nodes that keep each channel where it is: functions of single values, sums, products, norms."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.pruning import resting
from compression.pruning.ties import Channels
from compression.pruning.tracing import Role, Trace

Array = NDArray[Any]

FUNCTIONS = frozenset(
    {"Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "FastGelu",
     "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg",
     "Not", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin",
     "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"}
)  # fmt: skip
"""Of one value; further inputs are settings."""
SEVERAL = frozenset(
    {"Add", "And", "BiasGelu", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
     "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"}
)  # fmt: skip
"""Of several values at the same place, after broadcasting."""
_OWN = frozenset({"Add", "Sub", "Mul", "Sum", "BiasGelu"})
"""Where a constant of each channel belongs to the channel: once that is cut, it is zero too."""


def function(trace: Trace, node: onnx.NodeProto) -> None:
    """A function of single values carries everything through."""
    axes = trace.of(node.input[0])
    settings = [trace.constant(name) if name else None for name in node.input[1:]]
    known = all(
        not name or (value is not None and value.size == 1)
        for name, value in zip(node.input[1:], settings, strict=True)
    )
    if not known:
        _stop(trace, node, "passes a function with unknown settings")
        return
    still = node.op_type in {"Identity", "Dropout"}
    trace.put(
        node.output[0],
        tuple(
            axis
            if axis is None or still
            else axis.resting(resting.evaluate(node, [axis.rest, *settings], trace.opset))
            for axis in axes
        ),
    )


def several(trace: Trace, node: onnx.NodeProto) -> None:
    """Inputs are aligned at their last axis; what meets along one axis is cut together."""
    shape = trace.shape(node.output[0])
    trace.put(node.output[0], tuple(_met(trace, node, shape, at) for at in range(len(shape))))


def _met(trace: Trace, node: onnx.NodeProto, shape: tuple[int, ...], axis: int) -> Channels | None:
    """What meets along one axis of the output."""
    count = shape[axis]
    spans: list[tuple[int, int]] = []  # inputs that reach along the axis, and where it lies there
    for position, name in enumerate(node.input):
        own = axis - len(shape) + len(trace.shape(name))
        if name and own >= 0 and trace.shape(name)[own] == count > 1:
            spans.append((position, own))
    found = [trace.of(node.input[position])[own] for position, own in spans]
    first = next((channels for channels in found if channels is not None), None)
    if first is None:
        return None
    rests: dict[int, Array] = {}
    for (position, own), channels in zip(spans, found, strict=True):
        name = node.input[position]
        if channels is not None:
            trace.ties.tie(first, channels)
            rests[position] = channels.rest
        elif trace.is_constant(name):
            role: Role = "follows" if node.op_type in _OWN else "beside"
            trace.use(node, position, own, role, first)
            value = trace.constant(name)
            rests[position] = _constants(value, count, role)
        else:
            made = trace.maker.get(name, "a graph input")
            why = f"meets values of {made} that carry no channels ({node.op_type})"
            trace.ties.freeze(first, why)
            rests[position] = np.full(count, np.nan)
    return first.resting(_rest(trace, node, rests, count))


def _constants(value: Array | None, count: int, role: Role) -> Array:
    if role == "follows":
        return np.zeros(count)
    if value is None or value.size != count:
        return np.full(count, np.nan)
    return value.reshape(-1).astype(np.float64)


def _rest(trace: Trace, node: onnx.NodeProto, rests: dict[int, Array], count: int) -> Array:
    """What the met channels hold once they are cut."""
    zero = {at: rest == 0 for at, rest in rests.items()}
    if node.op_type == "Mul" and any(is_zero.all() for is_zero in zero.values()):
        return np.zeros(count)
    if node.op_type in {"Div", "PRelu"} and 0 in zero and zero[0].all():
        return np.zeros(count) if not (1 in zero and zero[1].any()) else np.full(count, np.nan)
    inputs: list[Array | None] = []
    for position, name in enumerate(node.input):
        value = trace.constant(name)
        if position in rests:
            inputs.append(rests[position])
        elif value is not None and value.size == 1:
            inputs.append(value.reshape(()))
        else:  # a value that changes from place to place
            return np.full(count, np.nan)
    return resting.evaluate(node, inputs, trace.opset)


def scaled(trace: Trace, node: onnx.NodeProto) -> None:
    """BatchNormalization and InstanceNormalization: parameters of each channel, on axis 1."""
    axes = trace.of(node.input[0])
    channels = axes[1] if len(axes) > 1 else None
    if channels is not None:
        if not all(trace.is_constant(name) for name in node.input[1:]):
            _stop(trace, node, "is normalised by values that are not constant")
            return
        for position in range(1, len(node.input)):
            trace.use(node, position, 0, "follows" if position < 3 else "beside", channels)
        axes = (axes[0], channels.resting(0.0), *axes[2:])
    trace.put(node.output[0], axes)


def _stop(trace: Trace, node: onnx.NodeProto, reason: str) -> None:
    for name in node.input:
        trace.freeze(name, f"{reason} ({node.op_type})")
