"""Finds the float weights of a graph and of the bodies inside it, and who reads them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from compression import bodies
from compression.regular import wiring

Shape = tuple[int, ...]
Readers = dict[str, list[tuple[onnx.NodeProto, int]]]
MOST_VALUE = 1e4
"""Values from here on mark what is left out (masks of -10000, or of the least float)."""


@dataclass(frozen=True)
class Weight:
    """One float32 constant that only weights' inputs read.

    `kept` are the axes along which its scale may differ: channels, that is, not what is summed.
    """

    name: str
    tensor: onnx.TensorProto
    kept: tuple[int, ...]
    readers: tuple[onnx.NodeProto, ...]
    graph: onnx.GraphProto
    """The graph or body that holds it."""

    @property
    def values(self) -> NDArray[np.float32]:
        """What it holds; read anew each time, so that not all of them are in memory twice."""
        values: NDArray[np.float32] = numpy_helper.to_array(self.tensor)
        return values

    @property
    def bytes(self) -> int:
        """What its float values take."""
        return 4 * int(math.prod(self.tensor.dims))

    def replace(self, tensors: list[onnx.TensorProto], nodes: list[onnx.NodeProto]) -> None:
        """Have `nodes`, in front of all others, make the constant out of `tensors`."""
        graph = self.graph
        held = (graph.initializer, [one.name for one in graph.initializer])
        posing = (graph.input, [one.name for one in graph.input])
        made = (graph.node, [one.output[0] if one.output else "" for one in graph.node])
        for part, names in (held, posing, made):
            if self.name in names:
                del part[names.index(self.name)]
        graph.initializer.extend(tensors)
        for at, node in enumerate(nodes):
            graph.node.insert(at, node)


def _all_but_last(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    del node, position
    return tuple(range(len(shape) - 1))


def _first(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    del node, position, shape
    return (0,)


def _second(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    del node, position, shape
    return (1,)


def _matmul(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    """Everything but the axis that is summed: the last of A, the one before it of B."""
    del node
    summed = len(shape) - (2 if position else 1)
    return tuple(at for at in range(len(shape)) if at != summed)


def _gemm(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    del shape
    turned = bool(wiring.attribute(node, "transB" if position else "transA"))
    return (0,) if bool(position) == turned else (1,)


def _gather(node: onnx.NodeProto, position: int, shape: Shape) -> tuple[int, ...]:
    del position
    return (int(wiring.attribute(node, "axis") or 0) % len(shape),)


Kept = Callable[[onnx.NodeProto, int, Shape], tuple[int, ...]]
WEIGHTS: dict[str, tuple[tuple[int, ...], Kept]] = {
    "Conv": ((1,), _first),
    "DeformConv": ((1,), _first),
    "ConvTranspose": ((1,), _second),
    "Gemm": ((0, 1), _gemm),
    "MatMul": ((0, 1), _matmul),
    "Einsum": ((0, 1), _all_but_last),
    "Gather": ((0,), _gather),
    "LSTM": ((1, 2), _all_but_last),
    "GRU": ((1, 2), _all_but_last),
    "RNN": ((1, 2), _all_but_last),
    "Attention": ((1,), _second),
    "Add": ((0, 1), _all_but_last),
}
"""Operator -> at which inputs weights may stand, and the axes along which scales may differ.
Factors (Mul), normalisations and what shapes are made of are not among them. What is added may be
an embedding of positions, which is centred, or a grid of coordinates, which is not and is exact."""

MOVING = frozenset({
    "Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""They move values; what they make of weights may still be weights. Exporters reorder an LSTM's
gates so, inside of bodies where nothing folds it."""


def weights(graph: onnx.GraphProto) -> Iterator[Weight]:
    """Give the float32 weights of a graph and its bodies: of two axes at least, with plain values.

    A constant that anything else reads as well is left out.
    """
    readers = _readers(graph)
    given = {value.name for value in graph.output}
    for name, tensor in _constants(graph):
        kept = _kept(readers, name, tuple(tensor.dims))
        if tensor.data_type == TensorProto.FLOAT and name not in given and kept is not None:
            nodes = tuple(node for node, _ in readers[name])
            if _plain(numpy_helper.to_array(tensor), nodes):
                yield Weight(name, tensor, kept, nodes, graph)
    for node in list(graph.node):
        for body in bodies.of(node):
            yield from weights(body)


def _kept(readers: Readers, name: str, shape: Shape) -> tuple[int, ...] | None:
    """The axes of its scales, as the first reader wants them; None where it is no weight."""
    used = readers.get(name, [])
    if not used or sum(size > 1 for size in shape) < 2 or not _as_weight(readers, name):
        return None
    node, position = used[0]
    if node.op_type in MOVING:
        return tuple(range(len(shape) - 1))
    return WEIGHTS[node.op_type][1](node, position, shape)


def _as_weight(readers: Readers, name: str) -> bool:
    """Whether all who read `name`, or what it is moved to, read weights there."""
    used = readers.get(name, [])
    for node, position in used:
        if node.op_type in MOVING and (position == 0 or node.op_type == "Concat"):
            if not all(_as_weight(readers, moved) for moved in node.output if moved):
                return False
        elif position not in WEIGHTS.get(node.op_type, ((), _first))[0]:
            return False
    return bool(used)


def _plain(values: NDArray[np.float32], readers: tuple[onnx.NodeProto, ...]) -> bool:
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) >= MOST_VALUE:
        return False
    added = any(node.op_type == "Add" for node in readers)
    return not added or bool(abs(values.mean()) <= values.std() / 2)


def _readers(graph: onnx.GraphProto) -> Readers:
    """Who reads each name at which input, inside of bodies too; -1: a body gives it as it is."""
    found: Readers = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name:
                found.setdefault(name, []).append((node, position))
        for body in bodies.of(node):
            for name, used in _readers(body).items():
                found.setdefault(name, []).extend(used)
            for value in body.output:
                found.setdefault(value.name, []).append((node, -1))
    return found


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in list(graph.initializer):
        yield tensor.name, tensor
    for node in list(graph.node):
        value: Any = wiring.attribute(node, "value") if node.op_type == "Constant" else None
        if isinstance(value, onnx.TensorProto):
            yield node.output[0], value
