"""A one-hot code times a table is the table's row: MatMul becomes Gather.

Numbers outside of the table have an empty code, and so a row of zeros: one is put behind the
table, and numbers are clipped to -1 (in Gather the last row) and to the table's length.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compression.regular import opsets, wiring
from compression.regular.fusing import regions, running

Dims = dict[str, tuple[int | str | None, ...]]


def fuse(model: onnx.ModelProto) -> int:
    """Replace in place; returns how many tables are looked up now."""
    wires = wiring.Wires(model)
    dims = regions.Map.of(model).dims
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        made = _lookup(wires, node, dims) if node.op_type == "MatMul" else None
        nodes += made or [node]
        count += made is not None
    if count:
        running.rebuild(model, nodes, ())
    return count


def absorb(model: onnx.ModelProto) -> int:
    """Put what follows value by value into the table, in place; returns how many nodes went."""
    wires = wiring.Wires(model)
    dims, version = regions.Map.of(model).dims, opsets.version(model)
    gone = []
    for node in list(model.graph.node):
        if node.op_type != "Gather" or wiring.attribute(node, "axis"):
            continue
        while (reader := _absorbed(wires, node, dims, version)) is not None:
            node.output[0] = reader.output[0]
            wires.maker[node.output[0]] = node
            gone.append(reader)
    for node in gone:
        wires.drop(node)
    return len(gone)


def _absorbed(
    wires: wiring.Wires, node: onnx.NodeProto, dims: Dims, version: int
) -> onnx.NodeProto | None:
    """The one node that reads rows of a table, where the table has taken in what it does."""
    table, name = wires.constant(node.input[0]), node.output[0]
    if table is None or table.ndim != 2 or table.dtype != np.float32:
        return None
    if not wires.only_reader(name) or not wires.only_reader(node.input[0]):
        return None
    reader = wires.readers[name][0]
    constants = _rows(wires, reader, name, table.shape[1], len(dims.get(name, (0,))))
    if constants is None:
        return None
    found = running.run([reader], constants, {name: table}, reader.output[0], opset=version)
    if found is None or found.shape != table.shape or not np.isfinite(found).all():
        return None
    wires.renew(node, 0, found)
    return reader


def _rows(
    wires: wiring.Wires, reader: onnx.NodeProto, name: str, width: int, rank: int
) -> list[onnx.TensorProto] | None:
    """A node's constants, each the same for all rows of a table; None where it has others."""
    if reader.op_type not in _VALUE_BY_VALUE or len(reader.output) != 1:
        return None
    constants = []
    for one in set(reader.input) - {name, ""}:
        value = wires.constant(one)
        if value is None or value.ndim > rank or value.size not in {1, *value.shape[-1:]}:
            return None  # more axes than what was found would add some
        if value.size not in {1, width}:
            return None
        constants.append(numpy_helper.from_array(value.reshape(value.shape[-1:]), one))
    return constants


_VALUE_BY_VALUE = regions.ELEMENTWISE | regions.ALIKE


def _lookup(
    wires: wiring.Wires,
    node: onnx.NodeProto,
    dims: Dims,
) -> list[onnx.NodeProto] | None:
    """The nodes that look up what a MatMul of a one-hot code picks out; None where it is none."""
    table = wires.constant(node.input[1])
    found = _one_hot(wires, node.input[0])
    if table is None or table.ndim != 2 or table.dtype != np.float32 or found is None:
        return None
    if not np.isfinite(table).all():  # 0 times infinity is no 0
        return None
    numbers, count = found
    shape = dims.get(numbers)
    if count != len(table) or shape is None or len(shape) < 2 or shape[-1] != 1:
        return None
    name = node.output[0]
    constants: dict[str, NDArray[Any]] = {
        "table": np.vstack([table, np.zeros((1, table.shape[1]), np.float32)]),
        "axes": np.array([-1], np.int64),
        "low": np.array(-1, np.int64),
        "high": np.array(count, np.int64),
    }
    for key, value in constants.items():
        wires.graph.initializer.append(numpy_helper.from_array(value, f"{name}.{key}"))
    return [
        helper.make_node("Squeeze", [numbers, f"{name}.axes"], [f"{name}.flat"]),
        helper.make_node("Cast", [f"{name}.flat"], [f"{name}.whole"], to=TensorProto.INT64),
        helper.make_node(
            "Clip", [f"{name}.whole", f"{name}.low", f"{name}.high"], [f"{name}.rows"]
        ),
        helper.make_node("Gather", [f"{name}.table", f"{name}.rows"], [name]),
    ]


def _one_hot(wires: wiring.Wires, name: str) -> tuple[str, int] | None:
    """Whole numbers [..., 1] and how many classes, behind Cast(Equal(numbers, 0 1 2 ...))."""
    cast = wires.maker.get(name)
    if cast is None or cast.op_type != "Cast" or not wires.only_reader(name):
        return None
    if wiring.attribute(cast, "to") != TensorProto.FLOAT:
        return None
    equal = wires.maker.get(cast.input[0])
    if equal is None or equal.op_type != "Equal" or not wires.only_reader(cast.input[0]):
        return None
    for at in (0, 1):
        classes = wires.constant(equal.input[at])
        if classes is None or classes.dtype.kind != "i" or classes.ndim < 1:
            continue
        count = classes.shape[-1]
        if classes.size == count and np.array_equal(classes.ravel(), np.arange(count)):
            return equal.input[1 - at], int(count)
    return None
