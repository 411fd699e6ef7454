"""Which rule carries channels through which operator; what has none keeps all that it reads."""

from collections.abc import Callable

import onnx

from compression.pruning import (
    elementwise,
    extents,
    recurrence,
    reshaping,
    selecting,
    spatial,
    weighted,
)
from compression.pruning.tracing import Trace

Rule = Callable[[Trace, onnx.NodeProto], None]
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip

_NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")

RULES: dict[str, Rule] = {
    **dict.fromkeys(elementwise.FUNCTIONS, elementwise.function),
    **dict.fromkeys(elementwise.SEVERAL, elementwise.several),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), elementwise.scaled),
    **dict.fromkeys(("Conv", "ConvTranspose"), weighted.convolution),
    **dict.fromkeys(("MatMul", "Gemm"), weighted.product),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrence.recurrent),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshaping.reshape),
    "Transpose": reshaping.transpose,
    "DepthToSpace": reshaping.depth_to_space,
    "SpaceToDepth": reshaping.space_to_depth,
    "Concat": selecting.concat,
    "Split": selecting.split,
    "Slice": selecting.slices,
    "Pad": selecting.pad,
    "Expand": selecting.expand,
    **dict.fromkeys(_POOLS, spatial.pool),
    **dict.fromkeys(("Resize", "Upsample"), spatial.resize),
    **dict.fromkeys(_REDUCTIONS, spatial.reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), spatial.softmax),
    **dict.fromkeys(("Hardmax", "LpNormalization", "CumSum"), spatial.along_one),
    **dict.fromkeys(_NORMS, spatial.layer_norm),
}
_ALWAYS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"})
"""What makes channels out of anything."""


def apply(trace: Trace, node: onnx.NodeProto) -> None:
    """Carry channels through one node."""
    if node.op_type == "Shape":
        extents.shape(trace, node)
        return
    if extents.follow(trace, node):
        return
    if node.op_type == "Gather":
        constant = trace.is_constant(node.input[0])
        (weighted.table if constant else selecting.gather)(trace, node)
        return
    carried = any(axis is not None for name in node.input for axis in trace.of(name))
    read = any(name in trace.extents for name in node.input)
    if node.op_type not in _ALWAYS and not carried and not read:
        return
    rule = RULES.get(node.op_type)
    if rule is None or node.domain not in _DOMAINS:
        for name in node.input:
            trace.freeze(name, f"meets an operator that is not followed ({node.op_type})")
        return
    rule(trace, node)
