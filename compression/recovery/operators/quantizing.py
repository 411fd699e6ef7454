"""QuantizeLinear and DequantizeLinear as fake quantization: integers held as floats.

Rounding passes its gradient straight through (Bengio et al. 2013, "Estimating or propagating
gradients through stochastic neurons"); what is clipped passes none. Written so, the gradient of a
scale is that of learned step sizes (Esser et al. 2020, "Learned step size quantization", eq. 3).
"""

from typing import Any

import torch

from compression.recovery.nodes import Node, Operator, UnknownError, Values, given

_LIMITS = {
    torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1),
}  # fmt: skip


def straight_through(x: Any) -> Any:
    """Round half to even; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()


def _spread(held: Any, node: Node, rank: int) -> Any:
    """A scale or zero point so that it meets its axis; one for the whole tensor as it is."""
    if held.numel() == 1:
        return held.reshape(())
    axis = node.get("axis", 1) % rank
    return held.reshape([-1 if at == axis else 1 for at in range(rank)])


def _plain(node: Node, zero: Any) -> tuple[int, int]:
    kind = torch.uint8 if zero is None else zero.dtype
    if node.get("block_size", 0) or kind not in _LIMITS or node.get("output_dtype", 0):
        raise UnknownError(f"{node.operator} in blocks or to {kind}")
    return _LIMITS[kind]


def _quantize(node: Node, x: Values) -> Any:
    zero = given(x, 2)
    low, high = _plain(node, zero)
    scale = _spread(x[1], node, x[0].dim())
    shift = 0.0 if zero is None else _spread(zero, node, x[0].dim()).to(torch.float32)
    return (straight_through(x[0] / scale) + shift).clamp(low, high)


def _dequantize(node: Node, x: Values) -> Any:
    zero = given(x, 2)
    if node.get("block_size", 0):
        raise UnknownError("DequantizeLinear in blocks")
    held = x[0] if x[0].is_floating_point() else x[0].to(torch.float32)
    if zero is not None:
        held = held - _spread(zero, node, held.dim()).to(torch.float32)
    return held * _spread(x[1], node, held.dim())


OPERATORS: dict[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
