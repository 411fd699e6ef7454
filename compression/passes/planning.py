"""Which tensors of a graph become integers, once it is known which nodes shall run in them."""

from collections.abc import Container, Mapping, Sequence
from typing import Literal, Protocol

import onnx

from compression.passes import qdq, rounding
from compression.statistics import Range

PASSING = (
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Expand",
    "Split",
)  # fmt: skip
"""They move values without changing them, so input and outputs share scale and zero point.
Resize to the nearest does, too."""
ACTIVATIONS = ("Relu", "Clip")
"""The runtime folds them into the QuantizeLinear that follows."""


class Grids(Protocol):
    """How activations are rounded."""

    @property
    def activations(self) -> Literal["u8", "s8"]:
        """Their format."""

    @property
    def symmetric(self) -> bool:
        """Whether their zero point lies in the middle."""

    @property
    def reach(self) -> float:
        """Where their ranges end, see `Range.cut`."""


def plan(
    graph: qdq.Graph,
    chosen: Sequence[onnx.NodeProto],
    grids: Grids,
    ranges: Mapping[str, Range],
    *,
    elementwise: Container[str],
) -> qdq.Plan:
    """Decide which tensors are integers for `chosen`, and which of them for all their readers.

    `elementwise` are the operators all of whose inputs become integers.
    """
    found = qdq.Plan(nodes={node.output[0] for node in chosen})
    for node in chosen:
        if node.op_type == "Gather":
            continue
        inputs = node.input if node.op_type in elementwise else node.input[:1]
        found.read |= {name for name in inputs if name and name not in graph.weights}
        if node.op_type == "Conv" or node.op_type in elementwise:
            found.whole.add(_settled(graph, node.output[0]))
    _through(graph, found)
    for name in found.read | found.whole:
        if name not in found.same_as:
            seen = ranges.get(name)
            if seen is None:  # a Relu's output may be unmeasured only where its input is too
                found.read.discard(name)
                found.whole.discard(name)
                continue
            low, high = seen.cut(grids.reach)
            found.grids[name] = rounding.activation_grid(
                low, high, kind=grids.activations, symmetric=grids.symmetric
            )
    for name, source in found.same_as.items():
        found.grids[name] = found.grids[source]
    found.nodes |= {graph.maker[name].output[0] for name in found.same_as}
    return found


def _settled(graph: qdq.Graph, name: str) -> str:
    """The tensor to quantize: behind a Relu or Clip that alone reads `name`."""
    readers = graph.readers.get(name, [])
    if len(readers) == 1 and name not in graph.outputs and readers[0].op_type in ACTIVATIONS:
        return str(readers[0].output[0])
    return name


def _through(graph: qdq.Graph, plan: qdq.Plan) -> None:
    """Carry integers through nodes that only move values, where integers are wanted behind."""
    wanted = set(plan.read)
    moving = [node for node in graph.nodes if _only_moves(node)]
    for node in reversed(moving):
        if any(name in wanted and name not in plan.whole for name in node.output):
            wanted.add(node.input[0])
    for node in moving:
        source, targets = node.input[0], [name for name in node.output if name]
        if source not in plan.whole or not any(name in wanted for name in targets):
            continue
        for target in targets:
            if target not in plan.whole:
                plan.same_as[target] = plan.same_as.get(source, source)
                plan.whole.add(target)


def _only_moves(node: onnx.NodeProto) -> bool:
    """Whether each value of the output is one of the input, in a kernel that takes integers."""
    if node.op_type == "Resize":
        modes = {attribute.name: attribute.s for attribute in node.attribute}
        return modes.get("mode", b"nearest") == b"nearest" and b"tf_crop" not in modes.get(
            "coordinate_transformation_mode", b""
        )
    return node.op_type in PASSING and node.domain in {"", "ai.onnx"}
