"""Takes out what copies values without need: Expand before broadcasting, a Slice of everything.

Exporters that know no broadcasting (jax, older TensorFlow) write each operand out in full. Where
dims are only known when the model runs, the two runs beside the original decide.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from compression.regular import wiring
from compression.regular.fusing import regions

Dims = dict[str, tuple[int | str | None, ...]]
_BROADCASTING = frozenset({
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "Mul", "Or", "Pow", "Sub", "Where", "Xor",
})  # fmt: skip
_SINGLE = frozenset({
    "Abs", "Cast", "Exp", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh",
})  # fmt: skip
_MOST_ROUNDS = 64


def straighten(model: onnx.ModelProto) -> int:
    """Take out in place, for as long as there is something; returns how many nodes went."""
    before = len(model.graph.node)
    for _ in range(_MOST_ROUNDS):
        dims = regions.Map.of(model).dims
        wires = wiring.Wires(model)
        gone, moved = [], False
        for node in list(model.graph.node):
            rule = _RULES.get(node.op_type)
            if rule is None or node.domain not in {"", "ai.onnx"} or len(node.output) != 1:
                continue
            if rule(wires, node, dims):
                gone.append(node)
            elif node.op_type == "Expand" and _push(wires, node, dims):
                moved = True  # onto nodes that are copies: the wires are drawn anew
                break
        for node in gone:
            wires.drop(node)
        if not gone and not moved:
            break
    return before - len(model.graph.node)


def _expand(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """An Expand whose readers would all broadcast to the same shape by themselves."""
    source, target = node.input[0], node.output[0]
    have, want = dims.get(source), dims.get(target)
    readers = wires.readers[target]
    if have is None or want is None or len(have) != len(want) or target in wires.fixed:
        return False
    if not readers or not all(_covers(one, target, have, want, dims) for one in readers):
        return False
    return wires.bypass(node)


def _covers(
    reader: onnx.NodeProto,
    name: str,
    have: tuple[int | str | None, ...],
    want: tuple[int | str | None, ...],
    dims: Dims,
) -> bool:
    """Whether a node's other inputs, or the tensor itself, have every dim of the result."""
    if reader.op_type not in _BROADCASTING or list(reader.input).count(name) != 1:
        return False
    others = [dims.get(one) for one in reader.input if one and one != name]
    if any(one is None for one in others):
        return False
    for axis, (own, wanted) in enumerate(zip(have, want, strict=True)):
        rest = [one[axis - len(want)] for one in others if one and len(want) - axis <= len(one)]
        if own != 1 and (own == wanted or not isinstance(own, int)):
            continue
        if wanted != 1 and all(one == 1 for one in rest):
            return False
    return True


def _push(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """Put an Expand behind the node that reads it, which then has less to compute."""
    source, target = node.input[0], node.output[0]
    have, want = dims.get(source), dims.get(target)
    if have is None or want is None or len(have) != len(want) or not wires.only_reader(target):
        return False
    reader = wires.readers[target][0]
    alone = reader.op_type in _SINGLE
    if reader.op_type in _BROADCASTING and reader.op_type != "Where" and len(reader.input) == 2:
        (other,) = [one for one in reader.input if one != target] or [""]
        alone = other in wires.tensors and all(dim == 1 for dim in wires.tensors[other].dims)
        alone = alone and len(wires.tensors[other].dims) <= len(have)
    if not alone or len(reader.output) != 1:
        return False
    position = list(reader.input).index(target)
    result = reader.output[0]
    inner = f"{result}.small"
    reader.input[position] = source
    reader.output[0] = inner
    node.input[0], node.output[0] = inner, result
    nodes = list(wires.graph.node)
    at, to = nodes.index(node), nodes.index(reader)
    order = [*nodes[:at], *nodes[at + 1 : to + 1], nodes[at], *nodes[to + 1 :]]
    kept = [onnx.NodeProto.FromString(one.SerializeToString()) for one in order]
    del wires.graph.node[:]
    wires.graph.node.extend(kept)
    return True


def _slice(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """A Slice from 0 to the end of every axis, in steps of one."""
    bounds = [wires.constant(name) if name else None for name in node.input[1:]]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    if len(bounds) > 3 and node.input[4] and (bounds[3] is None or np.any(bounds[3] != 1)):
        return False
    axes: Any = range(len(bounds[0]))
    if len(bounds) > 2 and node.input[3]:
        axes = bounds[2]
    shape = dims.get(node.input[0])
    if axes is None or shape is None or np.any(bounds[0] != 0):
        return False
    for axis, end in zip(axes, bounds[1], strict=True):
        dim = shape[int(axis)]
        if int(end) < (dim if isinstance(dim, int) else _ENDLESS):
            return False
    return wires.bypass(node)


_ENDLESS = 10**9
"""A limit meant as none: no dim of a tensor reaches it."""


def _transpose(wires: wiring.Wires, node: onnx.NodeProto, dims: Dims) -> bool:
    """Two Transposes, perhaps with an Unsqueeze between them, that move nothing in the end."""
    del dims
    maker = wires.maker.get(node.input[0])
    if maker is None or not wires.only_reader(node.input[0]):
        return False
    last = [int(one) for one in wiring.attribute(node, "perm") or ()]
    if maker.op_type == "Unsqueeze":
        return _around_unsqueeze(wires, node, maker, last)
    first = [int(one) for one in wiring.attribute(maker, "perm") or ()]
    if maker.op_type != "Transpose" or len(first) != len(last) or not last:
        return False
    both = [first[axis] for axis in last]
    wiring.put(node, "perm", both)
    node.input[0] = maker.input[0]
    wires.readers[maker.input[0]].append(node)
    wires.drop(maker)
    return both == sorted(both) and wires.bypass(node)


def _around_unsqueeze(
    wires: wiring.Wires, node: onnx.NodeProto, middle: onnx.NodeProto, last: list[int]
) -> bool:
    before = wires.maker.get(middle.input[0])
    axes = wires.constant(middle.input[1]) if len(middle.input) > 1 else None
    if before is None or before.op_type != "Transpose" or not wires.only_reader(middle.input[0]):
        return False
    if node.output[0] in wires.fixed:
        return False
    order: list[int | None] = [int(one) for one in wiring.attribute(before, "perm") or ()]
    if axes is None or len(axes) != 1 or len(last) != len(order) + 1:
        return False
    order.insert(int(axes[0]) % len(last), None)
    after = [order[axis] for axis in last]
    if [one for one in after if one is not None] != list(range(len(after) - 1)):
        return False
    wires.renew(middle, 1, np.array([after.index(None)], np.int64))
    middle.input[0] = before.input[0]
    wires.drop(before)
    return wires.bypass(node)


_RULES: dict[str, Callable[[wiring.Wires, onnx.NodeProto, Dims], bool]] = {
    "Expand": _expand,
    "Slice": _slice,
    "Transpose": _transpose,
}
"""Each says whether the node can go."""
