"""Reshapes whose target is worked out while the model runs get a constant one.

`x.view(x.size(0), x.size(1), 4, 16)` is a Shape, two Gathers, two Unsqueezes and a Concat. Where a
dim of the target is the dim of the tensor at the same place, a 0 says so (ONNX Reshape), and one
other dim is what is left over, a -1.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from compression.regular import wiring
from compression.regular.fusing import regions

Dim = int | str | None


def settle(model: onnx.ModelProto) -> int:
    """Give Reshapes constant targets, in place; returns how many."""
    count = 0
    while _first(model):  # each makes more dims known to the next ones
        count += 1
    return count


def _first(model: onnx.ModelProto) -> bool:
    wires = wiring.Wires(model)
    dims: dict[str, tuple[Dim, ...]] | None = None
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.domain not in {"", "ai.onnx"}:
            continue
        if wiring.attribute(node, "allowzero") or node.input[1] in wires.tensors:
            continue
        dims = regions.Map.of(model).dims if dims is None else dims
        target = _target(wires, dims, node)
        if target is not None:
            wires.renew(node, 1, np.array(target, np.int64))
            return True
    return False


def _target(
    wires: wiring.Wires, dims: dict[str, tuple[Dim, ...]], node: onnx.NodeProto
) -> list[int] | None:
    """The constant target of a Reshape; None where a run is needed to tell."""
    concat = wires.maker.get(node.input[1])
    have = dims.get(node.input[0])
    if concat is None or concat.op_type != "Concat" or have is None:
        return None
    wanted: list[Dim] = []
    for name in concat.input:
        part = _entries(wires, dims, name)
        if part is None:
            return None
        wanted += part
    target = [_entry(at, dim, have) for at, dim in enumerate(wanted)]
    if target.count(None) > 1 or (None in target and -1 in target):
        return None
    return [-1 if one is None else one for one in target]


def _entry(at: int, dim: Dim, have: Sequence[Dim]) -> int | None:
    """How a Reshape is told of one dim; None where only what is left over can stand for it."""
    if isinstance(dim, int):
        return dim
    return 0 if dim is not None and at < len(have) and have[at] == dim else None


def _entries(wires: wiring.Wires, dims: dict[str, tuple[Dim, ...]], name: str) -> list[Dim] | None:
    """What one part of a target holds: numbers, or the one dim of a tensor that it reads."""
    tensor = wires.tensors.get(name)
    if tensor is not None:
        values = numpy_helper.to_array(tensor).ravel().tolist()
        # A 0 copies, which here means a dim of 0 as much as one that is copied: left alone.
        return [int(one) for one in values] if 0 not in values else None
    node = wires.maker.get(name)
    if node is not None and node.op_type == "Unsqueeze":
        node = wires.maker.get(node.input[0])
    if node is None or node.op_type != "Gather" or wiring.attribute(node, "axis"):
        return None
    shape, index = wires.maker.get(node.input[0]), wires.constant(node.input[1])
    if shape is None or shape.op_type != "Shape" or index is None or index.size != 1:
        return None
    if any(wiring.attribute(shape, one) for one in ("start", "end")):
        return None
    seen = dims.get(shape.input[0])
    at = int(index.ravel()[0])
    return [seen[at]] if seen is not None and -len(seen) <= at < len(seen) else None
