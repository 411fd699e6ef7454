"""Static int8 on real graphs: valid, loadable, close, and fused where the tables say so."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import agreement, graph, pipeline, runtime, statistics
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import quantization, rescaling, rounding, unrolling
from tests.simulators import models


def feeds_of(path: Path, count: int = 12, seed: int = 0) -> list[dict[str, np.ndarray]]:
    arrays = models.sample_inputs(path, count, seed)
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


def variant(path: Path, parameters: dict[str, Any], *before: PassSpec) -> onnx.ModelProto:
    # Seven bits by default: full range saturates on machines without VNNI, as it should.
    parameters = {"weights": "s8-7bit", **parameters}
    rows = feeds_of(path)

    def calibrate(model: onnx.ModelProto) -> dict[str, statistics.Range]:
        return statistics.ranges(model, rows, count=len(rows))

    recipe = Recipe(
        label="test", passes=(*before, PassSpec(name="quantization", parameters=parameters))
    )
    return pipeline.run(recipe, graph.regular(path, sample=rows[0]), calibrate=calibrate)


def sqnr(path: Path, changed: onnx.ModelProto) -> float:
    original, candidate = runtime.session(path), runtime.session(changed)
    signal = error = 0.0
    for row in feeds_of(path):  # those that calibrated: what lies outside ranges is another matter
        a, b = runtime.run(original, row), runtime.run(candidate, row)
        one, two = agreement.powers(next(iter(a.values())), next(iter(b.values())))
        signal, error = signal + one, error + two
    return agreement.sqnr_db(signal, error)


def fused(changed: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that really run, after the runtime has optimised."""
    options = runtime.options(optimization="extended")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.session(changed, options)
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


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
    assert sqnr(path, changed) > 18
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
    assert sqnr(path, changed) > 25


def test_a_weight_that_somebody_else_reads_stays_float_for_them(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(size=(6, 6)).astype("f4")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["k"]),
        helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0),
        helper.make_node("Sub", ["k", "s"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 6)}, {"y": ("N", 6)})
    assert sqnr(path, variant(path, {})) > 25


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
    assert sqnr(path, variant(path, {})) > 18


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
    assert sqnr(path, changed) > 25


def test_dynamic_int8_of_matmul_is_close_and_fused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(64, 64)).astype("f4")}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 64)}, {"y": ("N", 64)})
    recipe = Recipe(
        label="d", passes=(PassSpec(name="dynamic", parameters={"weights": "s8-7bit"}),)
    )
    changed = pipeline.run(recipe, graph.regular(path), calibrate=lambda _: {})
    assert fused(changed, tmp_path)["DynamicQuantizeMatMul"] == 1
    assert sqnr(path, changed) > 30


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
    assert sqnr(path, changed) > 20
    (kept,) = [node for node in changed.graph.node if node.op_type == "Add"]
    assert list(kept.input) == ["scores", "mask"]


