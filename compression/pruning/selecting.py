"""Nodes that pick, join and lengthen channels by position: Concat, Split, Slice, Gather, Pad."""

import numpy as np
import onnx

from compression.pruning.edits import Parts, Positions, Widths
from compression.pruning.reshaping import vector
from compression.pruning.ties import Channels, joined
from compression.pruning.tracing import Axes, Trace
from compression.regular.wiring import attribute


def concat(trace: Trace, node: onnx.NodeProto) -> None:
    """Behind one another along one axis; along the others inputs are cut together."""
    shape = trace.shape(node.output[0])
    along = int(attribute(node, "axis")) % max(1, len(shape))
    made: list[Channels | None] = []
    for at in range(len(shape)):
        found = [trace.of(name)[at] for name in node.input]
        if all(channels is None for channels in found):
            made.append(None)
        elif at == along:
            made.append(joined([
                trace.ties.frozen(trace.shape(name)[at], "is no channel") if one is None else one
                for one, name in zip(found, node.input, strict=True)
            ]))  # fmt: skip
        else:
            made.append(_beside(trace, found, shape[at]))
    trace.put(node.output[0], tuple(made))


def _beside(trace: Trace, found: list[Channels | None], count: int) -> Channels:
    first = next(channels for channels in found if channels is not None)
    rests = np.stack([np.full(count, np.nan) if one is None else one.rest for one in found])
    for one in found:
        if one is None:
            trace.ties.freeze(first, "stands beside values that are no channels (Concat)")
        else:
            trace.ties.tie(first, one)
    return first.resting(np.where((rests == rests[0]).all(0), rests[0], np.nan))


def split(trace: Trace, node: onnx.NodeProto) -> None:
    """Parts along one axis."""
    axes = trace.of(node.input[0])
    along = int(attribute(node, "axis") or 0) % max(1, len(axes))
    channels, start = axes[along], 0
    parts = []
    for name in node.output:
        length = trace.shape(name)[along] if name else 0
        part = None if channels is None else channels.take(slice(start, start + length))
        if name:
            trace.put(name, (*axes[:along], part, *axes[along + 1 :]))
        parts.append(np.empty(0, np.int64) if part is None else part.atoms)
        start += length
    if channels is not None and start == len(channels):
        trace.edits.append(Parts(trace.at, tuple(parts)))
    elif channels is not None:
        trace.ties.freeze(channels, "is split into parts that nobody reads")


def slices(trace: Trace, node: onnx.NodeProto) -> None:
    """A stretch of some axes; with steps along one that carries channels it becomes a Gather."""
    axes, shape = list(trace.of(node.input[0])), trace.shape(node.input[0])
    given = [trace.constant(name) if name else None for name in node.input[1:]]
    if len(given) < 2 or any(
        value is None for value, name in zip(given, node.input[1:], strict=True) if name
    ):
        stop(trace, node, "is cut at places that are not constant")
        return
    starts, ends = (np.asarray(value) for value in given[:2])
    along = given[2] if len(given) > 2 and given[2] is not None else np.arange(len(starts))
    steps = given[3] if len(given) > 3 and given[3] is not None else np.ones(len(starts), int)
    begins: list[tuple[int, np.ndarray]] = []
    stops: list[tuple[int, np.ndarray]] = []
    sources: list[np.ndarray] = []
    for k, axis in enumerate(int(one) % len(shape) for one in along):
        channels, step = axes[axis], int(steps[k])
        taken = range(shape[axis])[slice(int(starts[k]), _end(int(ends[k])), step)]
        if channels is None or (len(taken) == shape[axis] and step == 1):
            continue
        axes[axis] = channels.take(np.array(taken, np.int64))
        if not taken:
            trace.ties.freeze(channels, "is cut away (Slice)")
        elif step == 1:
            begins.append((k, channels.atoms[: taken[0]]))
            stops.append((k, channels.atoms[: taken[-1] + 1]))
            sources.append(channels.atoms)
        elif len(starts) == 1:
            indices = np.array(taken, np.int64)
            trace.edits.append(Positions(trace.at, axis, channels.atoms, indices))
        else:
            trace.ties.freeze(channels, "is taken in steps along several axes (Slice)")
    if begins:
        source = np.concatenate(sources)
        trace.edits.append(Widths(trace.at, 1, tuple(begins), source))
        trace.edits.append(Widths(trace.at, 2, tuple(stops), source))
    trace.put(node.output[0], tuple(axes))


