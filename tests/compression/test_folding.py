"""What is constant goes into the weights, exactly, and what only looks so stays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression import graph, runtime
from compression.regular import equality, folding, halves
from tests.simulators import models

RANDOM = np.random.default_rng(0)
X = {"x": ("N", 4, 8, 8)}
Y = {"y": ("N", "C", "H", "W")}


def regular(path: Path) -> list[str]:
    """Make a model regular, compare it on inputs of its own, and name the operators left."""
    model = graph.regular(path)
    changed = path.with_name("changed.onnx")
    onnx.save(model, changed)
    oracle = equality.ask(path, sample=None, seed=3)
    assert len(oracle.cases) == 2
    assert oracle.gap(changed) < 1e-5
    return [node.op_type for node in model.graph.node]


def normalization(channels: int) -> dict[str, np.ndarray]:
    return {
        name: RANDOM.uniform(0.5, 2, channels).astype("f4") for name in ("s", "b", "mean", "var")
    }


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("f4")


BN = helper.make_node("BatchNormalization", ["c", "s", "b", "mean", "var"], ["y"], epsilon=1e-3)


@pytest.mark.parametrize(
    ("kind", "shape", "attributes", "channels"),
    [
        ("Conv", (6, 4, 3, 3), {}, 6),
        ("Conv", (4, 1, 3, 3), {"group": 4}, 4),
        ("Conv", (6, 2, 3, 3), {"group": 2}, 6),
        ("ConvTranspose", (4, 6, 3, 3), {}, 6),
        ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, 6),
        ("ConvTranspose", (4, 1, 3, 3), {"group": 4}, 4),
    ],
)
@pytest.mark.parametrize("biased", [True, False])
def test_batch_normalization_goes_into_the_weights(
    tmp_path: Path, kind: str, shape: tuple[int, ...], attributes: Mapping[str, Any], channels: int,
    *, biased: bool,
) -> None:  # fmt: skip
    bias = {"bias": weights(channels)} if biased else {}
    node = helper.make_node(kind, ["x", "w", *bias], ["c"], **attributes)
    values = {"w": weights(*shape), **bias, **normalization(channels)}
    path = models.save(tmp_path / "m.onnx", [node, BN], values, X, Y)
    assert regular(path) == [kind]
    # Our own rule alone, without onnxruntime's, gives the same.
    alone = onnx.load(path)
    folding.by_rules(alone)
    assert [one.op_type for one in alone.graph.node] == [kind]
    onnx.save(alone, tmp_path / "alone.onnx")
    assert equality.ask(path, sample=None).gap(tmp_path / "alone.onnx") < 1e-5


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", [(), (5,), (1,), (1, 5)])
def test_batch_normalization_goes_into_a_gemm(
    tmp_path: Path, trans: int, bias: tuple[int, ...]
) -> None:
    values = {"w": weights(*((5, 4) if trans else (4, 5))), **normalization(5)}
    more = {"bias": weights(*bias)} if bias else {}
    node = helper.make_node("Gemm", ["x", "w", *more], ["c"], transB=trans, beta=0.5, alpha=2.0)
    path = models.save(
        tmp_path / "m.onnx", [node, BN], {**values, **more}, {"x": ("N", 4)}, {"y": ("N", 5)}
    )
    assert regular(path) == ["Gemm"]


def test_batch_normalization_stays_where_others_read_what_it_reads(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["c"]), BN]
    values = {"w": weights(4, 5), **normalization(5)}
    outputs = {"y": ("N", 5), "c": ("N", 5)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, outputs)
    assert regular(path) == ["Gemm", "BatchNormalization"]


def padded(mode: str, value: float, pads: Sequence[int], *readers: onnx.NodeProto) -> list[Any]:
    return [helper.make_node("Pad", ["x", "pads", "value"], ["p"], mode=mode), *readers]


CONVS = (
    helper.make_node("Conv", ["p", "w"], ["a"], pads=[1, 0, 0, 2]),
    helper.make_node("Conv", ["p", "w"], ["b"], strides=[2, 2]),
    helper.make_node("GlobalAveragePool", ["a"], ["c"]),
    helper.make_node("Add", ["b", "c"], ["y"]),
)
POOL = (helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3]),)


@pytest.mark.parametrize(
    ("mode", "value", "pads", "readers", "stays"),
    [
        ("constant", 0.0, (0, 0, 1, 2, 0, 0, 3, 0), CONVS, False),
        ("constant", 1.0, (0, 0, 1, 1, 0, 0, 1, 1), CONVS, True),
        ("reflect", 0.0, (0, 0, 1, 1, 0, 0, 1, 1), CONVS, True),
        ("constant", 0.0, (0, 0, -1, 0, 0, 0, 0, 1), CONVS, True),
        # Zeros win over what is below zero; MaxPool's own padding never wins.
        ("constant", 0.0, (0, 0, 1, 1, 0, 0, 1, 1), POOL, True),
    ],
)
def test_a_pad_is_folded_only_where_that_is_exact(
    tmp_path: Path, mode: str, value: float, pads: tuple[int, ...], readers: Any, *, stays: bool
) -> None:
    values = {
        "pads": np.array(pads, np.int64),
        "value": np.array(value, np.float32),
        "w": weights(4, 4, 3, 3),
    }
    path = models.save(tmp_path / "m.onnx", padded(mode, value, pads, *readers), values, X, Y)
    assert ("Pad" in regular(path)) == stays


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_dropout_and_identity_go_and_a_mask_that_is_read_keeps_it(
    tmp_path: Path, opset: int
) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("Dropout", ["i"], ["d"]),
        helper.make_node("Identity", ["d"], ["j"]),
        helper.make_node("Relu", ["j"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, X, Y, opset=opset)
    assert regular(path) == ["Relu"]
    nodes[1] = helper.make_node("Dropout", ["i"], ["d", "mask"])
    kinds = {"mask": TensorProto.BOOL}
    outputs = {**Y, "mask": ("N", 4, 8, 8)}
    path = models.save(tmp_path / "m.onnx", nodes, {}, X, outputs, opset=opset, dtypes=kinds)
    assert "Dropout" in regular(path)


def test_shape_arithmetic_becomes_a_constant_or_a_minus_one(tmp_path: Path) -> None:
    """`x.view(x.size(0), x.size(1) * x.size(2) // 2, 2)` with a dynamic batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        *(helper.make_node("Gather", ["s", f"i{at}"], [f"d{at}"]) for at in range(3)),
        helper.make_node("Mul", ["d1", "d2"], ["m"]),
        helper.make_node("Div", ["m", "two"], ["h"]),
        *(helper.make_node("Unsqueeze", [n, "zero"], [f"u{n}"]) for n in ("d0", "h", "two")),
        helper.make_node("Concat", ["ud0", "uh", "utwo"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    values = {
        **{f"i{at}": np.array(at, np.int64) for at in range(3)},
        "two": np.array(2, np.int64),
        "zero": np.array([0], np.int64),
    }
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4, 6)}, {"y": ("N", 12, 2)})
    assert regular(path) == ["Reshape"]


