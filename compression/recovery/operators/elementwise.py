"""Operators that compute each value on its own, or with those at the same place."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch.nn import functional

from compression.recovery.nodes import DTYPES, Node, Operator, UnknownError, Values, given

_NEAR = 1e-6
_LEAST, _MOST = -3.4028234663852886e38, 3.4028234663852886e38


def _one(function: Callable[[Any], Any]) -> Operator:
    return lambda node, x: function(x[0])


def _two(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda node, x: function(x[0], x[1])


def _all(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda node, x: reduce(function, x)


def _divide(node: Node, x: Values) -> Any:
    if x[0].is_floating_point():
        return x[0] / x[1]
    # ONNX: integers are divided towards zero.
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _power(node: Node, x: Values) -> Any:
    return torch.pow(x[0], x[1]).to(x[0].dtype)


def _modulo(node: Node, x: Values) -> Any:
    return torch.fmod(x[0], x[1]) if node.get("fmod", 0) else torch.remainder(x[0], x[1])


def _cast(node: Node, x: Values) -> Any:
    if node.get("to") not in DTYPES:
        raise UnknownError(f"Cast to {node.get('to')}")
    return x[0].to(DTYPES[node.get("to")])


def _clip(node: Node, x: Values) -> Any:
    low, high = given(x, 1), given(x, 2)
    if not x[0].is_floating_point():
        return torch.clamp(x[0], low, high)
    low = node.get("min", _LEAST) if low is None else low
    high = node.get("max", _MOST) if high is None else high
    return torch.clamp(x[0], float(low), float(high))


def _hard_sigmoid(node: Node, x: Values) -> Any:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < _NEAR and beta == 0.5:  # half of the memory, a third of the time
        return functional.hardsigmoid(x[0])
    return (x[0] * alpha + beta).clamp(0, 1)


def _gelu(node: Node, x: Values) -> Any:
    return functional.gelu(x[0], approximate=node.get("approximate", "none"))


def _bias_gelu(node: Node, x: Values) -> Any:
    return functional.gelu(x[0] + x[1])


def _fast_gelu(node: Node, x: Values) -> Any:
    return functional.gelu(x[0] if given(x, 1) is None else x[0] + x[1], approximate="tanh")


def _quick_gelu(node: Node, x: Values) -> Any:
    return x[0] * torch.sigmoid(x[0] * node.get("alpha", 1.702))


def _swish(node: Node, x: Values) -> Any:
    return x[0] * torch.sigmoid(x[0] * node.get("alpha", 1.0))


def _selu(node: Node, x: Values) -> Any:
    alpha = node.get("alpha", 1.6732632423543772)
    grown = alpha * torch.expm1(x[0].clamp(max=0))
    return node.get("gamma", 1.0507009873554805) * torch.where(x[0] > 0, x[0], grown)


def _prelu(node: Node, x: Values) -> Any:
    return torch.where(x[0] >= 0, x[0], x[0] * x[1])


def _thresholded(node: Node, x: Values) -> Any:
    return torch.where(x[0] > node.get("alpha", 1.0), x[0], torch.zeros_like(x[0]))


OPERATORS: dict[str, Operator] = {
    "Add": _two(torch.add), "Sub": _two(torch.sub), "Mul": _two(torch.mul), "Div": _divide,
    "Pow": _power, "Mod": _modulo, "Min": _all(torch.minimum), "Max": _all(torch.maximum),
    "Sum": _all(torch.add), "Mean": lambda node, x: reduce(torch.add, x) / len(x),
    "Abs": _one(torch.abs), "Neg": _one(torch.neg), "Sign": _one(torch.sign),
    "Sqrt": _one(torch.sqrt), "Reciprocal": _one(torch.reciprocal), "Exp": _one(torch.exp),
    "Log": _one(torch.log), "Erf": _one(torch.erf), "Sin": _one(torch.sin), "Cos": _one(torch.cos),
    "Floor": _one(torch.floor), "Ceil": _one(torch.ceil), "Round": _one(torch.round),
    "Equal": _two(torch.eq), "Less": _two(torch.lt), "Greater": _two(torch.gt),
    "LessOrEqual": _two(torch.le), "GreaterOrEqual": _two(torch.ge),
    "And": _two(torch.logical_and), "Or": _two(torch.logical_or), "Xor": _two(torch.logical_xor),
    "Not": _one(torch.logical_not), "IsNaN": _one(torch.isnan),
    "Where": lambda node, x: torch.where(x[0], x[1], x[2]),
    "Cast": _cast, "CastLike": lambda node, x: x[0].to(x[1].dtype),
    "Identity": _one(lambda x: x), "Dropout": _one(lambda x: x),
    "Clip": _clip, "Relu": _one(torch.relu), "Sigmoid": _one(torch.sigmoid),
    "Tanh": _one(torch.tanh), "HardSigmoid": _hard_sigmoid,
    "HardSwish": _one(functional.hardswish),
    "LeakyRelu": lambda node, x: functional.leaky_relu(x[0], node.get("alpha", 0.01)),
    "Elu": lambda node, x: functional.elu(x[0], node.get("alpha", 1.0)), "Selu": _selu,
    "PRelu": _prelu, "ThresholdedRelu": _thresholded, "Softplus": _one(functional.softplus),
    "Softsign": _one(functional.softsign), "Mish": _one(functional.mish), "Swish": _swish,
    "Gelu": _gelu, "com.microsoft.Gelu": _gelu, "com.microsoft.FastGelu": _fast_gelu,
    "com.microsoft.QuickGelu": _quick_gelu, "com.microsoft.BiasGelu": _bias_gelu,
}  # fmt: skip
