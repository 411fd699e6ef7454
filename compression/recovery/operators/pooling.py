"""Pools: over windows and over all places."""

from typing import Any

import torch
from torch.nn import functional

from compression.recovery.nodes import Node, Operator, UnknownError, Values
from compression.recovery.operators import windows

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _placed(node: Node, x: Any) -> tuple[windows.Pads, list[int]]:
    """Padding of the windows; and what more is behind, where the last ones may reach out."""
    kernel = list(node.get("kernel_shape"))
    before, behind = windows.pads(node, x.shape[2:], kernel)
    more = [0] * len(kernel)
    if node.get("ceil_mode", 0):
        strides, dilations = windows.settings(node, kernel)
        for at, window in enumerate(kernel):
            length = x.shape[2 + at] + before[at] + behind[at]
            left = (length - (window - 1) * dilations[at] - 1) % strides[at]
            starts = length - left - (window - 1) * dilations[at] - 1 + strides[at]
            # A window that began in the padding behind would hold nothing.
            if left and starts < x.shape[2 + at] + before[at]:
                more[at] = strides[at] - left
    return (before, behind), more


def _largest(node: Node, x: Values) -> Any:
    if len(node.outputs) > 1:
        raise UnknownError("MaxPool with indices")
    (before, behind), more = _placed(node, x[0])
    kernel = list(node.get("kernel_shape"))
    strides, dilations = windows.settings(node, kernel)
    reached = [first + then for first, then in zip(behind, more, strict=True)]
    held = windows.padded(x[0], before, reached, value=-torch.inf)
    return _MAX[len(kernel)](held, kernel, strides, 0, dilations)


def _mean(node: Node, x: Values) -> Any:
    """The mean over what counts: padding does only where the node says so."""
    kernel = list(node.get("kernel_shape"))
    strides, dilations = windows.settings(node, kernel)
    if any(one != 1 for one in dilations):
        raise UnknownError("AveragePool with dilations")
    (before, behind), more = _placed(node, x[0])
    nothing = [0] * len(kernel)
    pool = _MEAN[len(kernel)]
    held = windows.padded(windows.padded(x[0], before, behind), nothing, more)
    found = pool(held, kernel, strides)
    inside = float(bool(node.get("count_include_pad", 0)))
    if not any(more) and (inside or not any(before + behind)):
        return found
    ones = torch.ones_like(x[0][:1, :1])
    counted = windows.padded(windows.padded(ones, before, behind, value=inside), nothing, more)
    return found / pool(counted, kernel, strides)


def _spatial(x: Any) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


OPERATORS: dict[str, Operator] = {
    "MaxPool": _largest,
    "AveragePool": _mean,
    "GlobalAveragePool": lambda node, x: x[0].mean(_spatial(x[0]), keepdim=True),
    "GlobalMaxPool": lambda node, x: x[0].amax(_spatial(x[0]), keepdim=True),
}
