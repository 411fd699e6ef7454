"""Where channels lie behind a Reshape: index by index, merged, repeated, or split into blocks.

A split (heads of attention, groups of a shuffle) can be cut along either of its axes: along the
outer one whole blocks go, along the inner one the same place of every block. Which is better
shows only further on, so a trace is asked for each (compression/channels.py).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.pruning.edits import Widths
from compression.pruning.ties import Channels
from compression.pruning.tracing import Axes, Trace
from compression.regular.wiring import attribute

Array = NDArray[Any]
_MOST_ELEMENTS = 2**24


def reshape(trace: Trace, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    axes = trace.of(node.input[0])
    before, after = trace.shape(node.input[0]), trace.shape(node.output[0])
    made: list[Channels | None] = [None] * len(after)
    if 0 in before:
        trace.freeze(node.input[0], "has no elements")
    elif any(axis is not None for axis in axes):
        for taken, given in factors(before, after):
            _carried(trace, node, made, taken, given)
    if node.op_type == "Reshape" and len(node.input) > 1:
        vector(trace, 1, node.input[1], tuple(made))
    trace.put(node.output[0], tuple(made))


def factors(
    before: tuple[int, ...], after: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of axes on both sides that hold the same elements."""
    i = j = 0
    while i < len(before) or j < len(after):
        taken, given = [], []
        if i < len(before):
            taken, i = [i], i + 1
        if j < len(after):
            given, j = [j], j + 1
        while math.prod(before[k] for k in taken) != math.prod(after[k] for k in given):
            if math.prod(before[k] for k in taken) < math.prod(after[k] for k in given):
                taken, i = [*taken, i], i + 1
            else:
                given, j = [*given, j], j + 1
        yield taken, given


def _carried(
    trace: Trace,
    node: onnx.NodeProto,
    made: list[Channels | None],
    taken: list[int],
    given: list[int],
) -> None:
    """Carry the channels of one run of axes."""
    axes = trace.of(node.input[0])
    found = [at for at in taken if axes[at] is not None]
    dims = [trace.shape(node.input[0])[at] for at in taken]
    out = [trace.shape(node.output[0])[at] for at in given]
    if not found:
        return
    channels = axes[found[0]]
    if channels is None or len(found) > 1 or math.prod(dims) > _MOST_ELEMENTS:
        for at in found:
            trace.ties.freeze(axes[at], f"merges with other channels ({node.op_type})")
        return
    at = taken.index(found[0])
    places = np.arange(dims[at]).reshape([-1 if k == at else 1 for k in range(len(dims))])
    grid = np.broadcast_to(places, dims).reshape(out)
    rows = {k: np.moveaxis(grid, k, 0).reshape(out[k], -1) for k in range(len(out)) if out[k] > 1}
    for k, row in rows.items():
        atoms = channels.atoms[row]
        if (atoms == atoms[:, :1]).all():  # each index holds a single channel
            made[given[k]] = channels.take(row[:, 0])
            return
    candidates = list(rows)
    if _is_shuffle(trace, node):
        candidates.reverse()
    signature = (tuple(dims), tuple(out), at)
    trace.open.setdefault(signature, len(candidates))
    k = candidates[trace.choices.get(signature, 0)]
    for column in rows[k].T[1:]:
        trace.ties.tie(channels.take(rows[k][:, 0]), channels.take(column))
    rest = channels.rest[rows[k]]
    same = (rest == rest[:, :1]).all(1)
    first = channels.take(rows[k][:, 0])
    made[given[k]] = first.resting(np.where(same, first.rest, np.nan))


def _is_shuffle(trace: Trace, node: onnx.NodeProto) -> bool:
    """Whether what is split here is turned and merged again at once (Zhang et al., ShuffleNet)."""
    for kind in ("Transpose", "Reshape"):
        readers = trace.readers[node.output[0]]
        if len(readers) != 1 or trace.graph.node[readers[0]].op_type != kind:
            return False
        node = trace.graph.node[readers[0]]
    return True


def vector(trace: Trace, position: int, name: str, axes: Axes) -> None:
    """A vector of dims, whose entries for axes with channels are counts.

    An entry that was read off channels elsewhere may stand only where channels lie.
    """
    if not name:
        return
    extents = trace.extents.get(name, ())
    for extent, axis in zip(extents, axes, strict=False):
        if extent is not None and axis is None:
            trace.ties.freeze(extent, "is counted for a shape")
    for extent in extents[len(axes) :]:
        trace.ties.freeze(extent, "is counted for a shape")
    value = trace.constant(name)
    entries = tuple(
        (at, axis.atoms)
        for at, axis in enumerate(axes)
        if axis is not None and (value is None or value[at] > 0)
    )
    if entries:
        trace.edits.append(Widths(trace.at, position, entries))


def transpose(trace: Trace, node: onnx.NodeProto) -> None:
    """Axes change places."""
    axes = trace.of(node.input[0])
    order = attribute(node, "perm") or list(reversed(range(len(axes))))
    trace.put(node.output[0], tuple(axes[at] for at in order))


def depth_to_space(trace: Trace, node: onnx.NodeProto) -> None:
    """Blocks of channels become space: a block is a unit."""
    axes, size = trace.of(node.input[0]), int(attribute(node, "blocksize")) ** 2
    channels = axes[1]
    if channels is not None:
        mode = attribute(node, "mode") or b"DCR"
        shape = (size, -1) if mode == b"DCR" else (-1, size)
        places = np.arange(len(channels)).reshape(shape)
        blocks = places.T if mode == b"DCR" else places
        for column in blocks.T[1:]:
            trace.ties.tie(channels.take(blocks[:, 0]), channels.take(column))
        rest = channels.rest[blocks]
        first = channels.take(blocks[:, 0])
        first = first.resting(np.where((rest == rest[:, :1]).all(1), first.rest, np.nan))
        channels = first if len(first) > 1 else None
        if channels is None:
            trace.ties.freeze(axes[1], "is a single block (DepthToSpace)")
    trace.put(node.output[0], (axes[0], channels, None, None))


def space_to_depth(trace: Trace, node: onnx.NodeProto) -> None:
    """Space becomes channels: each channel is there several times."""
    axes, size = trace.of(node.input[0]), int(attribute(node, "blocksize")) ** 2
    channels = axes[1]
    if channels is not None:
        channels = channels.take(np.tile(np.arange(len(channels)), size))
    trace.put(node.output[0], (axes[0], channels, None, None))
