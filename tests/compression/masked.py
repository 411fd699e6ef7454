"""What cutting channels means, written into the ORIGINAL graph: nothing is removed, only zeroed.

Every parameter that makes a unit, or belongs to it, becomes zero in place; and before each node
that would read of it what is neither zero nor a constant for its bias, a Where writes zero.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression.pruning import surgery
from compression.pruning.groups import ChannelMap


def masked(
    model: onnx.ModelProto, channels: ChannelMap, keep: Mapping[str, Collection[int]]
) -> onnx.ModelProto:
    """The original with all units but those in `keep` zeroed."""
    kept = surgery.kept_atoms(channels, keep)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _zero(changed, channels, kept)
    nodes = list(changed.graph.node)
    extra: dict[int, list[onnx.NodeProto]] = {}
    for at, leak in enumerate(channels.trace.leaks):
        stays = kept[leak.channels.atoms]
        if leak.folds or stays.all():
            continue
        node = nodes[leak.node]
        source = node.input[leak.position]
        shape = [1] * len(channels.trace.shape(source))
        shape[leak.axis] = len(stays)
        mask = numpy_helper.from_array(stays.reshape(shape), f"mask.{at}")
        zero = numpy_helper.from_array(np.zeros((), np.float32), f"mask.{at}.zero")
        changed.graph.initializer.extend([mask, zero])
        inputs = [mask.name, source, zero.name]
        extra.setdefault(leak.node, []).append(
            helper.make_node("Where", inputs, [f"mask.{at}.masked"])
        )
        node.input[leak.position] = f"mask.{at}.masked"
    ordered = [n for at, node in enumerate(nodes) for n in [*extra.get(at, ()), node]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del changed.graph.node[:]
    changed.graph.node.extend(copies)
    return changed


def _zero(changed: onnx.ModelProto, channels: ChannelMap, kept: np.ndarray) -> None:
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    for use in channels.trace.uses:
        gone = ~kept[use.channels.atoms]
        if use.role not in {"makes", "follows"} or not gone.any():
            continue
        tensor = tensors[use.initializer]
        array = numpy_helper.to_array(tensor).copy()
        np.moveaxis(array, use.axis, 0)[gone] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
