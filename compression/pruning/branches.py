"""Where what a layer makes meets another branch, whose errors it can make up for (pure)."""

from collections.abc import Mapping

import onnx


def others(
    model: onnx.ModelProto, steps: Mapping[str, int], made: Mapping[str, int]
) -> dict[str, str]:
    """Return by layer in `steps` the tensor that an Add joins with what it alone makes.

    Between them only constants may be added. `steps` says when a layer is fitted, `made` when each
    tensor is final: the other branch has to be by then, so of two branches the later makes up.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    leaving = {value.name for value in model.graph.output}
    found: dict[str, str] = {}
    for layer, step in steps.items():
        at = layer
        while at not in leaving and len(mine := readers.get(at, [])) == 1:
            (node,) = mine
            beside = [name for name in node.input if name != at]
            if node.op_type != "Add" or len(beside) != 1:
                break
            if beside[0] not in constants:
                if made.get(beside[0], step + 1) <= step:
                    found[layer] = beside[0]
                break
            at = node.output[0]
    return found
