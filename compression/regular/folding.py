"""Folds what is constant into the weights: first by onnxruntime's own basic rules, then by ours.

What onnxruntime writes at this level are standard operators, so that the passes see the graph as
the runtime will see it. Ours add what it leaves: BatchNormalization after Gemm, Pad before several
Convs, Dropout and Identity wherever they stand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.regular import wiring

GROWTH = 1.25
"""How much larger folding may make a model, as a factor and beyond 64 KiB."""
_SMALL_BYTES = 2**16
Array = NDArray[Any]


def by_runtime(model_path: Path, target: Path) -> None:
    """Write the model as onnxruntime folds it; where constants swell, only small ones are folded.

    Raises:
        BadModel: onnxruntime does not load it.
    """
    before = model_path.stat().st_size
    _optimized(model_path, target, {})
    if target.stat().st_size > GROWTH * before + _SMALL_BYTES:
        limit = {"optimization.constant_folding_max_output_size_in_bytes": str(_SMALL_BYTES // 16)}
        _optimized(model_path, target, limit)


def _optimized(model_path: Path, target: Path, entries: dict[str, str]) -> None:
    options = runtime.options(optimization="basic")
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    # It moves zeros into MaxPool, which pads with the least value; ours does what is exact.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "Pad_Fusion")
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    runtime.session(model_path, options)


def by_rules(model: onnx.ModelProto) -> None:
    """Apply our own exact rules to a model with opset 11 or later, in place."""
    for rule in RULES:
        wires = wiring.Wires(model)
        for node in list(model.graph.node):
            if rule(wires, node):
                wires.drop(node)


def _identity(wires: wiring.Wires, node: onnx.NodeProto) -> bool:
    return node.op_type == "Identity" and node.domain == "" and wires.bypass(node)


def _dropout(wires: wiring.Wires, node: onnx.NodeProto) -> bool:
    """Dropout does nothing outside of training; a mask that somebody reads keeps it."""
    if node.op_type != "Dropout" or node.domain != "":
        return False
    mask = node.output[1] if len(node.output) > 1 else ""
    if mask and (wires.readers[mask] or mask in wires.fixed):
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    value = wires.constant(training)
    if training and (value is None or bool(value)):
        return False
    return wires.bypass(node)


def _pad(wires: wiring.Wires, node: onnx.NodeProto) -> bool:
    """A Pad of zeros along space becomes the padding of every Conv that reads it."""
    if node.op_type != "Pad" or node.domain != "" or node.output[0] in wires.fixed:
        return False
    pads = _zero_padding(wires, node)
    readers = wires.readers[node.output[0]]
    if pads is None or not readers:
        return False
    if not all(_takes_padding(reader, node.output[0], len(pads) // 2 - 2) for reader in readers):
        return False
    rank = len(pads) // 2
    space = [*pads[2:rank], *pads[rank + 2 :]]
    for reader in readers:
        own = wiring.attribute(reader, "pads") or [0] * len(space)
        wiring.put(reader, "pads", [a + b for a, b in zip(own, space, strict=True)])
    return wires.bypass(node)


def _zero_padding(wires: wiring.Wires, node: onnx.NodeProto) -> list[int] | None:
    """The pads of a Pad node, where they are constant, of zeros, and only along space."""
    value = wires.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0
    if (
        (wiring.attribute(node, "mode") or b"constant") != b"constant"
        or value is None
        or np.any(value)
    ):
        return None
    if len(node.input) > 3 and node.input[3]:
        return None  # axes: rare, and onnxruntime writes them out where it can
    array = wires.constant(node.input[1])
    if array is None or array.ndim != 1 or array.size < 6:
        return None
    pads = [int(one) for one in array]
    rank = len(pads) // 2
    if min(pads) < 0 or any(pads[at] for at in (0, 1, rank, rank + 1)):
        return None
    return pads


def _takes_padding(reader: onnx.NodeProto, name: str, space: int) -> bool:
    pads = wiring.attribute(reader, "pads")
    return (
        reader.op_type == "Conv"
        and list(reader.input).count(name) == 1
        and reader.input[0] == name
        and (wiring.attribute(reader, "auto_pad") or b"NOTSET") == b"NOTSET"
        and (pads is None or len(pads) == 2 * space)
    )


def _normalization(wires: wiring.Wires, node: onnx.NodeProto) -> bool:
    """BatchNormalization behind a Conv, ConvTranspose or Gemm goes into its weights and bias.

    y = (x - mean) * scale / sqrt(variance + epsilon) + shift, per output channel.
    """
    if node.op_type != "BatchNormalization" or node.domain != "":
        return False
    maker = wires.maker.get(node.input[0])
    if maker is None or maker.op_type not in SCALED or not wires.only_reader(node.input[0]):
        return False
    if wiring.attribute(node, "training_mode") or any(node.output[1:]):
        return False
    found = [wires.constant(name) for name in node.input[1:5]]
    weight = wires.constant(maker.input[1])
    bias_name = maker.input[2] if len(maker.input) > 2 else ""
    bias = wires.constant(bias_name) if bias_name else np.zeros(1, np.float32)
    if weight is None or bias is None or any(one is None for one in found):
        return False
    scale, shift, mean, variance = (one.astype(np.float64) for one in found if one is not None)
    epsilon = wiring.attribute(node, "epsilon")
    factor = scale / np.sqrt(variance + (1e-5 if epsilon is None else epsilon))
    beta = wiring.attribute(maker, "beta")
    kept = bias.astype(np.float64) * (1.0 if beta is None else beta)
    wires.renew(maker, 1, SCALED[maker.op_type](weight, factor, maker).astype(weight.dtype))
    wires.renew(maker, 2, ((kept - mean) * factor + shift).astype(weight.dtype))
    if beta is not None:
        wiring.put(maker, "beta", 1.0)
    return wires.bypass(node)


def _conv(weight: Array, factor: Array, node: onnx.NodeProto) -> Array:
    """Weights are [out, in / groups, ...]."""
    del node
    scaled: Array = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled


def _conv_transpose(weight: Array, factor: Array, node: onnx.NodeProto) -> Array:
    """Weights are [in, out / groups, ...]: each group of inputs feeds a group of outputs."""
    groups = wiring.attribute(node, "group") or 1
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    shaped = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    scaled: Array = (apart * shaped).reshape(weight.shape)
    return scaled


def _gemm(weight: Array, factor: Array, node: onnx.NodeProto) -> Array:
    """Weights are [in, out], or [out, in] where transB is set."""
    scaled: Array = weight * (factor[:, None] if wiring.attribute(node, "transB") else factor)
    return scaled


SCALED: dict[str, Callable[[Array, Array, onnx.NodeProto], Array]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
}
"""How the weights of an operator take a factor for each of its output channels."""
RULES = (_identity, _dropout, _pad, _normalization)
"""Each takes the wires and a node, rewires, and says whether the node can go."""
