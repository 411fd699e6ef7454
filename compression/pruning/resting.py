"""What a cut channel holds behind a function of single values: the runtime itself is asked."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import runtime
from compression.errors import BadModel

Array = NDArray[Any]


def evaluate(node: onnx.NodeProto, inputs: Sequence[Array | None], opset: int) -> Array:
    """Run a node on float64 vectors [n], or single constants as they stand; None is left out.

    Returns float64 [n]; NaN where the runtime refuses, or where an input is NaN.
    """
    vectors = [array for array in inputs if array is not None and array.dtype == np.float64]
    count = len(vectors[0])
    rows, where = np.unique(np.stack(vectors, 1), axis=0, return_inverse=True)
    if len(rows) > 64:  # constants of each channel: rare, and then not worth a run
        return np.full(count, np.nan)
    bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    bare.attribute.extend(node.attribute)
    names, columns, fixed = [], iter(rows.T), []
    for at, array in enumerate(inputs):
        names.append("" if array is None else f"x{at}")
        if array is not None and array.dtype != np.float64:
            fixed.append(numpy_helper.from_array(array, names[-1]).SerializeToString())
    given = [
        (f"x{at}", tuple(next(columns).tolist()))
        for at, array in enumerate(inputs)
        if array is not None and array.dtype == np.float64
    ]
    bare.input.extend(names)
    bare.output.append("y")
    values = _run(bare.SerializeToString(), tuple(given), tuple(fixed), opset)
    found = np.array(values)[where.reshape(-1)]
    return np.where(np.isnan(np.stack(vectors)).any(0), np.nan, found)


@lru_cache(maxsize=4096)
def _run(
    node: bytes, given: tuple[tuple[str, tuple[float, ...]], ...], fixed: tuple[bytes, ...],
    opset: int,
) -> tuple[float, ...]:  # fmt: skip
    kind = onnx.TensorProto.FLOAT
    count = len(given[0][1])
    graph = helper.make_graph(
        [onnx.NodeProto.FromString(node)],
        "one",
        [helper.make_tensor_value_info(name, kind, [count]) for name, _ in given],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.TensorProto.FromString(one) for one in fixed],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    quiet = runtime.options(optimization="disabled")
    quiet.log_severity_level = 4
    feeds = {name: np.array(values, np.float32) for name, values in given}
    try:
        answer = runtime.run(runtime.session(model, quiet), feeds)["y"]
    except BadModel:  # not on floats, or not one by one
        return (float("nan"),) * count
    if answer.shape != (count,):
        return (float("nan"),) * count
    return tuple(float(value) for value in answer)
