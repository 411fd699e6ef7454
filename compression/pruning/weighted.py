"""Nodes that make channels out of channels: convolutions, matrix products, tables."""

import math

import numpy as np
import onnx

from compression.pruning.edits import Count
from compression.pruning.ties import Channels
from compression.pruning.tracing import Trace
from compression.regular.wiring import attribute


def convolution(trace: Trace, node: onnx.NodeProto) -> None:
    """Conv and ConvTranspose, plain, grouped and depthwise."""
    source, weight = node.input[0], node.input[1]
    x, shape, out = trace.of(source), trace.shape(source), trace.shape(node.output[0])
    transposed = node.op_type == "ConvTranspose"
    dims = trace.shape(weight)
    trace.macs[trace.at] = math.prod((shape if transposed else out)[2:]) * math.prod(dims)
    for axis in x[2:]:
        trace.ties.freeze(axis, f"lies along the space of a {node.op_type}")
    if not all(trace.is_constant(name) for name in node.input[1:]):
        for name in node.input:
            trace.freeze(name, f"meets weights that are not constant ({node.op_type})")
        return
    groups = attribute(node, "group") or 1
    reads, makes = (0, 1) if transposed else (1, 0)
    if groups == 1:
        made = _plain(trace, node, x[1], out[1], reads=reads, makes=makes)
    elif groups == shape[1]:
        made = _depthwise(trace, node, x[1], out[1])
    else:
        made = _grouped(trace, node, x[1], out[1], groups)
    if made is not None and len(node.input) > 2 and node.input[2]:
        trace.use(node, 2, 0, "follows", made)
    trace.put(node.output[0], (x[0], made, *[None] * (len(out) - 2)))


def _plain(
    trace: Trace, node: onnx.NodeProto, x: Channels | None, count: int, *, reads: int, makes: int
) -> Channels | None:
    made = trace.ties.new(count) if count > 1 else None
    if made is not None:
        trace.use(node, 1, makes, "makes", made)
    if x is not None:
        same = (attribute(node, "auto_pad") or b"NOTSET") in {b"NOTSET", b"VALID"}
        folds = node.op_type == "Conv" and same and not any(attribute(node, "pads") or [])
        trace.reads(node, 1, reads, x, source=(0, 1), folds=folds, out=made)
    return made


def _depthwise(
    trace: Trace, node: onnx.NodeProto, x: Channels | None, count: int
) -> Channels | None:
    """Each channel makes channels of its own, which go with it."""
    if x is None:
        return None
    many = count // len(x)
    made = x.take(np.repeat(np.arange(len(x)), many)).resting(0.0)
    transposed = node.op_type == "ConvTranspose"
    trace.use(node, 1, 0, "follows", x if transposed else made)
    trace.edits.append(Count(trace.at, "group", x.atoms))
    return made


def _grouped(
    trace: Trace, node: onnx.NodeProto, x: Channels | None, count: int, groups: int
) -> Channels | None:
    """Groups must stay equally wide: the channels at one place in each are a unit."""
    transposed = node.op_type == "ConvTranspose"
    if x is not None:
        apart = x.atoms.reshape(groups, -1)
        for row in apart[1:]:
            trace.ties.tie(apart[0], row)
        width = apart.shape[1]
        if width == 1:
            trace.ties.freeze(x, "is the only channel of its group")
        elif transposed:
            trace.use(node, 1, 0, "reads", x)
            trace.leak(0, 1, x)
        else:
            trace.use(node, 1, 1, "reads", x.take(np.arange(width)))
            trace.leak(0, 1, x)
    width = count // groups
    if width < 2:
        return None
    own = trace.ties.new(width)
    made = own.take(np.tile(np.arange(width), groups))
    trace.use(node, 1, 1 if transposed else 0, "makes", own if transposed else made)
    return made


def product(trace: Trace, node: onnx.NodeProto) -> None:
    """MatMul and Gemm: with weights, or of two activations."""
    a, b = node.input[0], node.input[1]
    turned = bool(attribute(node, "transB"))
    if attribute(node, "transA") or len(trace.shape(a)) < 2 or len(trace.shape(b)) < 2:
        stop(trace, node, "meets a product that is not followed")
    elif trace.is_constant(b) and not trace.is_constant(a) and len(trace.shape(b)) == 2:
        _weights(trace, node, turned=turned)
    elif trace.is_constant(a) or trace.is_constant(b) or node.op_type == "Gemm":
        stop(trace, node, "meets a product that is not followed")
    else:
        _activations(trace, node)


