"""Means and extremes of channels, taken inside the graph: no activation leaves the session.

Run after run a pass asks about a model that it has just changed, so what leaves the session has
to be small, and one run over the samples has to be enough.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import runtime
from compression.calibration import taps
from compression.errors import BadInputs
from compression.statistics import Arrays

Layout = Literal["first", "last"]
"""Where the channels lie: behind the batch, as a Conv has them, or last, as a MatMul has them."""
_OPERATORS = {"mean": ("ReduceMean",), "extremes": ("ReduceMin", "ReduceMax")}
_AXES_AS_INPUT = 18
"""The opset in which the axes of a reduction became an input."""


def gather(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    wanted: Mapping[str, Layout],
    *,
    kind: str,
    threads: int,
) -> dict[str, NDArray[np.float64]]:
    """Run all samples once; return statistics of the channels of each tensor by name.

    `kind` "mean": float64 [channels], over all positions of all samples; "extremes": float64
    [2, channels]. Tensors with values that are not finite are left out.

    Raises:
        BadModel: the model does not run, or has no such float tensor.
        BadInputs: there are no samples.
    """
    names = list(wanted)
    session = taps.session(_tapped(model, wanted, _OPERATORS[kind]), threads=threads)
    totals: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys(names, 0.0)
    for sample in feeds:
        found = runtime.run(session, sample)
        for at, name in enumerate(names):
            row = found[f"{taps.SEEN}{at}"].astype(np.float64)
            if kind == "mean":
                totals[name] = totals.get(name, 0.0) + row[0] * row[1:]
                counts[name] += row[0]
            else:
                low, high = np.split(row[1:], 2)
                before = totals.get(name, np.stack([low, high]))
                totals[name] = np.stack([np.minimum(before[0], low), np.maximum(before[1], high)])
    if not totals:
        raise BadInputs("cannot gather statistics of channels: there are no samples")
    if kind == "mean":
        totals = {name: total / max(counts[name], 1.0) for name, total in totals.items()}
    return {name: total for name, total in totals.items() if np.isfinite(total).all()}


def _tapped(
    model: onnx.ModelProto, wanted: Mapping[str, Layout], operators: tuple[str, ...]
) -> onnx.ModelProto:
    """Return a model whose output `::seen::3` is [1 + n channels]: positions, then statistics."""
    tapped = taps.only(model, wanted)
    constants = {
        f"{taps.SEEN}rows": np.array([0, 0, -1], np.int64),
        f"{taps.SEEN}one": np.array([1], np.int64),
        f"{taps.SEEN}first": np.array([0, 2], np.int64),
        f"{taps.SEEN}last": np.array([0], np.int64),
    }
    for name, array in constants.items():
        tapped.graph.initializer.append(numpy_helper.from_array(array, name))
    version = max(entry.version for entry in model.opset_import if entry.domain == "")
    # As in `taps.extremes`: the taps of the first tensors last, so that nothing is held.
    for at, (name, layout) in reversed(list(enumerate(wanted.items()))):
        tapped.graph.node.extend(_seen(name, layout, f"{taps.SEEN}{at}", operators, version))
    for at in range(len(wanted)):
        tapped.graph.output.append(
            helper.make_tensor_value_info(f"{taps.SEEN}{at}", onnx.TensorProto.FLOAT, [None])
        )
    return tapped


def _seen(
    name: str, layout: Layout, output: str, operators: tuple[str, ...], version: int
) -> Iterator[onnx.NodeProto]:
    rows = f"{output}::rows"
    if layout == "first":  # [N, C, ...] -> [N, C, positions]; rank 2 gives one position
        yield helper.make_node("Reshape", [name, f"{taps.SEEN}rows"], [rows], rows)
    else:
        yield helper.make_node("Flatten", [name], [rows], rows, axis=-1)
    axes_name = f"{taps.SEEN}{layout}"
    axes = [0, 2] if layout == "first" else [0]
    parts = []
    for operator in operators:
        part = f"{output}::{operator}"
        parts.append(part)
        if version >= _AXES_AS_INPUT:
            yield helper.make_node(operator, [rows, axes_name], [part], part, keepdims=0)
        else:
            yield helper.make_node(operator, [rows], [part], part, keepdims=0, axes=axes)
    size, real, own, ratio, flat = (
        f"{output}::{part}" for part in ("size", "real", "own", "positions", "flat")
    )
    # positions = values / channels
    yield helper.make_node("Size", [name], [size], size)
    yield helper.make_node("Size", [parts[0]], [own], own)
    yield helper.make_node("Div", [size, own], [ratio], ratio)
    yield helper.make_node("Reshape", [ratio, f"{taps.SEEN}one"], [flat], flat)
    yield helper.make_node("Cast", [flat], [real], real, to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Concat", [real, *parts], [output], output, axis=0)
