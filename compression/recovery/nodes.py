"""One node of a graph as the interpreter sees it: its operator, names and attributes as values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper

from compression import bodies

Tensor = torch.Tensor
Values = Sequence[Any]
"""The inputs of a node in order: tensors, None where one is left out."""
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16, onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT8: torch.int8, onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT16: torch.int16, onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
}  # fmt: skip


class UnknownError(Exception):
    """A form of an operator that torch is not asked to compute; onnxruntime does it then."""


@dataclass(frozen=True)
class Node:
    """A node; `proto` is what it was read from, `opset` that of the model's main domain."""

    operator: str
    """The operator's name; before it, with a dot, its domain where that is not the main one."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; text is a `str`."""
        return self.attributes.get(name, default)

    @property
    def reads(self) -> frozenset[str]:
        """All tensors that it reads, also inside of its bodies."""
        return frozenset({*self.inputs, *bodies.captured(self.proto)} - {""})


Operator = Callable[[Node, Values], Any]
"""Computes the outputs of a node: one tensor, or a tuple of them.

Raises UnknownError for attributes that it does not know.
"""


def read(proto: onnx.NodeProto, *, opset: int) -> Node:
    """Read a node; attributes that are graphs stay in `proto` alone."""
    domain = "" if proto.domain in {"", "ai.onnx"} else f"{proto.domain}."
    attributes = {}
    for each in proto.attribute:
        if each.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
            continue
        value = helper.get_attribute_value(each)
        attributes[each.name] = value.decode() if isinstance(value, bytes) else value
    return Node(
        operator=domain + proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        proto=proto,
        opset=opset,
    )


def given(inputs: Values, at: int) -> Any:
    """Input `at`, or None where it is left out."""
    return inputs[at] if at < len(inputs) else None


def numbers(inputs: Values, at: int) -> list[Any] | None:
    """Input `at` as numbers of Python, or None where it is left out."""
    found = given(inputs, at)
    return None if found is None else list(found.detach().reshape(-1).tolist())


def setting(node: Node, inputs: Values, name: str, at: int) -> list[Any] | None:
    """What older operator sets have as an attribute and newer ones as input `at`."""
    held = node.get(name)
    return list(held) if held is not None else numbers(inputs, at)
