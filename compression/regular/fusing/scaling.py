"""Constants that scale and shift go into the weights before or behind them, or into one node.

Learnable affine blocks (PP-LCNetV3), layer scales and normalisations with their statistics frozen
are a Mul and an Add each: two passes over memory, and both end onnxruntime's blocked layout, in
which BatchNormalization may stay.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression.regular import folding, wiring
from compression.regular.fusing import regions

Array = NDArray[Any]
_MOST_ROUNDS = 8


def fold(model: onnx.ModelProto) -> int:
    """Fold in place, for as long as there is something; returns how many nodes went."""
    before = len(model.graph.node)
    for _ in range(_MOST_ROUNDS):
        dims = regions.Map.of(model).dims
        if not any(_round(model, rule, dims) for rule in (_behind, _before)):
            break
    _round(model, _paired, regions.Map.of(model).dims)
    return before - len(model.graph.node)


Dims = dict[str, tuple[int | str | None, ...]]
Rule = Callable[[wiring.Wires, onnx.NodeProto, Dims], bool]


def _round(model: onnx.ModelProto, rule: Rule, dims: Dims) -> bool:
    wires = wiring.Wires(model)
    gone = [node for node in list(model.graph.node) if rule(wires, node, dims)]
    for node in gone:
        wires.drop(node)
    return bool(gone)


def _behind(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """Conv, ConvTranspose or Gemm, then a line: y = scale (W x + b) + shift."""
    del dims
    found = _line(wires, node)
    if found is None:
        return False
    source, *line = found
    squeezed, inner = _unsqueezed(wires, source)
    maker = wires.maker.get(inner)
    if maker is None or maker.op_type not in folding.SCALED or not wires.only_reader(inner):
        return False
    weight = _own_weight(wires, maker)
    bias_name = maker.input[2] if len(maker.input) > 2 else ""
    bias = wires.constant(bias_name) if bias_name else np.zeros(1, np.float32)
    if weight is None or bias is None or (maker.op_type == "Gemm" and bias.ndim > 1):
        return False
    channels = _channels(maker, weight)
    axes = 1 if maker.op_type == "Gemm" else weight.ndim - 1 - squeezed
    wide = _spread(line, channels, axes)
    beta = wiring.attribute(maker, "beta")
    if wide is None or (beta is not None and beta != 1):
        return False
    factor, more = wide
    wires.renew(maker, 1, folding.SCALED[maker.op_type](weight, factor, maker).astype("f4"))
    wires.renew(maker, 2, (bias.astype(np.float64) * factor + more).astype("f4"))
    return _pass(wires, node, source)


def _unsqueezed(wires: wiring.Wires, name: str) -> tuple[int, str]:
    """How many axes behind the channels a Squeeze takes away, and from which tensor."""
    node = wires.maker.get(name)
    if node is None or node.op_type != "Squeeze" or not wires.only_reader(name):
        return 0, name
    axes = wires.constant(node.input[1]) if len(node.input) > 1 else None
    if axes is None or axes.min(initial=2) < 2:
        return 0, name
    return int(axes.size), node.input[0]


def _before(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """A line, then Convs without padding: W (scale x + shift) + b."""
    found = _line(wires, node)
    if found is None or node.output[0] in wires.fixed:
        return False
    source, *line = found
    readers = wires.readers[node.output[0]]
    shape = dims.get(source)
    if not readers or shape is None or source in wires.tensors:
        return False
    if len(shape) < 3 or not isinstance(shape[1], int):
        return False
    wide = _spread(line, shape[1], len(shape) - 1)
    if wide is None:
        return False
    factor, more = wide
    if not all(_takes(wires, one, node.output[0], bool(np.any(more))) for one in readers):
        return False
    for reader in readers:
        _absorb(wires, reader, factor, more)
    return _pass(wires, node, source)


def _takes(wires: wiring.Wires, reader: onnx.NodeProto, name: str, shifted: bool) -> bool:
    """Whether a node is a Conv that can take the line: zeros padded would be shifted too."""
    if reader.op_type != "Conv" or list(reader.input).count(name) != 1 or reader.input[0] != name:
        return False
    padded = any(wiring.attribute(reader, "pads") or []) or (
        (wiring.attribute(reader, "auto_pad") or b"NOTSET") not in {b"NOTSET", b"VALID"}
    )
    bias = reader.input[2] if len(reader.input) > 2 else ""
    return (
        _own_weight(wires, reader) is not None
        and (not bias or wires.constant(bias) is not None)
        and not (shifted and padded)
    )


def _absorb(wires: wiring.Wires, reader: onnx.NodeProto, factor: Array, shift: Array) -> None:
    """Conv weights are [out, in / groups, ...]; group g of outputs reads group g of inputs."""
    weight = wires.constant(reader.input[1])
    assert weight is not None  # _takes has seen it
    groups = wiring.attribute(reader, "group") or 1
    apart = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    inputs = (groups, 1, -1, *[1] * (weight.ndim - 2))
    if np.any(shift):
        bias = wires.constant(reader.input[2]) if len(reader.input) > 2 else None
        added = (apart * shift.reshape(inputs)).sum(axis=tuple(range(2, apart.ndim))).ravel()
        wires.renew(reader, 2, (added if bias is None else bias + added).astype("f4"))
    wires.renew(reader, 1, (apart * factor.reshape(inputs)).reshape(weight.shape).astype("f4"))


def _paired(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """A Mul and the Add behind it become one BatchNormalization, where channels are known."""
    second = _line(wires, node)
    if second is None or node.op_type not in {"Add", "Sub"}:
        return False
    maker = wires.maker.get(second[0])
    first = _line(wires, maker) if maker is not None else None
    if maker is None or first is None or not wires.only_reader(second[0]):
        return False
    shape = dims.get(first[0])
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return False
    channels = shape[1]
    wide = _spread([*first[1:], *second[1:]], channels, 3)
    if wide is None:
        return False
    scale, shift, again, more = wide
    names = [f"{node.output[0]}.line.{at}" for at in range(4)]
    values = (scale * again, shift * again + more, np.zeros(channels), np.ones(channels))
    for name, value in zip(names, values, strict=True):
        wires.graph.initializer.append(numpy_helper.from_array(value.astype("f4"), name))
    made = helper.make_node(
        "BatchNormalization", [first[0], *names], list(node.output), epsilon=0.0
    )
    node.CopyFrom(made)
    wires.maker[node.output[0]] = node
    wires.readers[first[0]].append(node)
    wires.drop(maker)
    return False  # this node itself stays, as another one


def _line(wires: wiring.Wires, node: onnx.NodeProto) -> tuple[str, Array, Array] | None:
    """The tensor, scale and shift of a node that adds or multiplies a float constant."""
    if node.domain not in {"", "ai.onnx"} or len(node.input) != 2:
        return None
    left, right = (wires.constant(name) for name in node.input)
    if (left is None) == (right is None):
        return None
    value = right if left is None else left
    if value is None or value.dtype != np.float32 or not np.isfinite(value).all():
        return None
    rule = _LINES.get((node.op_type, left is not None))
    found = rule(value.astype(np.float64)) if rule else None
    if found is None or not all(np.isfinite(one).all() for one in found):
        return None
    return (node.input[1] if left is not None else node.input[0], *found)


_ONE, _ZERO = np.ones(()), np.zeros(())
_LINES: dict[tuple[str, bool], Callable[[Array], tuple[Array, Array] | None]] = {
    ("Mul", True): lambda value: (value, _ZERO),
    ("Mul", False): lambda value: (value, _ZERO),
    ("Div", False): lambda value: (1 / value, _ZERO) if value.all() else None,
    ("Add", True): lambda value: (_ONE, value),
    ("Add", False): lambda value: (_ONE, value),
    ("Sub", True): lambda value: (-_ONE, value),
    ("Sub", False): lambda value: (_ONE, -value),
}
"""Scale and shift by operator and whether the constant comes first."""


def _own_weight(wires: wiring.Wires, node: onnx.NodeProto) -> Array | None:
    """A node's float weights, where no other node reads them: a copy would swell the model."""
    value = wires.constant(node.input[1]) if len(node.input) > 1 else None
    if value is None or value.dtype != np.float32 or not wires.only_reader(node.input[1]):
        return None
    return value


def _channels(node: onnx.NodeProto, weight: Array) -> int:
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(wiring.attribute(node, "group") or 1)
    return int(weight.shape[0 if wiring.attribute(node, "transB") else 1])


def _spread(values: Sequence[Array], channels: int, axes: int) -> list[Array] | None:
    """Constants as [channels] each; None where one differs along another axis.

    `axes` is how many the tensor has from its channels on.
    """
    found = []
    for value in values:
        shape = (1,) * (axes + 1 - value.ndim) + value.shape
        if len(shape) > axes + 1 or (value.size > 1 and shape != (1, channels, *[1] * (axes - 1))):
            return None
        found.append(np.broadcast_to(value.ravel(), (channels,)))
    return found


def _pass(wires: wiring.Wires, node: onnx.NodeProto, source: str) -> bool:
    """Have the readers of a node read its source; its constant may stand first."""
    node.input[0] = source
    return wires.bypass(node)
