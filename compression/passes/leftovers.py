"""Removes nodes and constants that nobody reads any more."""

import onnx

from compression import bodies


def remove(model: onnx.ModelProto) -> None:
    """Remove from `model` what its outputs do not need."""
    needed = {value.name for value in model.graph.output}
    keep = []
    for node in reversed(model.graph.node):
        keep.append(bool(needed & set(node.output)))
        if keep[-1]:
            needed |= {*node.input, *bodies.captured(node)}
    keep.reverse()
    for at in reversed(range(len(keep))):
        if not keep[at]:
            del model.graph.node[at]
    for at in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[at].name not in needed:
            del model.graph.initializer[at]
