"""Dynamic int8: MatMul and plain Gemm with a constant matrix, fused by the runtime."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import agreement, graph, pipeline, runtime, statistics
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import dynamic, matrices
from tests.simulators import models


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def alike(original: onnx.ModelProto, changed: onnx.ModelProto, x: np.ndarray) -> float:
    a, b = (runtime.run(runtime.session(one), {"x": x})["y"] for one in (original, changed))
    assert a.shape == b.shape
    return agreement.sqnr_db(*agreement.powers(a, b))


def one_node(
    operator: str, weights: dict[str, np.ndarray], folder: Path, *, rank: int = 2, **attributes: Any
) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    lead = [f"d{at}" for at in range(rank - 1)]
    outputs = max(rank, *(array.ndim for array in weights.values()))
    path = models.save(
        folder / "m.onnx",
        [node],
        weights,
        {"x": (*lead, "K")},
        {"y": [f"o{at}" for at in range(outputs)]},
    )
    return onnx.load(path)


def fused(changed: onnx.ModelProto, folder: Path) -> Counter[str]:
    options = runtime.options(optimization="extended")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.session(changed, options)
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


GEMMS = [
    ({"w": normal(48, 24)}, {}),
    ({"w": normal(24, 48)}, {"transB": 1}),
    ({"w": normal(48, 24), "b": normal(24)}, {}),
    ({"w": normal(24, 48), "b": normal(1, 24)}, {"transB": 1}),
    ({"w": normal(48, 24), "b": normal(1)}, {}),
    ({"w": normal(48, 24), "b": normal(5, 1)}, {"alpha": 1.0, "beta": 1.0}),
]


@pytest.mark.parametrize("weights", ["u8", "s8-7bit"])
@pytest.mark.parametrize(("constants", "attributes"), GEMMS)
def test_a_gemm_is_close_and_fused(
    tmp_path: Path, constants: dict[str, np.ndarray], attributes: dict[str, Any], weights: str
) -> None:
    model = one_node("Gemm", constants, tmp_path, **attributes)
    changed = dynamic.apply(model, dynamic.Settings(weights=weights))
    onnx.checker.check_model(changed, full_check=True)
    assert fused(changed, tmp_path)["DynamicQuantizeMatMul"] == 1
    assert alike(model, changed, normal(5, 48, seed=1)) > 30


@pytest.mark.parametrize(
    ("operator", "constants", "attributes"),
    [
        ("Gemm", {"w": normal(48, 24)}, {"alpha": 0.5}),
        ("Gemm", {"w": normal(48, 24), "b": normal(24)}, {"beta": 2.0}),
        ("Gemm", {"w": normal(48, 24)}, {"transA": 1}),
        ("MatMul", {"w": normal(48)}, {}),
        ("MatMul", {"w": np.full((48, 24), np.inf, "f4")}, {}),
        ("Add", {"w": normal(48, 24)}, {}),
    ],
)
def test_what_has_no_such_kernel_is_refused(
    tmp_path: Path, operator: str, constants: dict[str, np.ndarray], attributes: dict[str, Any]
) -> None:
    model = one_node(operator, constants, tmp_path, **attributes)
    assert dynamic.eligible(model, dynamic.Settings()) == ()
    with pytest.raises(BadModel, match="cannot quantize dynamically: no MatMul or Gemm"):
        dynamic.apply(model, dynamic.Settings())


@pytest.mark.parametrize(
    ("shape", "rank", "really"),
    [((1, 48, 24), 3, True), ((1, 1, 48, 24), 4, True), ((1, 48, 24), 2, False),
     ((2, 48, 24), 3, False)],
)  # fmt: skip
def test_a_matrix_of_rank_three_counts_where_it_is_really_of_rank_two(
    tmp_path: Path, shape: tuple[int, ...], rank: int, really: bool
) -> None:
    model = one_node("MatMul", {"w": normal(*shape)}, tmp_path, rank=rank)
    assert len(list(matrices.products(model))) == really
    if really:
        changed = dynamic.apply(model, dynamic.Settings(weights="u8"))
        assert alike(model, changed, normal(*range(2, rank + 1), 48, seed=1)) > 30


def test_one_matrix_read_both_ways_is_rounded_for_each(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "w"], ["i"], transB=1),
        helper.make_node("MatMul", ["i", "w"], ["y"]),
    ]
    shapes = {"x": ("N", 32)}, {"y": ("N", 32)}
    path = models.save(tmp_path / "m.onnx", nodes, {"w": normal(32, 32)}, *shapes)
    model = onnx.load(path)
    changed = dynamic.apply(model, dynamic.Settings(weights="u8"))
    squares = [tensor for tensor in changed.graph.initializer if list(tensor.dims) == [32, 32]]
    assert len(squares) == 2
    assert alike(model, changed, normal(4, 32, seed=1)) > 25
    names = dynamic.eligible(model, dynamic.Settings())
    assert names == ("h", "i", "y")
    some = dynamic.apply(model, dynamic.Settings(exclude=("h",)))
    assert sum(node.op_type == "MatMulInteger" for node in some.graph.node) == 2
    one = dynamic.apply(model, dynamic.Settings(only=("i",)))
    assert sum(node.op_type == "MatMulInteger" for node in one.graph.node) == 1
    assert "w" in {tensor.name for tensor in one.graph.initializer}


def test_it_follows_a_static_pass_for_conv(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    rows = [models.sample_inputs(path, 1, seed) for seed in range(6)]
    model = graph.regular(path, sample=rows[0])

    def calibrate(one: onnx.ModelProto, **_: Any) -> dict[str, statistics.Range]:
        return statistics.ranges(one, rows, count=len(rows))

    passes = (
        PassSpec(name="quantization", parameters={"operators": ["Conv"], "weights": "s8-7bit"}),
        PassSpec(name="dynamic", parameters={"weights": "u8"}),
    )
    changed = pipeline.run(Recipe(label="", passes=passes), model, calibrate=calibrate)
    onnx.checker.check_model(changed, full_check=True)
    found = fused(changed, tmp_path)
    assert (found["QLinearConv"], found["DynamicQuantizeMatMul"]) == (4, 1)
    a, b = (runtime.run(runtime.session(one), rows[0]) for one in (path, changed))
    assert agreement.sqnr_db(*agreement.powers(a["logits"], b["logits"])) > 15


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40)),
    st.sampled_from(["s8-7bit", "u8"]),
    st.booleans(),
    st.sampled_from([0.0, 1e-20, 1.0, 1e20]),
)
@settings(max_examples=25, deadline=None)
def test_any_size_and_scale_keeps_its_shape_and_stays_finite(
    size: tuple[int, int, int], weights: Any, per_channel: bool, scale: float
) -> None:
    count, rows, columns = size
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    tensor = numpy_helper.from_array(normal(rows, columns), "w")
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size])
        for name, size in (("x", rows), ("y", columns))
    ]
    model = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:], [tensor]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    changed = dynamic.apply(model, dynamic.Settings(weights=weights, per_channel=per_channel))
    x = normal(count, rows, seed=1) * np.float32(scale)
    want, got = (runtime.run(runtime.session(one), {"x": x})["y"] for one in (model, changed))
    assert got.shape == (count, columns)
    step = abs(x).max() / 128 + abs(normal(rows, columns)).max() / 64 * abs(x).max()
    assert np.isfinite(got).all()
    assert abs(got - want).max() <= rows * 4 * step + 1e-12