def test_shapes_that_only_a_run_tells_stay(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["d"]),
        helper.make_node("Concat", ["d", "minus"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    values = {"i": np.array([0, 1], np.int64), "minus": np.array([-1], np.int64)}
    path = models.save(
        tmp_path / "m.onnx", nodes, values, {"x": ("N", "T", 6)}, {"y": ("N", "T", 6)}
    )
    assert regular(path)[-1] == "Reshape"


def test_declared_shapes_that_lie_are_not_believed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 4)}, {"y": (2,)})
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [7, 9]))
    path.write_bytes(model.SerializeToString())
    assert "Shape" in regular(path)


def test_constants_that_would_swell_the_model_are_not_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Gemm", ["x", "w"], ["g"]),
        helper.make_node("Add", ["g", "c"], ["y"]),
    ]
    values = {"s": np.array([1000, 1, 500], np.int64), "w": weights(4, 500)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, {"y": (1000, "N", 500)})
    assert "ConstantOfShape" in regular(path)
    assert graph.regular(path).ByteSize() < 1.5 * path.stat().st_size


def test_halves_become_floats_inside_and_stay_at_the_boundary(tmp_path: Path) -> None:
    values = {"w": weights(4, 4, 3, 3).astype("f2"), "b": weights(4).astype("f2")}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["z"]),
    ]
    kinds = dict.fromkeys("xyz", TensorProto.FLOAT16)
    outputs = {**Y, "z": ("N", 4, 1, 1)}
    path = models.save(tmp_path / "m.onnx", nodes, values, X, outputs, dtypes=kinds)
    model = graph.regular(path)
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT}
    assert runtime.inputs(runtime.session(model)) == runtime.inputs(runtime.session(path))
    assert [v.type for v in runtime.session(model).get_outputs()] == ["tensor(float16)"] * 2
    onnx.save(model, tmp_path / "changed.onnx")
    assert equality.ask(path, sample=None, seed=4).gap(tmp_path / "changed.onnx") < 5e-3


def test_halves_inside_of_bodies_are_left_alone(tmp_path: Path) -> None:
    model = onnx.load(with_branches(tmp_path / "m.onnx", np.float16))
    before = model.SerializeToString()
    assert halves.present(model)
    assert not halves.widen(model)
    assert model.SerializeToString() == before
    assert "If" in regular(tmp_path / "m.onnx")


def with_branches(path: Path, dtype: type[Any] = np.float32) -> Path:
    """An If whose bodies hold weights in Constant nodes and capture a tensor from outside."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    bodies = []
    for name in ("then", "else"):
        constant = helper.make_node(
            "Constant", [], ["w"], value=onnx.numpy_helper.from_array(weights(4, 3).astype(dtype))
        )
        product = helper.make_node("MatMul", ["i", "w"], [name])
        given = helper.make_tensor_value_info(name, kind, None)
        bodies.append(helper.make_graph([constant, product], name, [], [given]))
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    kinds = {"x": kind, "y": kind, "flag": TensorProto.BOOL}
    return models.save(path, nodes, {}, {"x": ("N", 4), "flag": ()}, {"y": ("N", 3)}, dtypes=kinds)


@pytest.mark.parametrize("flag", [False, True])
def test_both_branches_of_an_if_answer_as_before(tmp_path: Path, *, flag: bool) -> None:
    path = with_branches(tmp_path / "m.onnx")
    model = graph.regular(path)
    feeds = {"x": weights(2, 4), "flag": np.array(flag)}
    want = runtime.run(runtime.session(path), feeds)
    assert graph.difference(want, runtime.run(runtime.session(model), feeds)) < 1e-6


def test_a_loop_with_weights_in_its_body_answers_as_before(tmp_path: Path) -> None:
    constant = helper.make_node(
        "Constant", [], ["w"], value=onnx.numpy_helper.from_array(weights(4, 4) / 4)
    )
    body = helper.make_graph(
        [
            constant,
            helper.make_node("MatMul", ["state", "w"], ["product"]),
            helper.make_node("Add", ["product", "i"], ["next"]),
            helper.make_node("Identity", ["cond"], ["go"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("Loop", ["three", "", "i"], ["y"], body=body),
    ]
    values = {"three": np.array(3, np.int64)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, {"y": ("N", 4)})
    assert "Loop" in regular(path)