def _weights(trace: Trace, node: onnx.NodeProto, *, turned: bool) -> None:
    axes, out = trace.of(node.input[0]), trace.shape(node.output[0])
    dims = trace.shape(node.input[1])
    trace.macs[trace.at] = math.prod(out[1:-1]) * math.prod(dims)
    reads, makes = (1, 0) if turned else (0, 1)
    made = trace.ties.new(out[-1]) if out[-1] > 1 else None
    if made is not None:
        trace.use(node, 1, makes, "makes", made)
    if (last := axes[-1]) is not None:
        bias = trace.shape(node.input[2]) if len(node.input) > 2 else ()
        folds = math.prod(bias) in {1, out[-1]}  # what is added to rows is no bias
        trace.reads(node, 1, reads, last, source=(0, len(axes) - 1), folds=folds, out=made)
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        _bias(trace, node, axes[0], made)
    trace.put(node.output[0], (*axes[:-1], made))


def _bias(trace: Trace, node: onnx.NodeProto, rows: Channels | None, made: Channels | None) -> None:
    """What a Gemm adds: a vector along its columns; more than that is not followed."""
    shape = trace.shape(node.input[2])
    if len(shape) > 1 and shape[0] > 1:
        trace.ties.freeze(rows, "meets a constant of each row (Gemm)")
    if not trace.is_constant(node.input[2]):
        trace.ties.freeze(made, "meets a bias that is not constant (Gemm)")
    elif made is not None and shape and shape[-1] > 1:
        trace.use(node, 2, -1, "follows", made)


def _activations(trace: Trace, node: onnx.NodeProto) -> None:
    a, b = trace.of(node.input[0]), trace.of(node.input[1])
    dims, others = trace.shape(node.input[0]), trace.shape(node.input[1])
    out = trace.shape(node.output[0])
    trace.macs[trace.at] = math.prod(out[1:] if len(out) > 2 else out) * dims[-1]
    _tied(trace, a[-1], b[-2], node)
    if a[-1] is not None and b[-2] is not None:
        trace.joins[trace.at].append(a[-1])
        if not ((a[-1].rest == 0) | (b[-2].rest == 0)).all():
            trace.leak(0, len(a) - 1, a[-1])
    made: list[Channels | None] = []
    for at in range(len(out) - 2):
        i, j = at - len(out) + len(a), at - len(out) + len(b)
        spans_a = i >= 0 and dims[i] == out[at] > 1
        spans_b = j >= 0 and others[j] == out[at] > 1
        one, other = (a[i] if spans_a else None), (b[j] if spans_b else None)
        if spans_a and spans_b:
            _tied(trace, one, other, node)
        kept = one if one is not None else other
        if kept is not None:
            trace.joins[trace.at].append(kept)
            still = any(c is not None and (c.rest == 0).all() for c in (one, other))
            kept = kept.resting(0.0 if still else np.nan)
        made.append(kept)
    for side in (a[-2], b[-1]):
        if side is not None:
            trace.joins[trace.at].append(side)
        made.append(side and side.resting(np.where(side.rest == 0, 0.0, np.nan)))
    trace.put(node.output[0], tuple(made))


def _tied(trace: Trace, one: Channels | None, other: Channels | None, node: onnx.NodeProto) -> None:
    if one is not None and other is not None:
        trace.ties.tie(one, other)
    for channels in (one, other):
        if one is None or other is None:
            trace.ties.freeze(channels, f"meets values that carry no channels ({node.op_type})")


def table(trace: Trace, node: onnx.NodeProto) -> None:
    """Gather from a constant: rows of a table, whose columns are channels."""
    axis = attribute(node, "axis") or 0
    dims, places = trace.shape(node.input[0]), len(trace.shape(node.input[1]))
    if axis != 0 or len(dims) != 2 or dims[1] < 2 or trace.is_constant(node.input[1]):
        return
    made = trace.ties.new(dims[1])
    trace.use(node, 0, 1, "makes", made)
    trace.put(node.output[0], (*[None] * places, made))


def stop(trace: Trace, node: onnx.NodeProto, reason: str) -> None:
    """Keep all that a node reads."""
    for name in node.input:
        trace.freeze(name, f"{reason} ({node.op_type})")
