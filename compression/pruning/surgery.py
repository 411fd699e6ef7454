"""Takes channels out of a graph: weights, counts and shapes shrink, constants go into biases."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.errors import BadModel
from compression.pruning import mending
from compression.pruning.groups import UNITS, ChannelMap
from compression.regular import constants

Array = NDArray[Any]


def kept_atoms(channels: ChannelMap, keep: Mapping[str, Collection[int]]) -> Array:
    """Which atoms stay, bool [atoms]. `keep` names units by group; other groups stay whole.

    Raises:
        BadModel: no such group or unit, or none of a group is kept.
    """
    unit_of = channels.unit_of
    kept = np.ones(len(unit_of), bool)
    numbers = {group.id: at for at, group in enumerate(channels.groups)}
    for name, units in keep.items():
        if name not in numbers:
            raise BadModel(f"cannot cut {name!r}: it is none of the {len(numbers)} groups")
        width = channels.groups[numbers[name]].width
        wrong = [unit for unit in units if not 0 <= unit < width]
        if wrong or not units:
            what = f"units {wrong[:5]}" if wrong else "nothing"
            raise BadModel(f"cannot keep {what} of {name!r}: it has units 0 to {width - 1}")
        mine = unit_of // UNITS == numbers[name]
        kept[mine] = np.isin(unit_of[mine] % UNITS, list(units))
    return kept


def cut(
    model: onnx.ModelProto, channels: ChannelMap, keep: Mapping[str, Collection[int]]
) -> onnx.ModelProto:
    """Return a new model with only the units in `keep` of each group named there.

    `channels` must be of this very model. The result computes what the model computes where
    every parameter that makes the other units, or belongs to them, is zero; and where nodes that
    read what is still not zero then and is no constant (`Leak.folds`) read zero.

    Raises:
        BadModel: as `kept_atoms`.
    """
    kept = kept_atoms(channels, keep)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    _shrink(changed, channels, kept)
    mending.mend(changed, channels.trace, kept)
    constants.tidy(changed, metadata=list(model.metadata_props))
    return changed


def _shrink(changed: onnx.ModelProto, channels: ChannelMap, kept: Array) -> None:
    """Take the channels out of every initializer."""
    stays: defaultdict[str, dict[int, Array]] = defaultdict(dict)
    for use in channels.trace.uses:
        mask = kept[use.channels.atoms]
        if not mask.all():
            stays[use.initializer][use.axis] = mask
    for tensor in changed.graph.initializer:
        if tensor.name in stays:
            array = numpy_helper.to_array(tensor)
            for axis, mask in stays[tensor.name].items():
                array = np.compress(mask, array, axis=axis)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
