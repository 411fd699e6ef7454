"""What onnxruntime runs a model as: its own optimized graph, kernel by kernel, each a small model.

The runtime fuses, reorders channels into blocks and puts integers together before it runs
anything. So its optimized graph is asked, not the model: crossings to integers and back, and
changes of layout, are kernels of it like any other, and what kernels cost adds up.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import runtime
from compression.errors import BadModel
from compression.job import Runtime
from compression.pruning import sizes

WHOLE = frozenset({"int64", "int32", "bool"})
"""Activations of these types say where to look or how much to take: their values matter."""
_MOST_VALUES = 65_536
_NAMED_VALUES = 64
_OPTIMIZED = "optimized.onnx"
_ALONE = Runtime()


@dataclass(frozen=True)
class Kernel:
    """One node of an optimized graph as a model of its own; equal keys cost the same."""

    key: str
    operator: str
    model: onnx.ModelProto


@dataclass(frozen=True)
class Kernels:
    """All that one model is run as. `unknown` are operators that cannot be taken apart."""

    all: tuple[Kernel, ...]
    unknown: tuple[str, ...] = ()


def of(
    model: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    *,
    folder: Path,
    how: Runtime = _ALONE,
) -> Kernels:
    """Return the kernels that onnxruntime runs for `feeds`, in order, equal ones repeated.

    `folder` holds a file as large as the model while this runs.

    Raises:
        BadModel: the model does not load or run.
    """
    graph = optimized(model, folder=folder, how=how)
    tensors = _Tensors(graph, feeds)
    found: list[Kernel] = []
    unknown: list[str] = []
    for node in graph.graph.node:
        made = tensors.alone(node)
        if made is None:
            unknown.append(node.op_type)
        else:
            found.append(made)
    return Kernels(tuple(found), tuple(unknown))


def optimized(model: onnx.ModelProto, *, folder: Path, how: Runtime = _ALONE) -> onnx.ModelProto:
    """Return the graph that onnxruntime makes of a model on this device.

    Raises:
        BadModel: it does not load.
    """
    path = folder / _OPTIMIZED
    chosen = runtime.options(how)
    chosen.optimized_model_filepath = str(path)
    try:
        runtime.session(model, chosen)
        return onnx.load(path)
    finally:
        path.unlink(missing_ok=True)


class _Tensors:
    """The tensors of an optimized graph in one run: shapes and types, and values of whole ones."""

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._model = model
        self._constants: dict[str, onnx.TensorProto] = {
            tensor.name: tensor for tensor in model.graph.initializer
        }
        self._shapes = sizes.seen(model, feeds)
        self._types = _types(model)
        self._types |= {name: array.dtype.name for name, array in feeds.items()}
        self._values = dict(feeds) | self._whole(feeds)

    def alone(self, node: onnx.NodeProto) -> Kernel | None:
        """A node as a model of its own; None where it cannot stand alone."""
        if any(one.HasField("g") or one.graphs for one in node.attribute):
            return None
        given: list[onnx.ValueInfoProto] = []
        held: list[onnx.TensorProto] = []
        facts: list[object] = [node.domain, node.op_type, _attributes(node), len(node.output)]
        for name in dict.fromkeys(node.input):
            tensor = self._constant(name)
            if not name:
                facts.append(None)
            elif tensor is not None:
                held.append(tensor)
                facts.append(_fact(tensor))
            elif name not in self._shapes or name not in self._types:
                return None
            else:
                kind, shape = self._types[name], self._shapes[name]
                number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
                given.append(helper.make_tensor_value_info(name, number, shape))
                facts.append((kind, shape))
        facts.append([[*node.input].index(name) for name in node.input])
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "kernel", given, outputs, held)
        model = onnx.ModelProto(ir_version=self._model.ir_version, graph=graph)
        model.opset_import.extend(self._model.opset_import)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        return Kernel(key, node.op_type, model)

    def _constant(self, name: str) -> onnx.TensorProto | None:
        """A weight; or values that decide what a kernel does, which a run has shown."""
        if name in self._constants:
            return self._constants[name]
        if name in self._values and self._types.get(name) in WHOLE:
            return numpy_helper.from_array(self._values[name], name)
        return None

    def _whole(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        wanted = [
            name
            for node in self._model.graph.node
            for name in node.output
            if self._types.get(name) in WHOLE
            and int(np.prod(self._shapes.get(name, (_MOST_VALUES + 1,)))) <= _MOST_VALUES
        ]
        if not wanted:
            return {}
        loaded = runtime.session(_giving(self._model, wanted), _bare())
        return runtime.run(loaded, feeds)


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of each tensor that a node makes, as numpy calls it; others are left out."""
    made = [name for node in model.graph.node for name in node.output if name]
    try:
        loaded = runtime.session(_giving(model, made), _bare())
    except BadModel:  # something that is no tensor is among them
        return {}
    found: dict[str, str] = {}
    for value in loaded.get_outputs():
        try:
            found[value.name] = runtime.input_spec(value).dtype
        except BadModel:
            continue
    return found


def _giving(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these tensors as its only outputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return changed


def _bare() -> Any:
    chosen = runtime.options(optimization="disabled")
    chosen.add_session_config_entry("session.disable_prepacking", "1")
    return chosen


def _attributes(node: onnx.NodeProto) -> list[tuple[str, str]]:
    return sorted(
        (one.name, one.SerializeToString(deterministic=True).hex()) for one in node.attribute
    )


def _fact(tensor: onnx.TensorProto) -> tuple[object, ...]:
    """What of a constant decides what a kernel costs: whole numbers by their values."""
    values = numpy_helper.to_array(tensor)
    shape = ("constant", values.dtype.name, values.shape)
    if values.dtype.name in WHOLE and values.size <= _NAMED_VALUES:
        return (*shape, values.ravel().tolist())
    return shape
