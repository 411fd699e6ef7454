"""Static int8 on real graphs: valid, loadable, close, and fused where the tables say so."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compression import graph, pipeline, runtime, statistics
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import quantization, rounding
from tests.compression.layered_graphs import random_graph
from tests.compression.variants import (
    feeds_of,
    fused,
    sqnr,
    variant,
)
from tests.simulators import models


@pytest.mark.parametrize("weights", rounding.WEIGHTS)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_a_cnn_stays_close_in_every_format(
    tmp_path: Path, weights: str, per_channel: bool, activations: str
) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    changed = variant(
        path, {"weights": weights, "per_channel": per_channel, "activations": activations}
    )
    onnx.checker.check_model(changed, full_check=True)
    assert sqnr(path, changed, feeds_of(path)) > 18
    assert changed.ByteSize() < 0.5 * path.stat().st_size


def test_all_conv_and_gemm_nodes_run_as_integers(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    found = fused(variant(path, {}), tmp_path)
    assert found["QLinearConv"] == 4
    assert found["QGemm"] == 1
    assert not {"Conv", "Gemm", "Relu"} & {*found} - {"Relu"}


def test_all_operators_leave_no_float_island_in_a_cnn(tmp_path: Path) -> None:
    found = fused(variant(models.cnn(tmp_path / "m.onnx"), {"operators": ["*"]}), tmp_path)
    assert found["QLinearAdd"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QuantizeLinear"] == 1  # only the input


def test_integers_go_through_what_only_moves_values(tmp_path: Path) -> None:
    layers = ["conv", "swap", "grow", "conv"]
    path = random_graph(tmp_path / "m.onnx", layers, seed=0, opset=18)
    found = fused(variant(path, {"operators": ["*"]}), tmp_path)
    assert (found["QLinearConv"], found["QLinearConcat"]) == (3, 1)
    assert (found["Split"], found["Resize"]) == (1, 1)
    assert found["QuantizeLinear"] == 1  # only the input


def test_nodes_can_stay_float(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    names = quantization.eligible(graph.regular(path), quantization.Settings())
    one = fused(variant(path, {"exclude": [names[0]]}), tmp_path)
    assert one["QLinearConv"] == 3
    alone = fused(variant(path, {"only": [names[0]]}), tmp_path)
    assert (alone["QLinearConv"], alone["QGemm"]) == (1, 0)
    with pytest.raises(BadModel, match="cannot quantize: no operator"):
        variant(path, {"only": ["nobody"]})


def test_seven_bit_weights_never_saturate(tmp_path: Path) -> None:
    # Worst case for VPMADDUBSW: u8 255 times the largest weight, twice: 2 * 255 * 127 > 32767.
    weight = np.ones((8, 64, 1, 1), np.float32)
    weight[::2] = -1
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    shapes = {"x": ("N", 64, 4, 4)}, {"y": ("N", 8, 4, 4)}
    path = models.save(tmp_path / "m.onnx", [node], {"w": weight}, *shapes)
    rows = [{"x": np.ones((1, 64, 4, 4), np.float32)}]
    model = graph.regular(path, sample=rows[0])
    ranges = statistics.ranges(model, rows, count=1)
    quantized = quantization.apply(model, quantization.Settings(weights="s8-7bit"), ranges=ranges)
    integers = integer_weights(quantized, "w")
    assert abs(integers).max() == 64
    assert 2 * 255 * int(abs(integers).max()) <= 32767
    got = runtime.run(runtime.session(quantized), rows[0])["y"]
    assert np.allclose(got, np.where(np.arange(8) % 2, 64.0, -64.0)[None, :, None, None], rtol=0.01)


def integer_weights(model: onnx.ModelProto, name: str) -> np.ndarray:
    (found,) = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name == f"{name}_quantized"
    ]
    return found.astype(np.int64)


def test_shared_weights_are_written_once_and_shared_biases_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 8, 1, 1)).astype("f4"),
        "b": random.normal(size=8).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["y"]),
    ]
    shapes = {"x": ("N", 8, 4, 4)}, {"y": ("N", 8, 4, 4)}
    path = models.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    changed = variant(path, {})
    kinds = Counter(tensor.data_type for tensor in changed.graph.initializer if tensor.dims == [8])
    large = [t.name for t in changed.graph.initializer if list(t.dims) == [8, 8, 1, 1]]
    assert len(large) == 1
    assert kinds[onnx.TensorProto.INT32] == 4  # two biases, two zero points of theirs
    assert sqnr(path, changed, feeds_of(path)) > 25


def test_a_weight_that_somebody_else_reads_stays_float_for_them(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(size=(6, 6)).astype("f4")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["k"]),
        helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0),
        helper.make_node("Sub", ["k", "s"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 6)}, {"y": ("N", 6)})
    assert sqnr(path, variant(path, {}), feeds_of(path)) > 25


def test_a_bias_beyond_32_bits_widens_its_channel(tmp_path: Path) -> None:
    weight = np.ones((2, 4, 1, 1), np.float32)
    weight[0] = 1e-9
    weights = {"w": weight, "b": np.array([1e5, 1.0], np.float32)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    shapes = {"x": ("N", 4, 2, 2)}, {"y": ("N", 2, 2, 2)}
    path = models.save(tmp_path / "m.onnx", [node], weights, *shapes)
    got = runtime.run(runtime.session(variant(path, {})), feeds_of(path)[0])["y"]
    assert np.allclose(got[:, 0], 1e5, rtol=0.01)


def test_channels_of_zeros_do_no_harm(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in {"stem.w", "head.w"}:
            values = numpy_helper.to_array(tensor).copy()
            values[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString())
    assert sqnr(path, variant(path, {}), feeds_of(path)) > 18


def test_graph_outputs_and_inner_graphs_keep_their_tensors(tmp_path: Path) -> None:
    # The Conv's output is an output of the model and is read inside an If too.
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 4, 1, 1)).astype("f4"), "zero": np.float32([0])}
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(f"{name}.o", onnx.TensorProto.FLOAT, None)
        inner = [helper.make_node(kind, ["h"], [f"{name}.o"])]
        branches[name] = helper.make_graph(inner, name, [], [out])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c1"]),
        helper.make_node("Squeeze", ["c1"], ["c"]),
        helper.make_node("If", ["c"], ["y"], **branches),
    ]
    outputs = {"h": ("N", 4, 3, 3), "y": ("N", 4, 3, 3)}
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 4, 3, 3)}, outputs)
    changed = variant(path, {})
    assert [value.name for value in changed.graph.output] == ["h", "y"]
    for row in feeds_of(path):
        want = runtime.run(runtime.session(path), row)
        got = runtime.run(runtime.session(changed), row)
        assert np.allclose(got["y"], np.maximum(got["h"], 0) if row["x"].sum() > 0 else -got["h"])
        assert np.abs(got["h"] - want["h"]).max() < 0.1 * np.abs(want["h"]).max()


def test_a_large_table_is_looked_up_as_integers(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(1000, 32)).astype("f4")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = {"table": table, "w": table[:32, :8].copy()}
    path = models.save(
        tmp_path / "m.onnx", nodes, weights, {"ids": ("N", 6)}, {"y": ("N", 8)},
        dtypes={"ids": onnx.TensorProto.INT64},
    )  # fmt: skip
    changed = variant(path, {"operators": ["MatMul", "Gather"]})
    assert changed.ByteSize() < 0.3 * path.stat().st_size
    assert sqnr(path, changed, feeds_of(path)) > 25


@pytest.mark.parametrize("mark", [-1e4, float(np.finfo(np.float32).min), float("-inf")])
def test_masks_and_what_they_are_added_to_stay_float(tmp_path: Path, mark: float) -> None:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(16, 16)).astype("f4") / 4 for name in ("q", "k", "v", "o")}
    weights["mask"] = np.triu(np.full((6, 6), mark, "f4"), 1)
    nodes = [
        *(helper.make_node("MatMul", ["x", name], [f"x{name}"]) for name in ("q", "k", "v")),
        helper.make_node("Transpose", ["xk"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xq", "turned"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "xv"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "o"], ["y"]),
    ]
    path = models.save(
        tmp_path / "m.onnx", nodes, weights, {"x": ("N", 6, 16)}, {"y": ("N", 6, 16)}
    )
    changed = variant(path, {"operators": ["*"], "weights": "s8-7bit"})
    assert sqnr(path, changed, feeds_of(path)) > 20
    (kept,) = [node for node in changed.graph.node if node.op_type == "Add"]
    assert list(kept.input) == ["scores", "mask"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PassSpec(name="magic"), "cannot run pass 'magic': known are"),
        (PassSpec(name="quantization", parameters={"wights": 1}), "unknown field 'wights'"),
    ],
)
def test_refuses_unknown_passes_and_parameters(
    tmp_path: Path, spec: PassSpec, message: str
) -> None:
    model = graph.regular(models.mlp(tmp_path / "m.onnx"))
    with pytest.raises(BadModel, match=message):
        pipeline.run(Recipe(label="x", passes=(spec,)), model, calibrate=lambda _: {})