def test_rescaling_changes_nothing_in_float_and_saves_int8_from_outliers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 4, 3, 3)).astype("f4"),
        "b": random.normal(size=8).astype("f4"),
    }
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    shapes = {"x": ("N", 4, 8, 8)}, {"y": ("N", 8, 6, 6)}
    path = models.save(tmp_path / "m.onnx", [node], weights, *shapes)
    rows = feeds_of(path)
    rows[3] = {"x": rows[3]["x"] * 50}  # one loud sample
    model = graph.regular(path, sample=rows[0])
    ranges = statistics.ranges(model, rows, count=len(rows))
    assert rescaling.outlying(model, ranges) == ("y",)
    rescaled = rescaling.apply(model, rescaling.Settings(nodes=("y",)))
    want = runtime.run(runtime.session(path), rows[0])
    assert graph.difference(want, runtime.run(runtime.session(rescaled), rows[0])) < 1e-5
    plain = quantization.apply(model, quantization.Settings(), ranges=ranges)
    ranges = statistics.ranges(rescaled, rows, count=len(rows))
    better = quantization.apply(rescaled, quantization.Settings(), ranges=ranges)
    assert sqnr(path, better) > sqnr(path, plain) + 15
    zeros = {"x": np.zeros((1, 4, 8, 8), np.float32)}
    assert np.isfinite(runtime.run(runtime.session(better), zeros)["y"]).all()


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_unrolling_changes_nothing_in_float_and_leaves_the_output_unrounded(
    tmp_path: Path, kernel: tuple[int, int], *, bias: bool
) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(8, 4, *kernel)).astype("f4")}
    if bias:
        weights["b"] = random.normal(size=8).astype("f4")
    nodes = [
        helper.make_node("Conv", ["x", *weights], ["c"]),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    shapes = {"x": ("N", 4, "H", "W")}, {"y": ("N", 8, "P", "Q")}
    path = models.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    rows = feeds_of(path)
    model = graph.regular(path, sample=rows[0])
    unrolled = unrolling.apply(model, unrolling.Settings(nodes=("c",)))
    onnx.checker.check_model(unrolled)
    want = runtime.run(runtime.session(path), rows[0])
    assert graph.difference(want, runtime.run(runtime.session(unrolled), rows[0])) < 1e-5
    ranges = statistics.ranges(unrolled, rows, count=len(rows))
    quantized = quantization.apply(
        unrolled, quantization.Settings(weights="s8-7bit"), ranges=ranges
    )
    found = fused(quantized, tmp_path)
    assert found["MatMulIntegerToFloat"] == 1
    assert found["QuantizeLinear"] == 1
    assert sqnr(path, quantized) > 25


@pytest.mark.parametrize("attribute", [{"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"group": 4}])
def test_only_a_plain_conv_can_be_unrolled(tmp_path: Path, attribute: dict[str, Any]) -> None:
    weights = {"w": np.ones((8, 4 // attribute.get("group", 1), 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **attribute)]
    shapes = {"x": ("N", 4, 8, 8)}, {"y": ("N", 8, "P", "Q")}
    model = graph.regular(models.save(tmp_path / "m.onnx", nodes, weights, *shapes))
    with pytest.raises(BadModel, match="cannot unroll: no plain Conv"):
        unrolling.apply(model, unrolling.Settings(nodes=("y",)))


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


LAYERS = (
    "conv", "depthwise", "relu", "clip", "residual", "maxpool", "sigmoid", "scale", "concat",
    "swap", "grow",
)  # fmt: skip


def random_graph(path: Path, layers: Sequence[str], *, seed: int, opset: int) -> Path:
    """A CNN of the given layers, four channels wide, behind a stem and before a head."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"lo": np.float32(0), "hi": np.float32(6)}
    nodes, at = [helper.make_node("Conv", ["x", "s.w"], ["t0"], pads=[1, 1, 1, 1])], "t0"
    weights["s.w"] = random.normal(size=(4, 3, 3, 3)).astype("f4") * 0.4
    width = 4
    for index, layer in enumerate(layers):
        out, w, b = f"t{index + 1}", f"l{index}.w", f"l{index}.b"
        if layer in {"conv", "depthwise"}:
            group = width if layer == "depthwise" else 1
            shape = (width, width // group, 3, 3)
            weights[w] = (random.normal(size=shape) / (9 * width / group) ** 0.5).astype("f4")
            weights[b] = random.normal(size=width).astype("f4") * 0.1
            inputs = [at, w, b] if random.random() < 0.7 else [at, w]
            nodes.append(helper.make_node("Conv", inputs, [out], group=group, pads=[1] * 4))
        elif layer == "scale":
            weights[w] = random.uniform(0.5, 2, (1, width, 1, 1)).astype("f4")
            nodes.append(helper.make_node("Mul", [at, w], [out]))
        elif layer == "clip":
            nodes.append(helper.make_node("Clip", [at, "lo", "hi"], [out]))
        elif layer == "maxpool":
            nodes.append(
                helper.make_node("MaxPool", [at], [out], kernel_shape=[3, 3], pads=[1] * 4)
            )
        elif layer == "residual":
            first = width == 4 and "grow" not in layers[:index]
            nodes.append(helper.make_node("Add", [at, "t0" if first else at], [out]))
        elif layer == "swap":
            halves = [f"{out}a", f"{out}b"]
            nodes.append(helper.make_node("Split", [at], halves, axis=1, num_outputs=2))
            if opset < 18:
                del nodes[-1].attribute[1]
            nodes.append(helper.make_node("Concat", halves[::-1], [out], axis=1))
        elif layer == "grow":
            weights["twice"], weights["roi"] = np.array([1, 1, 2, 2], "f4"), np.zeros(0, "f4")
            modes = {"mode": "nearest", "nearest_mode": "floor"}
            modes["coordinate_transformation_mode"] = "asymmetric"
            nodes.append(helper.make_node("Resize", [at, "roi", "twice"], [out], **modes))
        elif layer == "concat":
            nodes.append(helper.make_node("Concat", [at, at], [out], axis=1))
            width *= 2
        else:
            nodes.append(helper.make_node(layer.capitalize(), [at], [out]))
        at = out
    weights["h.w"] = random.normal(size=(width, 5)).astype("f4")
    nodes += [
        helper.make_node("GlobalAveragePool", [at], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "h.w"], ["y"]),
    ]
    shapes = {"x": ("N", 3, 8, 8)}, {"y": ("N", 5)}
    return models.save(path, nodes, weights, *shapes, opset=opset)


def few_wide(layers: list[str]) -> bool:
    """Whether the graph stays small."""
    return layers.count("concat") < 3 and layers.count("grow") < 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.sampled_from(LAYERS), max_size=6).filter(few_wide),
    seed=st.integers(0, 1000),
    opset=st.sampled_from([11, 13, 17, 18]),
    everything=st.booleans(),
    weights=st.sampled_from(sorted(rounding.WEIGHTS)),
    per_channel=st.booleans(),
)
def test_any_small_graph_becomes_valid_runs_and_keeps_its_weights(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    layers: list[str], seed: int, opset: int, everything: bool, weights: str, per_channel: bool,
) -> None:  # fmt: skip
    path = random_graph(tmp_path_factory.mktemp("g") / "m.onnx", layers, seed=seed, opset=opset)
    operators = ["*"] if everything else ["Conv", "Gemm", "MatMul"]
    changed = variant(
        path, {"operators": operators, "weights": weights, "per_channel": per_channel}
    )
    onnx.checker.check_model(changed, full_check=True)
    plain = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options = runtime.options()
    options.graph_optimization_level = plain
    row = feeds_of(path, seed=3)[0]
    want = runtime.run(runtime.session(path), row)["y"]
    got = runtime.run(runtime.session(changed, options), row)["y"]
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    _weights_are_within_half_a_step(graph.regular(path, sample=row), changed)


def _weights_are_within_half_a_step(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    constants = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    floats = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    checked = 0
    for node in after.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        q, scale, zero = (constants[name].astype(np.float64) for name in node.input)
        name = next(n for n in floats if node.input[0].startswith(f"{n}_quantized"))
        axis = next((a.i for a in node.attribute if a.name == "axis"), None)
        if axis is not None and scale.ndim:
            shape = [-1 if at == axis else 1 for at in range(q.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        error = np.abs((q - zero) * scale - floats[name].reshape(q.shape))
        assert (error <= scale * 0.5 * (1 + 1e-5) + 1e-12).all()
        checked += 1
    assert checked
