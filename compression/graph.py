"""An ONNX model made regular: weights are initializers, BatchNormalization is folded, opset >= 13.

onnxruntime's own basic optimisation does the folding (what it writes are standard operators), so
that the passes see the graph as the runtime will see it. The result is run beside the original
and refused where their answers differ.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, version_converter

from compression import runtime
from compression.errors import BadModel

MOST_BYTES = 2 * 1024**3
"""Protobuf's own limit for one message."""
PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear has an axis."""
PREFERRED_OPSET = 17
TOLERANCE = 1e-3
"""The largest relative difference that folding and raising the opset may cause."""
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "com.microsoft"})
Arrays = Mapping[str, NDArray[Any]]


def load(model_path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        BadModel: no file, not ONNX, truncated, over 2 GiB, or an operator of an unknown domain.
    """
    try:
        size_bytes = model_path.stat().st_size
        if size_bytes >= MOST_BYTES:
            raise _bad(model_path, f"{size_bytes / 2**30:.1f} GiB, and ONNX files end at 2 GiB")
        model = onnx.load(model_path)
    except OSError as error:
        raise _bad(model_path, error.strerror or str(error)) from error
    except BadModel:
        raise
    except Exception as error:  # protobuf and onnx each raise kinds of their own
        raise _bad(model_path, f"not ONNX, or truncated ({_first_line(error)})") from error
    if not model.graph.node or not model.graph.output:
        raise _bad(model_path, "not ONNX, or truncated (it holds no graph)")
    for node in model.graph.node:
        if node.domain not in KNOWN_DOMAINS:
            raise _bad(model_path, f"operator {node.op_type} of the unknown domain {node.domain!r}")
    return model


def regular(model_path: Path, *, sample: Arrays | None = None) -> onnx.ModelProto:
    """Make a model regular; names of inputs and outputs and custom metadata stay.

    `sample` is one run's inputs by name; without it random ones are made, dynamic dims at
    their least.

    Raises:
        BadModel: as `load`; or it does not run, or cannot be made regular without changing
            its answers.
    """
    original = load(model_path)
    session = runtime.session(model_path)
    feeds = dict(sample) if sample is not None else runtime.synthetic(session, seed=0)
    wanted = runtime.run(session, feeds)
    folded = _folded(model_path)
    if not _serves(folded, feeds, wanted) or folded.ByteSize() > 1.25 * original.ByteSize() + 2**16:
        folded = original  # constants that grew are not worth folding
    _tidy(folded, original)
    if opset(folded) < PER_CHANNEL_OPSET:
        folded = _raised(folded, feeds, wanted)
    if not _serves(folded, feeds, wanted):
        raise _bad(model_path, "its answers change when it is made regular")
    return folded


def difference(wanted: Arrays, got: Arrays) -> float:
    """The largest relative difference over all outputs: max |a - b| / max |a|."""
    worst = 0.0
    for name, a in wanted.items():
        b = got[name]
        if a.shape != b.shape:
            return float("inf")
        if a.size and a.dtype.kind in "biufc":
            x, y = a.astype(np.float64), b.astype(np.float64)
            scale = max(float(np.abs(x[np.isfinite(x)], dtype=float).max(initial=0.0)), 1e-12)
            gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
            worst = max(worst, float(gap.max()) / scale)
        elif a.size and not np.array_equal(a, b):
            return float("inf")
    return worst


def _folded(model_path: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options = runtime.options(optimization="basic")
        options.optimized_model_filepath = str(target)
        runtime.session(model_path, options)
        return onnx.load(target)


def _tidy(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Hoist constants, drop unused domains and initializers posing as inputs, keep metadata."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = graph.initializer.add()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                graph.node.remove(node)
    weights = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)
    used = {node.domain for node in graph.node} | {""}
    used |= {node.domain for one in graph.node for node in _inner_nodes(one)}
    kept = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in kept.items())
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    model.ir_version = max(model.ir_version, 8)  # initializers need not be inputs since 4


def _inner_nodes(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = [one for graph in graphs for one in graph.node]
    return inner + [deeper for one in inner for deeper in _inner_nodes(one)]


def _raised(model: onnx.ModelProto, feeds: Arrays, wanted: Arrays) -> onnx.ModelProto:
    """The model at the highest opset that still gives the same answers; else as it is."""
    for version in (PREFERRED_OPSET, PER_CHANNEL_OPSET):
        try:
            raised = version_converter.convert_version(model, version)
        except Exception:  # noqa: S112  # the converter lacks adapters, and says so in many ways
            continue
        _tidy(raised, model)
        if _serves(raised, feeds, wanted):
            return raised
    return model


def _serves(model: onnx.ModelProto, feeds: Arrays, wanted: Arrays) -> bool:
    """Whether the model loads, runs and answers as `wanted`."""
    try:
        got = runtime.run(runtime.session(model), feeds)
    except BadModel:
        return False
    return list(got) == list(wanted) and difference(wanted, got) <= TOLERANCE


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model uses."""
    return next(
        (int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 1
    )


def _bad(path: Path, what: str) -> BadModel:
    return BadModel(f"cannot use model {path.name}: {what}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
