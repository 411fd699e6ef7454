"""Operators in the forms that real graphs have them in, for test_operators.py."""

import numpy as np
import onnx
from onnx import numpy_helper

from tests.recovery.one_node import Case, values

_IMAGE = values(2, 4, 9, 11)
_ROWS = values(3, 5, 8)


def _numbers(*held: float) -> np.ndarray:
    return np.array(held, np.int64)


def _recurrent(gates: int, directions: int, states: int) -> tuple[np.ndarray | None, ...]:
    weights = (
        values(directions, gates * 6, 8, seed=1),
        values(directions, gates * 6, 6, seed=2),
        values(directions, 2 * gates * 6, seed=3),
    )
    begin = tuple(values(directions, 5, 6, seed=4 + at) for at in range(states))
    return (_ROWS, *weights, None, *begin)


_LAYERS = [
    Case("Conv", (_IMAGE, values(6, 4, 3, 3), values(6)), {"pads": [1, 0, 0, 2]}),
    Case("Conv", (_IMAGE, values(4, 1, 3, 3)), {"group": 4, "strides": [2, 1]}),
    Case("Conv", (_IMAGE, values(6, 2, 3, 3)), {"group": 2, "dilations": [2, 2]}),
    Case("Conv", (_IMAGE, values(6, 4, 2, 2)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (_IMAGE, values(6, 4, 2, 2)), {"auto_pad": "SAME_LOWER"}),
    Case("Conv", (values(2, 4, 17), values(6, 4, 5), values(6)), {"pads": [2, 2]}),
    Case("Conv", (values(1, 2, 4, 5, 6), values(3, 2, 2, 2, 2))),
    Case("ConvTranspose", (_IMAGE, values(4, 3, 2, 2), values(3)), {"strides": [2, 2]}),
    Case(
        "ConvTranspose",
        (_IMAGE, values(4, 3, 3, 3)),
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    Case("ConvTranspose", (_IMAGE, values(4, 2, 3, 3)), {"group": 2, "pads": [1, 1, 1, 1]}),
    Case(
        "ConvTranspose", (_IMAGE, values(4, 3, 3, 3)), {"strides": [2, 2], "output_shape": [18, 22]}
    ),
    Case("Gemm", (values(3, 4), values(5, 4), values(5)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (values(4, 3), values(4, 5)), {"transA": 1}),
    Case("MatMul", (_ROWS, values(8, 3))),
    Case(
        "FusedMatMul", (_ROWS, values(3, 4, 8)), {"transB": 1, "alpha": 0.5}, domain="com.microsoft"
    ),
    Case("Einsum", (_ROWS, values(8, 3)), {"equation": "b i j, j k -> b k i"}),
]
_POOLS = [
    Case("MaxPool", (_IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case("MaxPool", (_IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", (_IMAGE,), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("MaxPool", (_IMAGE,), {"kernel_shape": [2, 2]}, outputs=2),
    Case("AveragePool", (_IMAGE,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case(
        "AveragePool",
        (_IMAGE,),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    Case(
        "AveragePool",
        (_IMAGE,),
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
    ),
    Case(
        "AveragePool",
        (_IMAGE,),
        {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 0, 1]},
    ),
    Case("GlobalAveragePool", (_IMAGE,)),
    Case("GlobalMaxPool", (_IMAGE,)),
]
_NORMS = [
    Case(
        "BatchNormalization",
        (_IMAGE, values(4), values(4), values(4), values(4, low=0.5)),
        {"epsilon": 1e-3},
    ),
    Case("InstanceNormalization", (_IMAGE, values(4), values(4))),
    Case("LayerNormalization", (_ROWS, values(8), values(8)), {"epsilon": 1e-6}),
    Case("LayerNormalization", (_ROWS, values(5, 8)), {"axis": 1}),
    Case("LayerNormalization", (_ROWS, values(8)), {"axis": 1}),
    Case("GroupNormalization", (_IMAGE, values(2), values(2)), {"num_groups": 2}, opset=18),
    Case("GroupNormalization", (_IMAGE, values(4), values(4)), {"num_groups": 2}, opset=21),
    Case("RMSNormalization", (_ROWS, values(8)), opset=23),
    Case("LRN", (_IMAGE,), {"size": 3}),
    Case("LpNormalization", (_ROWS,), {"axis": 1, "p": 2}),
    Case("Softmax", (_ROWS,), {"axis": 1}),
    Case("Softmax", (_ROWS,), {"axis": 1}, opset=11),
    Case("LogSoftmax", (_ROWS,)),
]
_MOVES = [
    Case("Reshape", (_ROWS, _numbers(0, -1, 4))),
    Case("Flatten", (_IMAGE,), {"axis": 2}),
    Case("Flatten", (_IMAGE,), {"axis": 0}),
    Case("Transpose", (_IMAGE,)),
    Case("Transpose", (_IMAGE,), {"perm": [0, 2, 3, 1]}),
    Case("Concat", (_ROWS, _ROWS), {"axis": -1}),
    Case("Split", (_ROWS, _numbers(3, 5)), {"axis": 2}, outputs=2, constant=(1,)),
    Case("Split", (_ROWS,), {"axis": 2}, outputs=2),
    Case("Split", (_ROWS,), {"axis": 1, "num_outputs": 2}, outputs=2, opset=18),
    Case("Squeeze", (values(1, 3, 1),)),
    Case("Squeeze", (values(1, 3, 1), _numbers(-1))),
    Case("Unsqueeze", (_ROWS, _numbers(0, -1))),
    Case("Slice", (_IMAGE, _numbers(1, -3), _numbers(9, 2**62), _numbers(2, 3))),
    Case("Slice", (_IMAGE, _numbers(-1), _numbers(-(2**62)), _numbers(3), _numbers(-2))),
    Case("Gather", (_ROWS, np.array([[0, -1], [2, 1]])), {"axis": 1}),
    Case("Gather", (_ROWS, np.array(-2)), {"axis": 2}),
    Case("Gather", (values(7, 5), np.array([[3, -1]], np.int32))),
    Case("GatherElements", (_ROWS, np.array([[[0, -1, 2]]])), {"axis": 2}),
    Case("Expand", (values(3, 1), _numbers(2, 1, 4))),
    Case("Tile", (_ROWS, _numbers(2, 1, 3))),
    Case("Pad", (_IMAGE, _numbers(0, 1, 2, 0, 1, 0, 0, 3), np.float32(0.5))),
    Case("Pad", (_IMAGE, _numbers(0, 0, 2, 3, 0, 0, 1, 0)), {"mode": "reflect"}),
    Case("Pad", (_ROWS, _numbers(0, 1, 2, 0, 1, 0)), {"mode": "edge"}),
    Case("Pad", (_IMAGE, _numbers(1, 2), None, _numbers(3)), opset=18),
    Case("Shape", (_IMAGE,), {"start": 1, "end": -1}),
    Case("Size", (_IMAGE,)),
    Case(
        "ConstantOfShape",
        (_numbers(2, 3),),
        {"value": numpy_helper.from_array(np.array([7], np.int64))},
    ),
    Case("Range", (np.array(1), np.array(9), np.array(3))),
    Case("Trilu", (_ROWS, np.array(1)), {"upper": 0}),
    Case("DepthToSpace", (_IMAGE,), {"blocksize": 2}),
    Case("DepthToSpace", (_IMAGE,), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (values(1, 2, 4, 6),), {"blocksize": 2}),
    Case("Cast", (_ROWS,), {"to": onnx.TensorProto.INT32}),
    Case("OneHot", (np.array([0, 2]), np.array(3), values(2))),
]
_REDUCED = [
    *(
        Case(f"Reduce{name}", (abs(_ROWS) + 0.1,), {"axes": [1], "keepdims": 0}, opset=12)
        for name in (
            "Mean",
            "Sum",
            "Max",
            "Min",
            "Prod",
            "L1",
            "L2",
            "SumSquare",
            "LogSum",
            "LogSumExp",
        )
    ),
    Case("ReduceSum", (_ROWS, _numbers(0, -1))),
    Case("ReduceMean", (_ROWS,)),
    Case("ReduceMean", (_ROWS, _numbers(2)), opset=18),
    Case("ReduceSum", (_ROWS,), {"noop_with_empty_axes": 1}),
    Case("ArgMax", (_ROWS,), {"axis": 1, "keepdims": 0}),
    Case("ArgMin", (_ROWS,), {"axis": 2}),
    Case("CumSum", (_ROWS, np.array(1))),
    Case("CumSum", (_ROWS, np.array(1)), {"reverse": 1}),
    Case("TopK", (np.array([[1, 3, 3, 2, 3]], np.float32), _numbers(3)), outputs=2),
]
_RESIZED = (
    [
        Case(
            "Resize",
            (_IMAGE, None, np.array([1, 1, to[0], to[1]], np.float32)),
            {"mode": mode, "coordinate_transformation_mode": how},
            constant=(2,),
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
        for to in ((2.0, 2.0), (0.5, 1.5))
    ]
    + [
        Case(
            "Resize",
            (_IMAGE, None, None, _numbers(2, 4, 5, 23)),
            {
                "mode": "nearest",
                "nearest_mode": near,
                "coordinate_transformation_mode": "asymmetric",
            },
        )
        for near in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ]
    + [Case("Upsample", (_IMAGE, np.array([1, 1, 2, 3], np.float32)), opset=9)]
)
_RECURRENT = [
    Case("LSTM", _recurrent(4, 1, 2), {"hidden_size": 6}, outputs=3),
    Case("LSTM", _recurrent(4, 2, 0), {"hidden_size": 6, "direction": "bidirectional"}, outputs=3),
    Case("LSTM", _recurrent(4, 1, 2), {"hidden_size": 6, "direction": "reverse"}, outputs=3),
    Case("LSTM", _recurrent(4, 1, 2), {"hidden_size": 6, "clip": 0.5}, outputs=3),
    Case("GRU", _recurrent(3, 1, 1), {"hidden_size": 6, "linear_before_reset": 1}, outputs=2),
    Case("GRU", _recurrent(3, 2, 1), {"hidden_size": 6, "direction": "bidirectional"}, outputs=2),
    Case("RNN", _recurrent(1, 1, 1), {"hidden_size": 6}, outputs=2),
]
_VALUEWISE = [
    *(
        Case(name, (_ROWS,))
        for name in (
            "Abs",
            "Neg",
            "Sign",
            "Reciprocal",
            "Exp",
            "Erf",
            "Sin",
            "Cos",
            "Floor",
            "Ceil",
            "Round",
            "Relu",
            "Sigmoid",
            "Tanh",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Elu",
            "Selu",
            "ThresholdedRelu",
            "Softplus",
            "Softsign",
            "Identity",
        )
    ),
    *(Case(name, (abs(_ROWS) + 0.1,)) for name in ("Sqrt", "Log")),
    *(
        Case(name, (_ROWS, values(5, 1, seed=1)))
        for name in (
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Min",
            "Max",
            "Sum",
            "Mean",
            "Less",
            "Greater",
            "PRelu",
        )
    ),
    Case("Pow", (abs(_ROWS), np.float32(1.5))),
    Case("Div", (np.array([-7, 7]), np.array([2, -2]))),
    Case("Mod", (np.array([-7, 7]), np.array([3, -3]))),
    Case("Mod", (_ROWS, values(8)), {"fmod": 1}),
    Case("Clip", (_ROWS, np.float32(-1), None)),
    Case("Clip", (_ROWS,), {"max": 0.5}, opset=6),
    Case("Where", (_ROWS > 0, _ROWS, values(8))),
    Case("Not", (_ROWS > 0,)),
    Case("And", (_ROWS > 0, _ROWS < 1)),
    Case("Mish", (_ROWS,), opset=18),
    Case("Gelu", (_ROWS,), opset=20),
    Case("Gelu", (_ROWS,), {"approximate": "tanh"}, opset=20),
    Case("Gelu", (_ROWS,), domain="com.microsoft"),
    Case("QuickGelu", (_ROWS,), domain="com.microsoft"),
    Case("FastGelu", (_ROWS, values(8)), domain="com.microsoft"),
    Case("BiasGelu", (_ROWS, values(8)), domain="com.microsoft"),
]
CASES = [*_LAYERS, *_POOLS, *_NORMS, *_MOVES, *_REDUCED, *_RESIZED, *_RECURRENT, *_VALUEWISE]
