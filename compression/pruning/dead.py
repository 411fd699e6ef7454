"""Which channels are as good as dead: what makes them, or all that read them, is next to nothing.

Small is against the largest weight of the same constant. A channel that is made of nothing but its
bias is not dead: it is a constant that others add up.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.pruning.groups import ChannelMap, Group, Slot

Array = NDArray[Any]
Keep = dict[str, tuple[int, ...]]
_MADE, _READ = frozenset({"makes", "follows"}), frozenset({"reads"})


def keep(model: onnx.ModelProto, channels: ChannelMap, *, below: float, multiple: int = 1) -> Keep:
    """Return the units that stay, of each group that loses some; of a group one always does.

    So many dead ones stay that what is left is a `multiple` of channels.
    """
    held = {one.name: one for one in model.graph.initializer}
    found: Keep = {}
    for group in channels.groups:
        names = {slot.initializer for slot in group.slots}
        weights = {name: numpy_helper.to_array(held[name]) for name in names if name in held}
        dead = _dead(group, weights, _MADE, below) | _dead(group, weights, _READ, below)
        step = max(1, multiple // group.unit_size)
        left = max(1, int((~dead).sum()))
        back = min(group.width, -(-left // step) * step) - int((~dead).sum())
        dead[np.flatnonzero(dead)[:back]] = False
        if dead.any():
            found[group.id] = tuple(np.flatnonzero(~dead).tolist())
    return found


def _dead(
    group: Group, weights: Mapping[str, Array], roles: frozenset[str], below: float
) -> NDArray[np.bool_]:
    """The units whose weights in these roles are all small, bool [width]."""
    found = np.ones(group.width, bool)
    slots = [slot for slot in group.slots if slot.role in roles]
    for slot in slots:
        value = weights.get(slot.initializer)
        if value is None or not np.issubdtype(value.dtype, np.floating):
            return np.zeros(group.width, bool)
        found &= _largest(slot, np.abs(value), group.width) <= below
    kinds = {slot.role for slot in slots}
    return found if kinds & {"makes", "reads"} else np.zeros(group.width, bool)


def _largest(slot: Slot, sizes: Array, width: int) -> NDArray[np.float64]:
    """The largest weight of each unit, in parts of the largest of all."""
    rows = np.moveaxis(sizes, slot.axis, 0).reshape(sizes.shape[slot.axis], -1).max(axis=1)
    mine = slot.units >= 0
    found = np.zeros(width)
    np.maximum.at(found, slot.units[mine], rows[mine])
    return found / max(float(sizes.max(initial=0.0)), 1e-30)
