"""Normalizations, and the softmax. BatchNormalization keeps what it remembers of its training."""

from typing import Any

import torch
from torch.nn import functional

from compression.recovery.nodes import Node, Operator, UnknownError, Values, given

_SOFTMAX_BY_AXIS = 13
_SCALE_PER_CHANNEL = 21


def _batch(node: Node, x: Values) -> Any:
    """As deployed: with the stored mean and variance, which no training moves."""
    if node.get("training_mode", 0) or len(node.outputs) > 1:
        raise UnknownError("BatchNormalization in training")
    scale, bias, mean, variance = x[1:5]
    return functional.batch_norm(
        x[0], mean.detach(), variance.detach(), scale, bias, eps=node.get("epsilon", 1e-5)
    )


def _instance(node: Node, x: Values) -> Any:
    return functional.instance_norm(x[0], weight=x[1], bias=x[2], eps=node.get("epsilon", 1e-5))


def _layer(node: Node, x: Values) -> Any:
    if len(node.outputs) > 1:
        raise UnknownError("LayerNormalization with its statistics")
    axes = tuple(range(node.get("axis", -1) % x[0].dim(), x[0].dim()))
    bias = given(x, 2)
    shape = [x[0].shape[axis] for axis in axes]
    if list(x[1].shape) == shape and (bias is None or list(bias.shape) == shape):
        return functional.layer_norm(x[0], shape, x[1], bias, node.get("epsilon", 1e-5))
    centred = x[0] - x[0].mean(axes, keepdim=True)
    variance = (centred**2).mean(axes, keepdim=True)
    made = centred * torch.rsqrt(variance + node.get("epsilon", 1e-5)) * x[1]
    return made if bias is None else made + bias


def _root(node: Node, x: Values) -> Any:
    axes = tuple(range(node.get("axis", -1) % x[0].dim(), x[0].dim()))
    power = (x[0] ** 2).mean(axes, keepdim=True)
    return x[0] * torch.rsqrt(power + node.get("epsilon", 1e-5)) * x[1]


def _group(node: Node, x: Values) -> Any:
    groups = node.get("num_groups")
    scale, bias = x[1], x[2]
    if node.opset < _SCALE_PER_CHANNEL:  # one scale a group, then
        each = x[0].shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x[0], groups, scale, bias, node.get("epsilon", 1e-5))


def _local(node: Node, x: Values) -> Any:
    if node.get("size") % 2 == 0:
        raise UnknownError("LRN over an even number of channels")
    return functional.local_response_norm(
        x[0], node.get("size"), node.get("alpha", 1e-4), node.get("beta", 0.75),
        node.get("bias", 1.0),
    )  # fmt: skip


def _to_length_one(node: Node, x: Values) -> Any:
    norm = torch.linalg.vector_norm(x[0], node.get("p", 2), node.get("axis", -1), keepdim=True)
    return x[0] / norm


def _over_axis(function: Any) -> Operator:
    """Softmax by axis; before operator set 13 over all from that axis on."""

    def made(node: Node, x: Values) -> Any:
        if node.opset >= _SOFTMAX_BY_AXIS:
            return function(x[0], node.get("axis", -1))
        axis = node.get("axis", 1) % x[0].dim()
        return function(x[0].flatten(axis), -1).reshape(x[0].shape)

    return made


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "RMSNormalization": _root,
    "GroupNormalization": _group,
    "LRN": _local,
    "LpNormalization": _to_length_one,
    "Softmax": _over_axis(torch.softmax),
    "LogSoftmax": _over_axis(torch.log_softmax),
}
