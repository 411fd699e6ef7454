"""Cuts whole channels, heads and neurons out of a model: what is left is smaller and as regular.

The units that stay are given by name of their group (compression/channels.py); this pass does
not choose them. What it computes is said at `surgery.cut`.
"""

import onnx

from compression import channels
from compression.errors import BadModel
from compression.pruning import surgery
from compression.words import Words


class Settings(Words):
    """The parameters of this pass."""

    keep: dict[str, tuple[int, ...]]
    """By group, the units that stay. Groups that are not named stay whole."""


def apply(
    model: onnx.ModelProto, settings: Settings, *, sample: channels.Arrays | None = None
) -> onnx.ModelProto:
    """Return a new model without the channels that no kept unit has; names stay.

    `sample` is one run's inputs by name; without it random ones are made.

    Raises:
        BadModel: an unknown group or unit, nothing kept of a group, or nothing to cut.
    """
    found = channels.find(model, sample=sample)
    cut = {
        group.id: settings.keep[group.id]
        for group in found.groups
        if len(set(settings.keep.get(group.id, range(group.width)))) < group.width
    }
    unknown = sorted(set(settings.keep) - {group.id for group in found.groups})
    if unknown or not cut:
        what = f"no group {unknown[0]!r}" if unknown else "every unit is kept"
        raise BadModel(f"cannot cut channels: {what} (it has {len(found.groups)} groups)")
    return surgery.cut(model, found, cut)
