"""Which layers read something else once a graph is cut, and which of their outputs stay."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.pruning import layers, surgery
from compression.pruning.groups import ChannelMap
from compression.regular import constants

Mask = NDArray[np.bool_]


def outputs(
    model: onnx.ModelProto,
    channels: ChannelMap,
    keep: Mapping[str, Collection[int]],
    *,
    only_readers: bool = False,
) -> dict[str, Mask]:
    """Return of each layer behind the cut, by what it makes, the outputs that stay, bool [outputs].

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
    found: dict[str, Mask] = {}
    for name, layer in layers.find(model).items():
        read = name if only_readers else layer.node.input[0]
        if read in changed:
            found[name] = _mask(channels, kept, layer)
    return found


def _mask(channels: ChannelMap, kept: NDArray[Any], layer: layers.Layer) -> Mask:
    axis = 0 if layer.form.window or layer.form.turned else 1
    for use in channels.trace.uses:
        if use.initializer == layer.node.input[1] and use.axis == axis:
            found: Mask = kept[use.channels.atoms]
            return found
    return np.ones(layer.form.outputs, bool)
