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
KINDS = frozenset({torch.float32, *_LIMITS})
"""Of scales and zero points."""


class _Rounding(torch.autograd.Function):  # type: ignore[misc]  # no types: torch may be missing
    @staticmethod
    def forward(_ctx: Any, x: Any) -> Any:
        return torch.round(x)

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _Quantizing(torch.autograd.Function):  # type: ignore[misc]  # no types, too
    """One pass over memory where autograd's own pieces take seven, and keep four of them."""

    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any, shift: Any, bounds: tuple[int, int]) -> Any:
        ctx.save_for_backward(x, scale, shift)
        ctx.bounds = bounds
        return torch.div(x, scale).round_().add_(shift).clamp_(*bounds)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, scale, shift = ctx.saved_tensors
        low, high = ctx.bounds
        v = torch.div(x, scale)
        q = v.round().add_(shift)
        g = gradients[0] * ((q >= low) & (q <= high))
        g.div_(scale)
        of_scale = _summed(v.mul_(g).neg_(), scale) if ctx.needs_input_grad[1] else None
        return g, of_scale, None, None


class _Crossing(torch.autograd.Function):  # type: ignore[misc]  # no types, too
    """To integers and back at once: one pass over memory for seven, and four for sixteen."""

    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any, zero: int, bounds: tuple[int, int]) -> Any:
        across = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask
        y, within = across(x, float(scale), zero, *bounds)
        ctx.save_for_backward(x, y, within, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, y, within, scale = ctx.saved_tensors
        g = gradients[0].contiguous()
        of_x = g * within
        of_scale = None
        if ctx.needs_input_grad[1]:
            # Esser et al. 2020, eq. 3: (y - x) / s within the bounds, y / s beyond.
            of_scale = (_product(g, y) - _product(of_x, x)) / scale
        return of_x, of_scale, None, None


class _Dequantizing(torch.autograd.Function):  # type: ignore[misc]  # no types, too
    """`kind` is what the numbers fit into that are kept."""

    @staticmethod
    def forward(ctx: Any, q: Any, scale: Any, shift: Any, kind: torch.dtype) -> Any:
        ctx.save_for_backward(q.to(kind), scale, shift)
        return torch.sub(q, shift).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        q, scale, shift = ctx.saved_tensors
        g = gradients[0]
        of_q = g * scale if ctx.needs_input_grad[0] else None
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = _summed((q.to(torch.float32) - shift).mul_(g), scale)
        return of_q, of_scale, None, None


def _product(a: Any, b: Any) -> Any:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _summed(values: Any, scale: Any) -> Any:
    """A gradient in the shape of a scale that met the values' own."""
    return values.sum_to_size(scale.shape) if scale.dim() else values.sum()


def straight_through(x: Any) -> Any:
    """Round half to even; the gradient passes as if nothing had happened."""
    return _Rounding.apply(x)


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


def _shift(zero: Any, node: Node, rank: int) -> Any:
    """The zero point as float, so that it meets its axis; 0 where there is none."""
    return torch.zeros(()) if zero is None else _spread(zero, node, rank).to(torch.float32)


def _quantize(node: Node, x: Values) -> Any:
    zero, rank = given(x, 2), x[0].dim()
    bounds = _plain(node, zero)
    scale, shift = _spread(x[1], node, rank), _shift(zero, node, rank)
    return _Quantizing.apply(x[0], scale, shift, bounds)


def crossed(node: Node, x: Values) -> Any:
    """What a QuantizeLinear and a DequantizeLinear of the same one scale make together."""
    zero, bounds = given(x, 2), _plain(node, given(x, 2))
    return _Crossing.apply(x[0], x[1].reshape(()), 0 if zero is None else int(zero), bounds)


def _dequantize(node: Node, x: Values) -> Any:
    zero, rank = given(x, 2), x[0].dim()
    if node.get("block_size", 0):
        raise UnknownError("DequantizeLinear in blocks")
    # Biases learn between the steps of their grid; all else are whole numbers.
    whole = zero is not None and zero.dtype in {torch.uint8, torch.int8}
    kind = zero.dtype if whole else torch.float32
    held = x[0] if x[0].is_floating_point() else x[0].to(torch.float32)
    scale, shift = _spread(x[1], node, rank), _shift(zero, node, rank)
    return _Dequantizing.apply(held, scale, shift, kind)


OPERATORS: dict[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
