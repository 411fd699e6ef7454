"""LayerNormalization and Softmax that are written out in small operators become one.

A part of the graph that reads one tensor, reduces it and answers in its shape is run on random
values; its answers say which normalisation it is, and with which constants. Then the operator
itself has to answer the same, over several magnitudes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression.regular import opsets, wiring
from compression.regular.fusing import regions, running

MOST_NODES = 24
ROUNDING = 2e-5
"""How far apart two spellings may be beside the largest answer: E[x^2] - E[x]^2 cancels."""
_REDUCING = frozenset({"ReduceMean", "ReduceSum", "ReduceMax"})
_SHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze"})
_LAST = frozenset({"Add", "Div", "Mul"})
_LAYER_NORMALIZATION_OPSET = 17
_LEAST_ROWS = 24
"""So many vectors to fit a scale and a shift by."""
_WIDTHS = (3, 5)
"""What dynamic dims become: two runs of different widths."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Section:
    """Nodes, in order, that make `target` of `source` and constants, reducing along `axes`."""

    source: str
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    tensors: tuple[onnx.TensorProto, ...]
    axes: tuple[int, ...]
    dims: tuple[int | str | None, ...]

    def answer(self, x: Floats, opset: int) -> Floats | None:
        """What it makes of `x`."""
        return running.run(self.nodes, self.tensors, {self.source: x}, self.target, opset=opset)


@dataclass(frozen=True)
class Replacement:
    """Nodes with their own constants that answer as a section does."""

    nodes: tuple[onnx.NodeProto, ...]
    tensors: tuple[onnx.TensorProto, ...] = ()


def fuse(model: onnx.ModelProto) -> int:
    """Replace in place; returns how many normalisations."""
    graph = regions.Map.of(model)
    version = opsets.version(model)
    replaced: dict[int, Replacement] = {}
    gone: set[int] = set()
    for last in reversed(range(len(graph.nodes))):
        if last in gone or graph.nodes[last].op_type not in _LAST:
            continue
        for section in reversed(list(_ending_at(graph, last))):
            found = _softmax(section, version) or _layer(section, version)
            if found is not None:
                replaced[last] = found
                gone |= {graph.maker[node.output[0]] for node in section.nodes}
                break
    if replaced:
        kept = [
            one
            for at, node in enumerate(graph.nodes)
            for one in (replaced[at].nodes if at in replaced else [] if at in gone else [node])
        ]
        running.rebuild(model, kept, (one for each in replaced.values() for one in each.tensors))
    return len(replaced)


def _ending_at(graph: regions.Map, last: int) -> Iterator[Section]:
    """Sections whose last node is this one, as `regions.ending_at` finds regions."""
    taken: set[int] = set()
    needed: set[str] = set()
    at = last
    while len(taken) < MOST_NODES and at >= 0 and _possible(graph.nodes[at]):
        node = graph.nodes[at]
        if taken and not graph.inner(node.output[0], taken):
            return
        taken.add(at)
        needed -= set(node.output)
        needed |= {name for name in node.input if name and name not in graph.tensors}
        if len(needed) == 1:
            section = _section(graph, taken, next(iter(needed)))
            if section is not None:
                yield section
        at = max((graph.maker.get(name, -1) for name in needed), default=-1)


def _possible(node: onnx.NodeProto) -> bool:
    known = regions.ELEMENTWISE | _REDUCING | _SHAPING
    return node.op_type in known and node.domain in {"", "ai.onnx"} and len(node.output) == 1


def _section(graph: regions.Map, taken: set[int], source: str) -> Section | None:
    nodes = tuple(graph.nodes[at] for at in sorted(taken))
    target = nodes[-1].output[0]
    dims = graph.dims.get(source)
    reducing = [node for node in nodes if node.op_type in _REDUCING]
    if dims is None or source not in graph.floats or len(reducing) < 2:
        return None
    if len(graph.dims.get(target, ())) != len(dims):
        return None
    axes = {_axes(graph, node, len(dims)) for node in reducing}
    if len(axes) != 1:
        return None
    (found,) = axes
    if found is None or not all(isinstance(dims[axis], int) for axis in found):
        return None
    names = {name for node in nodes for name in node.input if name in graph.tensors}
    tensors = tuple(graph.tensors[name] for name in sorted(names))
    return Section(source, target, nodes, tensors, found, dims)


def _axes(graph: regions.Map, node: onnx.NodeProto, rank: int) -> tuple[int, ...] | None:
    listed = wiring.attribute(node, "axes")
    if len(node.input) > 1 and node.input[1] in graph.tensors:
        listed = numpy_helper.to_array(graph.tensors[node.input[1]]).tolist()
    return tuple(sorted(int(axis) % rank for axis in listed)) if listed else None


def _softmax(section: Section, opset: int) -> Replacement | None:
    operators = {node.op_type for node in section.nodes}
    if "Exp" not in operators or len(section.axes) != 1:
        return None
    node = helper.make_node("Softmax", [section.source], [section.target], axis=section.axes[0])
    found = Replacement((node,))
    return found if _same(section, found, opset, (1.0, 30.0, 1e-3)) else None


