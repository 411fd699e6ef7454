"""Which layers read something else once a graph is cut, and which of their outputs stay."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.pruning import layers, surgery
from compression.pruning.groups import ChannelMap
from compression.regular import constants

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Stays:
    """What a cut leaves of one layer's outputs, and of the channels along its inputs' axis."""

    outputs: Mask
    inputs: Mask


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
            if changed & {*node.input, *constants.captured(node)}:
                changed |= set(node.output)
    found: dict[str, Stays] = {}
    for name, layer in layers.find(model).items():
        read = name if only_readers else layer.node.input[0]
        if read in changed:
            first, second = (_mask(channels, kept, layer, axis) for axis in (0, 1))
            turned = layer.form.window is not None or layer.form.turned
            found[name] = Stays(first, second) if turned else Stays(second, first)
    return found


def _mask(channels: ChannelMap, kept: NDArray[Any], layer: layers.Layer, axis: int) -> Mask:
    for use in channels.trace.uses:
        if use.initializer == layer.node.input[1] and use.axis == axis:
            found: Mask = kept[use.channels.atoms]
            return found
    return np.ones(layer.form.shape[axis], bool)