def _end(end: int) -> int | None:
    """Past the beginning, as it is written for a step of -1, is no negative index."""
    return None if end < -(2**30) else end


def gather(trace: Trace, node: onnx.NodeProto) -> None:
    """Indices along one axis; those into channels must be constant, and keep the axis."""
    axes = trace.of(node.input[0])
    axis = int(attribute(node, "axis") or 0) % max(1, len(axes))
    channels, places = axes[axis], trace.of(node.input[1])
    indices = trace.constant(node.input[1])
    rank = len(trace.shape(node.input[1]))
    middle: Axes = (None,) * rank
    trace.freeze(node.input[1], "are indices (Gather)")
    if channels is not None:
        if indices is None or rank != 1 or len(places) != 1 or indices.size < 2:
            stop(trace, node, "is picked from")
            return
        indices = np.where(indices < 0, indices + len(channels), indices).astype(np.int64)
        trace.edits.append(Positions(trace.at, axis, channels.atoms, indices))
        middle = (channels.take(indices),)
    trace.put(node.output[0], (*axes[:axis], *middle, *axes[axis + 1 :]))


def pad(trace: Trace, node: onnx.NodeProto) -> None:
    """Padding along channels adds values that stay; along other axes it may change constants."""
    axes, shape = trace.of(node.input[0]), trace.shape(node.input[0])
    pads = trace.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "pads")
    along = trace.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    if pads is None or (len(node.input) > 3 and node.input[3] and along is None):
        stop(trace, node, "is padded by an unknown width")
        return
    places = [int(at) % len(shape) for at in (range(len(shape)) if along is None else along)]
    before = dict(zip(places, [int(one) for one in pads], strict=False))
    after = dict(zip(places, [int(one) for one in pads[len(places) :]], strict=True))
    mode = attribute(node, "mode") or b"constant"
    padded = {at for at in places if before[at] or after[at]}
    made: list[Channels | None] = []
    for at, channels in enumerate(axes):
        if channels is None:
            made.append(None)
        elif at in padded:
            made.append(_lengthened(trace, channels, before[at], after[at], mode))
        else:
            value = trace.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
            same = value is not None and channels.rest == np.asarray(value).reshape(-1)[:1]
            still = not padded or mode in {b"edge", b"reflect", b"wrap"}
            made.append(channels if still else channels.resting(
                np.where(same, channels.rest, np.nan)))  # fmt: skip
    trace.put(node.output[0], tuple(made))


def _lengthened(trace: Trace, channels: Channels, before: int, after: int, mode: bytes) -> Channels:
    if mode != b"constant" or before < 0 or after < 0:
        trace.ties.freeze(channels, "is padded with channels of its own (Pad)")
        return channels.take(np.arange(-before, len(channels) + after) % len(channels))
    ends = [trace.ties.frozen(count, "is padding (Pad)") for count in (before, after)]
    return joined([ends[0], channels, ends[1]])


def expand(trace: Trace, node: onnx.NodeProto) -> None:
    """Repeated along axes of one; those with channels keep them."""
    axes, before = trace.of(node.input[0]), trace.shape(node.input[0])
    after = trace.shape(node.output[0])
    made: list[Channels | None] = [None] * len(after)
    for at, channels in enumerate(axes):
        if before[at] == after[at - len(before) + len(after)]:
            made[at - len(before) + len(after)] = channels
    _target(trace, node, made)
    trace.put(node.output[0], tuple(made))


def _target(trace: Trace, node: onnx.NodeProto, made: list[Channels | None]) -> None:
    """The target of an Expand may be shorter than its output."""
    length = trace.shape(node.input[1])[0]
    vector(trace, 1, node.input[1], tuple(made[len(made) - length :]))


def stop(trace: Trace, node: onnx.NodeProto, reason: str) -> None:
    """Keep all that a node reads; what it makes are no channels."""
    for name in node.input:
        trace.freeze(name, f"{reason} ({node.op_type})")
