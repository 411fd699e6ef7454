"""Where the windows of convolutions and pools lie: padding in all the ways that ONNX has."""

from collections.abc import Sequence
from typing import Any

from torch.nn import functional

from compression.recovery.nodes import Node, UnknownError

Pads = tuple[list[int], list[int]]


def settings(node: Node, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Strides and dilations, one for each spatial axis."""
    count = len(kernel)
    strides = list(node.get("strides") or [1] * count)
    return strides, list(node.get("dilations") or [1] * count)


def pads(node: Node, size: Sequence[int], kernel: Sequence[int]) -> Pads:
    """Padding before and behind each spatial axis of an input of that `size`."""
    count = len(kernel)
    how = node.get("auto_pad", "NOTSET")
    if how in {"NOTSET", ""}:
        held = list(node.get("pads") or [0] * 2 * count)
        return held[:count], held[count:]
    if how == "VALID":
        return [0] * count, [0] * count
    if how not in {"SAME_UPPER", "SAME_LOWER"}:
        raise UnknownError(f"auto_pad {how}")
    strides, dilations = settings(node, kernel)
    before, behind = [], []
    for length, window, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        reach = (window - 1) * dilation + 1
        lacking = max(0, (-(-length // stride) - 1) * stride + reach - length)
        less, more = lacking // 2, lacking - lacking // 2
        before.append(less if how == "SAME_UPPER" else more)
        behind.append(more if how == "SAME_UPPER" else less)
    return before, behind


def padded(x: Any, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Any:
    """Pad the last axes of a tensor; negative padding cuts."""
    if not any(before) and not any(behind):
        return x
    # torch wants the last axis first.
    flat = [count for pair in reversed(list(zip(before, behind, strict=True))) for count in pair]
    return functional.pad(x, flat, value=value)
