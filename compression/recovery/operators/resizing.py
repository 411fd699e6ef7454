"""Resize axis by axis: each place of the result is a weighted sum of places of the input.

The coordinates are those of the ONNX specification of Resize-19, section "coordinate
transformation mode"; cubic weights are Keys's (1981) with the node's own coefficient.
"""

from collections.abc import Callable
from typing import Any

import torch

from compression.recovery.nodes import Node, Operator, UnknownError, Values, numbers

Coordinates = Callable[[Any, float, int, int], Any]
COORDINATES: dict[str, Coordinates] = {
    "asymmetric": lambda at, scale, size, to: at / scale,
    "half_pixel": lambda at, scale, size, to: (at + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda at, scale, size, to: (
        size / 2 * (1 - to / (scale * size)) + (at + 0.5) / scale - 0.5
    ),
    "pytorch_half_pixel": lambda at, scale, size, to: (
        (at + 0.5) / scale - 0.5 if to > 1 else at * 0
    ),
    "align_corners": lambda at, scale, size, to: at * ((size - 1) / (to - 1)) if to > 1 else at * 0,
}
NEAREST: dict[str, Callable[[Any], Any]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _resize(node: Node, x: Values) -> Any:
    if node.get("antialias", 0) or node.get("axes") is not None:
        raise UnknownError("Resize with antialias or axes")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnknownError("Resize that keeps the aspect ratio")
    how = node.get("coordinate_transformation_mode", "half_pixel")
    if node.operator == "Upsample":
        how, scales, sizes = "asymmetric", numbers(x, 1), None
    else:
        scales, sizes = numbers(x, 2), numbers(x, 3)
    if how not in COORDINATES:
        raise UnknownError(f"Resize by {how}")
    found = x[0]
    for axis, size in enumerate(x[0].shape):
        scale = sizes[axis] / size if sizes else (scales or [])[axis]
        to = int(sizes[axis]) if sizes else int(size * scale)
        if (to, scale) != (size, 1.0):
            places = torch.arange(to, dtype=torch.float32)
            found = _along(node, found, axis, COORDINATES[how](places, scale, size, to))
    return found


def _along(node: Node, x: Any, axis: int, at: Any) -> Any:
    """The values of one axis at the coordinates `at`."""
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        default = "floor" if node.operator == "Upsample" else "round_prefer_floor"
        places = NEAREST[node.get("nearest_mode", default)](at)
        return _taken(x, axis, places)
    first = torch.floor(at)
    part = at - first
    if mode == "linear":
        weights = {0: 1 - part, 1: part}
    elif mode == "cubic" and not node.get("exclude_outside", 0):
        weights = _cubic(part, node.get("cubic_coeff_a", -0.75))
    else:
        raise UnknownError(f"Resize in mode {mode}")
    shape = [-1 if one == axis else 1 for one in range(x.dim())]
    return sum(
        _taken(x, axis, first + offset) * weight.reshape(shape)
        for offset, weight in weights.items()
    )


def _taken(x: Any, axis: int, places: Any) -> Any:
    return x.index_select(axis, places.clamp(0, x.shape[axis] - 1).to(torch.int64))


def _cubic(part: Any, a: float) -> dict[int, Any]:
    def near(t: Any) -> Any:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1

    def far(t: Any) -> Any:
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    return {-1: far(part + 1), 0: near(part), 1: near(1 - part), 2: far(2 - part)}


OPERATORS: dict[str, Operator] = {"Resize": _resize, "Upsample": _resize}
