"""What a cut loses in the end: what its readers lose, less the more layers lie behind (pure).

The order of units counts what the readers of a group lose once they make up for it. Layers behind
are fitted anew to what the original makes, and undo a part of it, each some more. Measured where
one group alone is cut, before anything is fitted, losses of early groups look too large. How much
each undoes is the model's own: there is a forecast for each of `FADES`.
"""

from collections.abc import Collection, Mapping

import onnx

from compression.pruning import layers, stages
from compression.pruning.groups import ChannelMap
from compression.pruning.ordering import Order

FADE = 0.93
"""What is left of a loss behind one more layer that is fitted anew, at best."""
FADES = (FADE, 1.0)
LEVELS = tuple(at / 16 for at in range(1, 15))
"""Shares of a group that are cut."""


def losses(
    model: onnx.ModelProto,
    channels: ChannelMap,
    orders: Mapping[str, Order],
    *,
    fade: float = FADE,
    without: Collection[str] = (),
) -> dict[str, tuple[float, ...]]:
    """Return what is lost at each of `LEVELS`, by group; those in `without` are left out."""
    behind = _behind(model)
    found: dict[str, tuple[float, ...]] = {}
    for group in channels.groups:
        if group.id in without:
            continue
        lost = orders[group.id].lost  # the mean over its readers
        left = sum(fade ** behind[slot.node] for slot in group.consumers) or 1.0
        gone = [max(1, round(group.width * level)) for level in LEVELS]
        found[group.id] = tuple(left * float(lost[count - 1]) for count in gone)
    return found


def _behind(model: onnx.ModelProto) -> dict[str, int]:
    """How many layers lie behind what makes a tensor, one after the other, at most."""
    fitted = layers.find(model)
    depth = stages.depths(model, fitted)
    at = {name: d for node, d in zip(model.graph.node, depth, strict=True) for name in node.output}
    last = max((at[name] for name in fitted), default=0)
    return {name: max(0, last - d) for name, d in at.items()}
