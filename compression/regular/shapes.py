"""Works out shape arithmetic: where dims are fixed a constant, where one is dynamic a -1.

Exporters write `x.view(x.size(0), -1, 64)` as Shape, Gather, Concat, Reshape. What hangs on fixed
dims is computed here; onnxruntime folds it only where all dims of a tensor are fixed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from compression.regular import constants

Entry = int | None
_MOST_ENTRIES = 64
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


@dataclass(frozen=True)
class _Value:
    """A whole number or a list of them; None stands for what only a run will tell."""

    entries: tuple[Entry, ...]
    scalar: bool = False
    kind: int = onnx.TensorProto.INT64

    @property
    def known(self) -> bool:
        return None not in self.entries


def fold(model: onnx.ModelProto) -> None:
    """Replace shape arithmetic by constants, in place; answers stay exactly the same."""
    dims = _dims(model)
    if dims is None:
        return
    values = {
        tensor.name: value
        for tensor in model.graph.initializer
        if not constants.is_heavy(tensor) and (value := _of_tensor(tensor)) is not None
    }
    given = set(values)
    for node in model.graph.node:
        if node.domain in {"", "ai.onnx"} and node.op_type in _RULES and len(node.output) == 1:
            found = _RULES[node.op_type](_Step(node, values, dims))
            if found is not None and len(found.entries) <= _MOST_ENTRIES:
                values[node.output[0]] = found
    outputs = {value.name for value in model.graph.output}
    for node in list(model.graph.node):
        if node.op_type == "Reshape" and node.domain in {"", "ai.onnx"}:
            _settle(model, node, values.get(node.input[1]), given)
        name = node.output[0] if node.output else ""
        if name in values and values[name].known and name not in outputs and name not in given:
            model.graph.initializer.append(_tensor(values[name], name))
            model.graph.node.remove(node)


def _dims(model: onnx.ModelProto) -> dict[str, tuple[Entry, ...]] | None:
    """The dims of every tensor as far as inputs and weights decide them; declarations may lie."""
    light = constants.light(model)
    del light.graph.value_info[:]
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(light).graph
    except Exception:  # a graph that onnx cannot infer is left as it is
        return None
    known = [*inferred.input, *inferred.value_info, *inferred.output]
    found = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in known
        if value.type.tensor_type.HasField("shape")
    }
    return found | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


@dataclass(frozen=True)
class _Step:
    """One node and what is known before it."""

    node: onnx.NodeProto
    values: dict[str, _Value]
    dims: dict[str, tuple[Entry, ...]]

    def input(self, at: int) -> _Value | None:
        if at >= len(self.node.input) or not self.node.input[at]:
            return None
        return self.values.get(self.node.input[at])

    def attribute(self, name: str, default: Any) -> Any:
        for one in self.node.attribute:
            if one.name == name:
                return helper.get_attribute_value(one)
        return default


def _shape(step: _Step) -> _Value | None:
    dims = step.dims.get(step.node.input[0])
    if dims is None:
        return None
    return _Value(dims[step.attribute("start", 0) : step.attribute("end", None)])


def _gather(step: _Step) -> _Value | None:
    data, at = step.input(0), step.input(1)
    if data is None or at is None or data.scalar or step.attribute("axis", 0) != 0:
        return None
    picked: list[Entry] = []
    for index in at.entries:
        if index is None or not -len(data.entries) <= index < len(data.entries):
            return None
        picked.append(data.entries[index])
    return _Value(tuple(picked), scalar=at.scalar, kind=data.kind)


def _slice(step: _Step) -> _Value | None:
    data, bounds = step.input(0), [step.input(at) for at in (1, 2)]
    steps = step.input(4)
    if data is None or data.scalar or (steps is not None and steps.entries != (1,)):
        return None
    if len(step.node.input) > 4 and step.node.input[4] and steps is None:
        return None
    if any(one is None or not one.known or len(one.entries) != 1 for one in bounds):
        return None
    first, last = (one.entries[0] for one in bounds if one is not None)
    return replace(data, entries=data.entries[first:last])


def _concat(step: _Step) -> _Value | None:
    parts = [step.values.get(name) for name in step.node.input]
    if any(part is None or part.scalar for part in parts):
        return None
    listed = [part for part in parts if part is not None]
    entries = tuple(entry for part in listed for entry in part.entries)
    return replace(listed[0], entries=entries)


def _unsqueeze(step: _Step) -> _Value | None:
    data = step.input(0)
    if data is None or not data.scalar or not _one_axis(step):
        return None
    return replace(data, scalar=False)


def _squeeze(step: _Step) -> _Value | None:
    data = step.input(0)
    if data is None or data.scalar or len(data.entries) != 1:
        return None
    return replace(data, scalar=True)


def _one_axis(step: _Step) -> bool:
    axes = step.input(1)
    listed = step.attribute("axes", None)
    return len(listed if axes is None else axes.entries) == 1 if (axes or listed) else False


def _same(step: _Step) -> _Value | None:
    return step.input(0)


def _cast(step: _Step) -> _Value | None:
    data, kind = step.input(0), step.attribute("to", 0)
    return replace(data, kind=kind) if data is not None and kind in _INTEGERS else None


def _arithmetic(step: _Step) -> _Value | None:
    a, b = step.input(0), step.input(1)
    if a is None or b is None:
        return None
    size = max(len(a.entries), len(b.entries))
    if any(len(one.entries) not in {1, size} for one in (a, b)):
        return None
    left, right = ((one.entries * size)[:size] for one in (a, b))
    entries = tuple(_compute(step.node.op_type, x, y) for x, y in zip(left, right, strict=True))
    return _Value(entries, scalar=a.scalar and b.scalar, kind=a.kind)


def _compute(operator: str, x: Entry, y: Entry) -> Entry:
    if x is None or y is None:
        return None
    if operator == "Div":  # below zero runtimes differ in rounding
        return x // y if x >= 0 and y > 0 else None
    result = {"Add": x + y, "Sub": x - y, "Mul": x * y}[operator]
    return result if abs(result) < 2**31 else None


_RULES: dict[str, Callable[[_Step], _Value | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Identity": _same,
    "Cast": _cast,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
}


def _settle(
    model: onnx.ModelProto, node: onnx.NodeProto, value: _Value | None, given: set[str]
) -> None:
    """A Reshape with one entry unknown: the number of elements decides it, so -1 stands for it."""
    if value is None or value.scalar or node.input[1] in given:
        return
    if value.entries.count(None) != 1 or any(
        entry is not None and entry <= 0 for entry in value.entries
    ):
        return
    name = f"{node.output[0]}.shape"
    entries = tuple(-1 if entry is None else entry for entry in value.entries)
    model.graph.initializer.append(_tensor(_Value(entries), name))
    node.input[1] = name


def _of_tensor(tensor: onnx.TensorProto) -> _Value | None:
    if tensor.data_type not in _INTEGERS or len(tensor.dims) > 1:
        return None
    array = numpy_helper.to_array(tensor)
    entries = tuple(int(one) for one in array.ravel())
    return _Value(entries, scalar=array.ndim == 0, kind=tensor.data_type)


def _tensor(value: _Value, name: str) -> onnx.TensorProto:
    kind = helper.tensor_dtype_to_np_dtype(value.kind)
    entries = np.asarray(value.entries[0] if value.scalar else value.entries, kind)
    return numpy_helper.from_array(entries, name)
