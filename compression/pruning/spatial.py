"""Nodes that work along other axes than the channels': pooling, Resize, sums, Softmax, norms."""

import numpy as np
import onnx

from compression.pruning.reshaping import vector
from compression.pruning.selecting import stop
from compression.pruning.ties import Channels
from compression.pruning.tracing import Trace
from compression.regular.wiring import attribute

_ZERO_STAYS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
_SAME_STAYS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin"})


def pool(trace: Trace, node: onnx.NodeProto) -> None:
    """Pooling keeps channels; a constant stays one unless zeros are counted at the border."""
    axes = trace.of(node.input[0])
    for axis in axes[2:]:
        trace.ties.freeze(axis, f"lies along the space of a {node.op_type}")
    channels = axes[1] if len(axes) > 1 else None
    if channels is not None:
        if any(node.output[1:]):
            trace.ties.freeze(channels, f"is counted by indices ({node.op_type})")
        bordered = node.op_type == "LpPool" or bool(attribute(node, "count_include_pad"))
        if bordered:
            channels = _unless_zero(channels)
    trace.put(node.output[0], (*axes[:1], channels, *[None] * (len(axes) - 2)))


def resize(trace: Trace, node: onnx.NodeProto) -> None:
    """Resize keeps what it does not scale."""
    axes = trace.of(node.input[0])
    before, after = trace.shape(node.input[0]), trace.shape(node.output[0])
    made: list[Channels | None] = []
    mode = attribute(node, "coordinate_transformation_mode") or b"half_pixel"
    for at, channels in enumerate(axes):
        if before[at] != after[at]:
            trace.ties.freeze(channels, f"is scaled ({node.op_type})")
            made.append(None)
        else:
            border = mode == b"tf_crop_and_resize" and channels is not None
            made.append(_unless_zero(channels) if border and channels else channels)
    if attribute(node, "axes") and any(channels is not None for channels in axes):
        stop(trace, node, "is scaled along named axes")
    elif len(node.input) > 3 and node.input[3]:
        vector(trace, 3, node.input[3], tuple(made))
    trace.put(node.output[0], tuple(made))


def reduce(trace: Trace, node: onnx.NodeProto) -> None:
    """Sums, means and extremes along other axes."""
    axes = trace.of(node.input[0])
    along = _reduced(trace, node, len(axes))
    if along is None:
        stop(trace, node, "is reduced along unknown axes")
        return
    kept = bool(1 if (keep := attribute(node, "keepdims")) is None else keep)
    made: list[Channels | None] = []
    for at, channels in enumerate(axes):
        if at in along:
            trace.ties.freeze(channels, f"is summed up over channels ({node.op_type})")
            if kept:
                made.append(None)
        elif channels is None or node.op_type in _SAME_STAYS or not along:
            made.append(channels)
        elif node.op_type in _ZERO_STAYS:
            made.append(_unless_zero(channels))
        else:
            made.append(channels.resting(np.nan))
    trace.put(node.output[0], tuple(made))


def _reduced(trace: Trace, node: onnx.NodeProto, rank: int) -> set[int] | None:
    """The axes that a Reduce runs over; None where that is not constant."""
    given = attribute(node, "axes")
    if len(node.input) > 1 and node.input[1]:
        given = trace.constant(node.input[1])
        if given is None:
            return None
    if given is None or len(given) == 0:
        return set() if attribute(node, "noop_with_empty_axes") else set(range(rank))
    return {int(at) % rank for at in given}


def softmax(trace: Trace, node: onnx.NodeProto) -> None:
    """Softmax and its like, whose values hang on all others along one axis."""
    axes = trace.of(node.input[0])
    default = -1 if trace.opset >= 13 else 1
    axis = int(default if (a := attribute(node, "axis")) is None else a) % max(1, len(axes))
    along = {axis} if trace.opset >= 13 else set(range(axis, len(axes)))
    _around(trace, node, along)


def layer_norm(trace: Trace, node: onnx.NodeProto) -> None:
    """LayerNormalization and its like, from one axis to the last."""
    rank = len(trace.of(node.input[0]))
    axis = -1 if (a := attribute(node, "axis")) is None else int(a)
    _around(trace, node, set(range(axis % max(1, rank), rank)))


def along_one(trace: Trace, node: onnx.NodeProto) -> None:
    """LpNormalization, CumSum and Hardmax: as Softmax, but for where the axis stands."""
    rank = len(trace.of(node.input[0]))
    axis = attribute(node, "axis")
    if node.op_type == "CumSum":
        value = trace.constant(node.input[1])
        if value is None:
            stop(trace, node, "is summed along an unknown axis")
            return
        axis = int(value.reshape(-1)[0])
    _around(trace, node, {int(-1 if axis is None else axis) % max(1, rank)})


def _around(trace: Trace, node: onnx.NodeProto, along: set[int]) -> None:
    """What lies along the axes stays; the others' constants are lost, zeros too."""
    made: list[Channels | None] = []
    for at, channels in enumerate(trace.of(node.input[0])):
        if at in along:
            trace.ties.freeze(channels, f"is normalised over channels ({node.op_type})")
            made.append(None)
        else:
            made.append(channels and channels.resting(np.nan))
    trace.put(node.output[0], tuple(made))


def _unless_zero(channels: Channels) -> Channels:
    return channels.resting(np.where(channels.rest == 0, 0.0, np.nan))
