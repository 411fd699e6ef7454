"""Layers that sum products: convolutions of one to three axes, and products of matrices."""

from typing import Any

import torch
from torch.nn import functional

from compression.recovery.nodes import Node, Operator, UnknownError, Values, given
from compression.recovery.operators import windows

_FORWARD = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _convolve(node: Node, x: Values) -> Any:
    kernel = list(x[1].shape[2:])
    strides, dilations = windows.settings(node, kernel)
    before, behind = windows.pads(node, x[0].shape[2:], kernel)
    held = x[0]
    if before != behind:
        held, before = windows.padded(held, before, behind), [0] * len(kernel)
    function = _FORWARD[len(kernel)]
    return function(held, x[1], given(x, 2), strides, before, dilations, node.get("group", 1))


def _spread(node: Node, x: Values) -> Any:
    """ConvTranspose: computed without padding, which then cuts the result."""
    kernel = list(x[1].shape[2:])
    if node.get("output_shape") is not None or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise UnknownError("ConvTranspose of a wanted shape")
    strides, dilations = windows.settings(node, kernel)
    more = list(node.get("output_padding") or [0] * len(kernel))
    held = list(node.get("pads") or [0] * 2 * len(kernel))
    before, behind = held[: len(kernel)], held[len(kernel) :]
    function, group = _TRANSPOSED[len(kernel)], node.get("group", 1)
    if before == behind:
        return function(x[0], x[1], given(x, 2), strides, before, more, group, dilations)
    whole = function(x[0], x[1], given(x, 2), strides, 0, more, group, dilations)
    return windows.padded(whole, [-cut for cut in before], [-cut for cut in behind])


def _gemm(node: Node, x: Values) -> Any:
    left = x[0].t() if node.get("transA", 0) else x[0]
    right = x[1].t() if node.get("transB", 0) else x[1]
    made = left @ right
    if node.get("alpha", 1.0) != 1.0:
        made = made * node.get("alpha")
    bias = given(x, 2)
    if bias is None:
        return made
    return made + (bias if node.get("beta", 1.0) == 1.0 else bias * node.get("beta"))


def _fused(node: Node, x: Values) -> Any:
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        raise UnknownError("FusedMatMul with batches moved")
    left = x[0].transpose(-1, -2) if node.get("transA", 0) else x[0]
    right = x[1].transpose(-1, -2) if node.get("transB", 0) else x[1]
    return node.get("alpha", 1.0) * (left @ right)


def _einsum(node: Node, x: Values) -> Any:
    return torch.einsum(node.get("equation").replace(" ", ""), *x)


OPERATORS: dict[str, Operator] = {
    "Conv": _convolve,
    "ConvTranspose": _spread,
    "Gemm": _gemm,
    "MatMul": lambda node, x: x[0] @ x[1],
    "com.microsoft.FusedMatMul": _fused,
    "Einsum": _einsum,
}
