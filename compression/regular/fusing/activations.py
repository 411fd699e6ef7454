"""Replaces activations that are written out in small operators by the operators made for them.

Each region is run on a grid of values, recognised by what it answers, and replaced by what answers
the same when run on the same grid, in fewer passes over memory.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.regular import opsets
from compression.regular.fusing import functions, regions, running

COSTS = {
    "Elu": 4.0, "Erf": 3.0, "Exp": 1.5, "FastGelu": 2.0, "Gelu": 2.0, "HardSwish": 1.5, "Log": 4.0,
    "Mish": 40.0, "Pow": 4.0, "Softplus": 36.0, "Tanh": 1.2,
}  # fmt: skip
"""CPU time a value beside that of an Add, measured with onnxruntime 1.31 on AVX2; others cost 1."""
GUARD = 2.0**-16
"""Constants nearer than this to 0 or 1, and neither: 1e-7 is added so that a logarithm or a
quotient behind stays finite. Beside values of one they look like rounding, and are not."""


def curves(model: onnx.ModelProto) -> int:
    """Replace activations, in place; returns how many."""
    return _fuse(model, functions.CURVES)


def lines(model: onnx.ModelProto) -> int:
    """Replace what only scales and shifts, in place; returns how many places.

    After `curves`: half of an activation may be such a line.
    """
    return _fuse(model, functions.LINES)


def _fuse(model: onnx.ModelProto, table: functions.Table) -> int:
    graph = regions.Map.of(model)
    version = opsets.version(model)
    known: dict[str, functions.Steps | None] = {}
    replaced: dict[int, list[onnx.NodeProto]] = {}
    gone: set[int] = set()
    made: list[onnx.TensorProto] = []
    for last in reversed(range(len(graph.nodes))):
        if last in gone:
            continue
        for region in reversed(list(regions.ending_at(graph, last))):
            key = region.key
            if key not in known:
                known[key] = _cheaper(region, version, table)
            steps = known[key]
            if steps is None or (not steps and region.target in graph.fixed):
                continue
            nodes, tensors = _written(region, steps)
            replaced[last] = nodes
            made += tensors
            gone |= {graph.maker[node.output[0]] for node in region.nodes}
            break
    kept = [
        one
        for at, node in enumerate(graph.nodes)
        for one in replaced.get(at, [] if at in gone else [node])
    ]
    if replaced:
        running.rebuild(model, kept, made)
    return len(replaced)


def cost(operators: list[str]) -> float:
    """What operators take for each value, in Adds."""
    return sum(COSTS.get(one, 1.0) for one in operators)


def _cheaper(
    region: regions.Region, version: int, table: functions.Table
) -> functions.Steps | None:
    """The cheapest way to write a region, where that is not the way it is written."""
    operators = [node.op_type for node in region.nodes]
    now = cost(operators)
    straight = functions.STRAIGHT.issuperset(operators)
    if straight != (table is functions.LINES) and len(operators) > 1:
        return None
    if _guarded(region):
        return None
    x = functions.grid()
    constants = [
        numpy_helper.from_array(value.reshape(()), name) for name, value in region.constants.items()
    ]
    feeds = {region.source: x}
    y = running.run(region.nodes, constants, feeds, region.target, opset=version)
    if y is None:
        return None
    for _, steps in functions.guesses(x, y, table):
        if any(step.since > version for step in steps):
            continue
        if cost([step.operator for step in steps]) >= now:
            continue
        nodes, tensors = _written(region, steps)
        got = running.run(nodes, tensors, feeds, region.target, opset=version)
        if got is not None and functions.same(x, y, got):
            return steps
    return None


def _guarded(region: regions.Region) -> bool:
    """Whether one of its constants keeps values off 0 or 1 by next to nothing."""
    inputs = [float(value.ravel()[0]) for value in region.constants.values()]
    attributes = [one.f for node in region.nodes for one in node.attribute]
    return any(0 < abs(abs(c) - edge) < GUARD for c in [*inputs, *attributes] for edge in (0, 1))


def _written(
    region: regions.Region, steps: functions.Steps
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and constants of a replacement; without steps an Identity, that others remove."""
    if not steps:
        return [helper.make_node("Identity", [region.source], [region.target])], []
    names = [f"{region.target}.fused.{at}" for at in range(len(steps) - 1)] + [region.target]
    nodes, tensors = [], []
    for at, step in enumerate(steps):
        inputs = []
        for place, one in enumerate(step.inputs):
            if isinstance(one, float):
                inputs.append(f"{region.target}.fused.{at}.{place}")
                tensors.append(numpy_helper.from_array(np.array(one, np.float32), inputs[-1]))
            else:
                inputs.append(names[one] if isinstance(one, int) else region.source)
        node = helper.make_node(
            step.operator, inputs, [names[at]], domain=step.domain, **step.attributes
        )
        nodes.append(node)
    return nodes, tensors
