"""Which layers read something else once a graph is cut, and which of their outputs stay."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import bodies
from compression.pruning import layers, surgery
from compression.pruning.groups import ChannelMap

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Stays:
    """What a cut leaves of one layer's outputs and of the channels that it reads.

    `spread` is the tensor [N, C, ...] and its rank whose channels are read, for layers that see
    each at several places: kernels, and what lies behind a Flatten.
    """

    outputs: Mask
    inputs: Mask
    spread: tuple[str, int] | None = None


def stays(
    model: onnx.ModelProto,
    channels: ChannelMap,
    keep: Mapping[str, Collection[int]],
    *,
    only_readers: bool = False,
) -> dict[str, Stays]:
    """Return what stays of each layer behind the cut, by what it makes.

    Behind the cut is what hangs on a channel that goes; `only_readers`: what reads such a channel.
    """
    kept = surgery.kept_atoms(channels, keep)
    cut_groups = [group for group in channels.groups if group.id in keep]
    if only_readers:
        changed = {slot.node for group in cut_groups for slot in group.consumers}
    else:
        changed = {slot.tensor for group in cut_groups for slot in group.producers}
        for node in model.graph.node:
            if changed & {*node.input, *bodies.captured(node)}:
                changed |= set(node.output)
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, Stays] = {}
    for name, layer in layers.find(model).items():
        read = name if only_readers else layer.node.input[0]
        if read in changed:
            first, second = (_mask(channels, kept, layer, axis) for axis in (0, 1))
            turned = layer.form.window is not None or layer.form.turned
            plain = Stays(first, second) if turned else Stays(second, first)
            found[name] = _spread(channels, layer, makers.get(layer.node.input[0]), plain)
    return found


def _spread(
    channels: ChannelMap, layer: layers.Layer, maker: onnx.NodeProto | None, plain: Stays
) -> Stays:
    """Find out whether the layer sees each channel at several places."""
    window = layer.form.window
    if window is not None:
        several = window.groups == 1 and math.prod(window.kernel) > 1
        name = layer.node.input[0]
        return replace(plain, spread=(name, 2 + len(window.kernel))) if several else plain
    before = layers.flattened(maker, channels.trace.shapes, len(plain.inputs))
    if before is None:
        return plain
    tensor, shape = before
    apart = plain.inputs.reshape(shape[1], -1)
    if (apart != apart[:, :1]).any():
        return plain
    return Stays(plain.outputs, apart[:, 0], (tensor, len(shape)))


def _mask(channels: ChannelMap, kept: NDArray[Any], layer: layers.Layer, axis: int) -> Mask:
    for use in channels.trace.uses:
        if use.initializer == layer.node.input[1] and use.axis == axis:
            found: Mask = kept[use.channels.atoms]
            return found
    return np.ones(layer.form.shape[axis], bool)
