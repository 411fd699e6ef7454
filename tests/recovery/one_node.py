"""Graphs of one node with everything it reads, and what onnxruntime makes of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


def values(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Array:
    """Evenly spread float32 values."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """An operator with its inputs; None is one left out. Those at `constant` are initializers."""

    operator: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    constant: tuple[int, ...] = ()
    domain: str = ""
    opset: int = 17

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.operator}({said})"


def build(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model and the feeds of its run."""
    names = [f"in{at}" if one is not None else "" for at, one in enumerate(case.inputs)]
    feeds: dict[str, Array] = {}
    constants = []
    for at, (name, one) in enumerate(zip(names, case.inputs, strict=True)):
        if one is not None and at in case.constant:
            constants.append(numpy_helper.from_array(np.asarray(one), name))
        elif one is not None:
            feeds[name] = np.asarray(one)
    outputs = [f"out{at}" for at in range(case.outputs)]
    node = helper.make_node(
        case.operator, names, outputs, "node", domain=case.domain, **case.attributes
    )
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(one.dtype), one.shape
            )
            for name, one in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds
