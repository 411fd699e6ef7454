"""Vectors that are read off shapes: which of their entries count channels."""

from collections.abc import Callable

import onnx

from compression.pruning.ties import Channels
from compression.pruning.tracing import Axes, Trace
from compression.regular.wiring import attribute


def shape(trace: Trace, node: onnx.NodeProto) -> None:
    """The dims of a tensor: those along channels count them."""
    axes = trace.of(node.input[0])
    start, end = attribute(node, "start") or 0, attribute(node, "end")
    put(trace, node.output[0], axes[start : len(axes) if end is None else end])


def follow(trace: Trace, node: onnx.NodeProto) -> bool:
    """Carry the entries of vectors through a node; False where it is no such node.

    Where entries are computed with, what they count is frozen.
    """
    if not any(name in trace.extents for name in node.input):
        return False
    rule = _RULES.get(node.op_type)
    found = None if rule is None else rule(trace, node)
    if found is not None:
        put(trace, node.output[0], found)
    elif node.op_type not in {"Reshape", "Expand", "Resize"}:  # these read them as shapes
        for name in node.input:
            for extent in trace.extents.get(name, ()):
                trace.ties.freeze(extent, f"is counted for a computation ({node.op_type})")
    return found is not None


def put(trace: Trace, name: str, extents: Axes) -> None:
    """Note a vector that counts channels."""
    if any(extent is not None for extent in extents):
        trace.extents[name] = extents


def _gather(trace: Trace, node: onnx.NodeProto) -> Axes | None:
    indices, given = trace.constant(node.input[1]), trace.extents.get(node.input[0], ())
    if indices is None or not given:
        return None
    return tuple(given[int(at)] for at in indices.reshape(-1))


def _slice(trace: Trace, node: onnx.NodeProto) -> Axes | None:
    places = dict(zip(("start", "end", "axes", "step"), node.input[1:], strict=False))
    bounds = {key: trace.constant(name) for key, name in places.items() if name}
    if any(bound is None or bound.size != 1 for bound in bounds.values()):
        return None
    number = {key: int(one.reshape(-1)[0]) for key, one in bounds.items() if one is not None}
    return trace.extents[node.input[0]][number["start"] : number["end"] : number.get("step", 1)]


def _concat(trace: Trace, node: onnx.NodeProto) -> Axes | None:
    parts: list[Channels | None] = []
    for name in node.input:
        length = max(1, sum(trace.shape(name)))
        parts += trace.extents.get(name, (None,) * length)
    return tuple(parts)


def _same(trace: Trace, node: onnx.NodeProto) -> Axes | None:
    return trace.extents.get(node.input[0])


_RULES: dict[str, Callable[[Trace, onnx.NodeProto], Axes | None]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": _same,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
}
