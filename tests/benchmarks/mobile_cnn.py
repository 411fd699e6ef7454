"""A mobile CNN of about 20 MB with random weights, and pictures for it: what memory is measured by.

Depthwise separable as MobileNet (Howard et al., 2017), so drawn that activations stay alive (He et
al., 2015). Pictures are dead leaves (Lee et al., 2001): discs over discs, as large things lie in
front of small ones in photographs.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 224
LEAVES = 40
FIRST = 40
BLOCKS = ((80, 1), (160, 2), (160, 1), (320, 2), (320, 1), (640, 2), *((640, 1),) * 5, (1024, 2),
          (1024, 1))  # fmt: skip
"""Channels and stride of each."""
CLASSES = 1000


def write(path: Path) -> None:
    """Write the model: `x` float32 [1, 3, 224, 224] -> `logits` [1, 1000]."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    held = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("lo", 0), ("hi", 6))]

    def constant(name: str, value: NDArray[np.float64]) -> str:
        held.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(x: str, shape: tuple[int, ...], stride: int, group: int = 1) -> str:
        y = f"conv{len(nodes)}"
        drawn = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        inputs = [x, constant(f"{y}.w", drawn), constant(f"{y}.b", rng.normal(size=shape[0]) * 0.1)]
        pads = [shape[2] // 2] * 4
        strides = [stride, stride]
        nodes.append(helper.make_node("Conv", inputs, [y], pads=pads, strides=strides, group=group))
        nodes.append(helper.make_node("Clip", [y, "lo", "hi"], [f"{y}.relu6"]))
        return f"{y}.relu6"

    x, before = conv("x", (FIRST, 3, 3, 3), 2), FIRST
    for after, stride in BLOCKS:
        x = conv(x, (before, 1, 3, 3), stride, group=before)
        x, before = conv(x, (after, before, 1, 1), 1), after
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weight = constant("head.w", rng.normal(size=(CLASSES, before)) / np.sqrt(before))
    inputs = ["flat", weight, constant("head.b", np.zeros(CLASSES))]
    nodes.append(helper.make_node("Gemm", inputs, ["logits"], transB=1))
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "mobile", [taken], [made], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def picture(seed: int) -> NDArray[np.float32]:
    """Dead leaves, float32 [3, 224, 224] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    found = np.zeros((3, SIDE_PX, SIDE_PX), np.float32)
    down, across = np.mgrid[:SIDE_PX, :SIDE_PX]
    for _ in range(LEAVES):
        y, x, radius = *rng.uniform(0, SIDE_PX, 2), rng.uniform(5, 70)
        found[:, (down - y) ** 2 + (across - x) ** 2 < radius**2] = rng.uniform(-1, 1, (3, 1))
    return found
