"""Runs a part of a graph alone, in the runtime itself."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from compression import runtime
from compression.errors import BadModel

MICROSOFT = "com.microsoft"
Floats = NDArray[np.float32]


def run(
    nodes: Iterable[onnx.NodeProto],
    tensors: Iterable[onnx.TensorProto],
    feeds: Mapping[str, Floats],
    target: str,
    *,
    opset: int,
) -> Floats | None:
    """What `nodes` with the constants `tensors` make of float inputs; None where they do not run.

    Without optimizations: the question is what each operator answers.
    """
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * value.ndim)
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "part",
        inputs,
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, None)],
        list(tensors),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options: Any = runtime.options(optimization="disabled")
    options.log_severity_level = 4
    try:
        found = runtime.run(runtime.session(model, options), feeds)
    except BadModel:
        return None
    return np.asarray(found[target], np.float32)


def rebuild(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], made: Iterable[onnx.TensorProto]
) -> None:
    """Give a model other nodes, some of them its own, and more constants."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(made)
    domains = {entry.domain for entry in model.opset_import}
    if MICROSOFT not in domains and any(node.domain == MICROSOFT for node in kept):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
