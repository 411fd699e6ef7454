"""Operators that make one value of many along some axes."""

from collections.abc import Callable
from typing import Any

import torch

from compression.recovery.nodes import Node, Operator, UnknownError, Values, numbers, setting


def _reduced(function: Callable[..., Any]) -> Operator:
    """`function(x, axes, keepdim=...)` over the axes that the node names, or all."""

    def made(node: Node, x: Values) -> Any:
        axes = setting(node, x, "axes", 1)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return x[0]
            axes = list(range(x[0].dim()))
        return function(x[0], tuple(axes), keepdim=bool(node.get("keepdims", 1)))

    return made


def _product(x: Any, axes: tuple[int, ...], *, keepdim: bool) -> Any:
    for axis in sorted((axis % max(1, x.dim()) for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _best(function: Callable[..., Any]) -> Operator:
    def made(node: Node, x: Values) -> Any:
        if node.get("select_last_index", 0):
            raise UnknownError(f"{node.operator} that takes the last of equals")
        return function(x[0], node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return made


def _running_sum(node: Node, x: Values) -> Any:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise UnknownError("CumSum backwards or exclusive")
    (axis,) = numbers(x, 1) or [0]
    return torch.cumsum(x[0], int(axis)).to(x[0].dtype)


def _top(node: Node, x: Values) -> Any:
    (count,) = numbers(x, 1) or [0]
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    # onnxruntime gives the first of equals, and so does a stable sort.
    values, places = torch.sort(x[0], dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, int(count)), places.narrow(axis, 0, int(count))


def _squares(x: Any, axes: tuple[int, ...], *, keepdim: bool) -> Any:
    return (x**2).sum(axes, keepdim=keepdim)


def _logarithm(x: Any, axes: tuple[int, ...], *, keepdim: bool) -> Any:
    return torch.log(x.sum(axes, keepdim=keepdim))


OPERATORS: dict[str, Operator] = {
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).to(x.dtype)),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceL1": _reduced(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)),
    "ReduceL2": _reduced(lambda x, axes, keepdim: _squares(x, axes, keepdim=keepdim).sqrt()),
    "ReduceSumSquare": _reduced(_squares),
    "ReduceLogSum": _reduced(_logarithm),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "ArgMax": _best(torch.argmax),
    "ArgMin": _best(torch.argmin),
    "CumSum": _running_sum,
    "TopK": _top,
}