def _layer(section: Section, opset: int) -> Replacement | None:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + shift; Ba, Kiros and Hinton, 2016."""
    if opset < _LAYER_NORMALIZATION_OPSET or not {"Sqrt", "Pow"} & {
        node.op_type for node in section.nodes
    }:
        return None
    rank, axes = len(section.dims), section.axes
    trailing = axes == tuple(range(rank - len(axes), rank))
    if not trailing and len(axes) != 1:
        return None
    values = [numpy_helper.to_array(one) for one in section.tensors]
    for epsilon in (float(one.ravel()[0]) for one in values if one.size == 1):
        if not 0 < epsilon < 0.1:
            continue
        line = _line(section, opset, epsilon, values)
        if line is None:
            continue
        found = _written(section, epsilon, *line)
        if _same(section, found, opset, (1.0, 30.0, 0.05, epsilon**0.5)):
            return found
    return None


def _line(
    section: Section, opset: int, epsilon: float, values: list[NDArray[np.generic]]
) -> tuple[Floats, Floats] | None:
    """Scale and shift as the section's own constants; None where it normalises otherwise."""
    count = int(np.prod([int(section.dims[axis] or 0) for axis in section.axes]))
    flat: list[Floats] = []
    answers: list[Floats] = []
    for seed in range(_LEAST_ROWS):
        if sum(len(one) for one in flat) >= _LEAST_ROWS:
            break
        x = _random(section, seed, 1.0, _WIDTHS[0])
        y = section.answer(x, opset)
        if y is None or y.shape != x.shape:
            return None
        for kept, one in ((flat, x), (answers, y)):
            behind = range(-len(section.axes), 0)
            kept.append(np.moveaxis(one, section.axes, tuple(behind)).reshape(-1, count))
    x64, y64 = (np.concatenate(one).astype(np.float64) for one in (flat, answers))
    centred = x64 - x64.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    spread = normal - normal.mean(axis=0)
    scale = (spread * y64).sum(axis=0) / np.maximum((spread**2).sum(axis=0), 1e-30)
    shift = (y64 - scale * normal).mean(axis=0)
    size = max(float(np.abs(y64).max()), 1e-30)
    if not np.abs(scale * normal + shift - y64).max() <= 1e-3 * size:
        return None
    own = [_meant(fit, values, size, plain) for fit, plain in ((scale, 1.0), (shift, 0.0))]
    return None if own[0] is None or own[1] is None else (own[0], own[1])


def _meant(
    fit: NDArray[np.float64], values: list[NDArray[np.generic]], size: float, plain: float
) -> Floats | None:
    """The constant of the section that a fit comes near to, or the plain one where there is none.

    What was fitted is not used: its last digits are noise.
    """
    for value in [np.full(fit.shape, plain), *values]:
        if value.dtype.kind == "f" and value.size in {1, fit.size}:
            wide = np.broadcast_to(value.ravel(), fit.shape).astype(np.float32)
            if np.abs(wide - fit).max() <= 1e-4 * size:
                return np.array(wide)
    return None


def _written(section: Section, epsilon: float, scale: Floats, shift: Floats) -> Replacement:
    """The operator; along an inner axis between two Transposes, that others may then take out."""
    name, rank, axes = section.target, len(section.dims), section.axes
    shape = [int(section.dims[axis] or 0) for axis in axes]
    tensors = tuple(
        numpy_helper.from_array(value.reshape(shape), f"{name}.{key}")
        for key, value in (("scale", scale), ("shift", shift))
    )
    names = [one.name for one in tensors]
    first = axes[0]
    if axes[-1] == rank - 1:
        node = helper.make_node(
            "LayerNormalization", [section.source, *names], [name], axis=first, epsilon=epsilon
        )
        return Replacement((node,), tensors)
    order = [axis for axis in range(rank) if axis != first] + [first]
    back = [order.index(axis) for axis in range(rank)]
    inner = [f"{name}.turned", f"{name}.normal"]
    nodes = (
        helper.make_node("Transpose", [section.source], [inner[0]], perm=order),
        helper.make_node(
            "LayerNormalization", [inner[0], *names], [inner[1]], axis=rank - 1, epsilon=epsilon
        ),
        helper.make_node("Transpose", [inner[1]], [name], perm=back),
    )
    return Replacement(nodes, tensors)


def _same(section: Section, found: Replacement, opset: int, scales: tuple[float, ...]) -> bool:
    """Whether both answer the same over magnitudes and widths, the mean beside zero."""
    for seed, scale in enumerate(scales):
        for width in _WIDTHS:
            x = _random(section, 100 + seed, scale, width)
            want = section.answer(x, opset)
            got = running.run(
                found.nodes, found.tensors, {section.source: x}, section.target, opset=opset
            )
            if want is None or got is None or want.shape != got.shape:
                return False
            if not np.abs(want - got).max() <= ROUNDING * float(np.abs(want).max()):
                return False
    return True


def _random(section: Section, seed: int, scale: float, width: int) -> Floats:
    shape = [dim if isinstance(dim, int) else width for dim in section.dims]
    random = np.random.default_rng(seed)
    return np.asarray(scale * (random.normal(size=shape) + 0.5), np.float32)
