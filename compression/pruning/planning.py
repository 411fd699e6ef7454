"""Which units of a model stay: an order for each group, and how many of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx
from onnx import numpy_helper

from compression.errors import BadModel
from compression.pruning import (
    allocating,
    fading,
    layers,
    ordering,
    readers,
    sensitivity,
    weighing,
)
from compression.pruning.groups import ChannelMap, Group
from compression.pruning.ordering import Order
from compression.pruning.parts import Parts
from compression.pruning.readers import Seen

By = Literal["activations", "magnitude"]
Keep = dict[str, tuple[int, ...]]
UNITS_PER_ROW = 16
"""Of a group with more, what its readers see says too little to choose by."""


@dataclass(frozen=True)
class Study:
    """By group: in which order its units go, and what is lost at each of `sensitivity.LEVELS`.

    Nothing is lost that anybody knows of where there were no samples to see it, or nobody asked.
    `whole` says of groups that the samples say too little of why these stay as they are.
    `expected` is what is lost at each of `fading.LEVELS` once the layers behind are fitted anew, by
    each of `fading.FADES`.
    """

    orders: Mapping[str, Order]
    losses: Mapping[str, Sequence[float]]
    whole: Mapping[str, str]
    expected: Mapping[float, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def study(
    model: onnx.ModelProto,
    channels: ChannelMap,
    *,
    by: By,
    parts: Parts | None = None,
    sensitive: bool = True,
) -> Study:
    """Order the units of every group, and see what cutting each alone loses.

    Groups of which no reader says anything (their inputs never change, or are not finite) are
    ordered by magnitude, and so are all without `parts`. `sensitive` False: only the orders and
    what is expected of them.

    Raises:
        BadModel: there is nothing to cut, or the model does not run.
    """
    if not channels.groups:
        reasons = sorted({one.reason for one in channels.frozen})
        why = f": what makes them {'; '.join(reasons[:3])}" if reasons else ""
        raise BadModel(f"cannot cut channels: the model has no groups of them{why}")
    seen: Mapping[str, list[Seen]] = {group.id: [] for group in channels.groups}
    if parts is not None and (sensitive or by == "activations"):
        seen = readers.find(model, channels, parts)
    found = _by_activations(model, channels, seen) if by == "activations" else {}
    orders = {
        group.id: found.get(group.id) or ordering.by_magnitude(group, _weights(model, group))
        for group in channels.groups
    }
    if parts is None:
        return Study(orders, {}, {})
    whole: dict[str, str] = {}
    if by == "activations":
        lacking = {group.id: _lacking(group, seen[group.id], parts) for group in channels.groups}
        whole = {name: why for name, why in lacking.items() if why}
    expected = {
        fade: fading.losses(model, channels, orders, fade=fade, without=whole)
        for fade in fading.FADES
    }
    if not sensitive:
        return Study(orders, {}, whole, expected)
    judge = sensitivity.Judge(model, parts)
    groups = [group for group in channels.groups if group.id not in whole]
    losses = sensitivity.measure(model, channels, groups, orders, seen, judge=judge)
    return Study(orders, losses, whole, expected)


def _by_activations(
    model: onnx.ModelProto, channels: ChannelMap, seen: Mapping[str, Sequence[Seen]]
) -> dict[str, Order | None]:
    """The order of each group by what its readers see; None where none of them says anything."""
    shifting = {name for name, one in layers.find(model).items() if one.can_shift}
    known = weighing.makers(channels, seen, shifting=shifting)
    found: dict[str, Order | None] = {}
    for group in channels.groups:
        tables = [
            weighing.weighed(one, one.reader(shifts=one.slot.node in shifting), known)
            for one in seen[group.id]
        ]
        found[group.id] = ordering.by_activations(group.width, tables)
    return found


def _lacking(group: Group, seen: Sequence[Seen], parts: Parts) -> str:
    """Why the samples say too little of a group's units."""
    rows = min((one.rows for one in seen), default=group.width)
    least = math.ceil(group.width / UNITS_PER_ROW)
    if rows >= least:
        return ""
    needed = math.ceil(len(parts.judges) * least / max(1, rows))
    return (
        f"cannot choose among {group.width} units of {group.id!r} by {len(parts.judges)} "
        f"calibration inputs: at least {needed} are needed"
    )


def _weights(model: onnx.ModelProto, group: Group) -> dict[str, ordering.Array]:
    names = {slot.initializer for slot in group.producers}
    held = model.graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in held if one.name in names}


def for_share(
    channels: ChannelMap, found: Study, *, macs: float, fade: float = fading.FADE
) -> Keep:
    """Return the units that stay of each group that is cut, so that `macs` of the products do.

    Where nothing is known of losses, cuts cost as many multiplications as they save.

    Raises:
        BadModel: so little cannot be left.
    """
    losses = found.expected.get(fade) or {
        group.id: [level * group.macs_per_unit * group.width for level in fading.LEVELS]
        for group in channels.groups
        if group.id not in found.whole
    }
    try:
        widths = allocating.widths(channels, losses, fading.LEVELS, macs=macs)
    except BadModel as error:
        raise BadModel("; ".join([str(error), *found.whole.values()])) from None
    return {name: found.orders[name].kept(count) for name, count in widths.items()}


def for_widths(
    channels: ChannelMap, found: Study, given: Mapping[str, int | tuple[int, ...]]
) -> Keep:
    """Return the units that stay where the groups in `given` keep so many, or just these.

    Raises:
        BadModel: no such group, or it cannot keep so many.
    """
    widths = {group.id: group.width for group in channels.groups}
    kept: Keep = {}
    for name, wish in given.items():
        if name not in widths:
            raise BadModel(f"cannot cut channels: no group {name!r} (it has {len(widths)} groups)")
        if isinstance(wish, int) and not 0 < wish <= widths[name]:
            raise BadModel(f"cannot keep {wish} units of {name!r}: it has {widths[name]}")
        if isinstance(wish, int) and name in found.whole:
            raise BadModel(found.whole[name])
        units = found.orders[name].kept(wish) if isinstance(wish, int) else wish
        if len(set(units)) < widths[name]:
            kept[name] = tuple(units)
    if not kept:
        raise BadModel(f"cannot cut channels: every unit is kept (it has {len(widths)} groups)")
    return kept
