"""Products with scales found while running; convolutions rewritten around outlying samples."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compression import graph, pipeline, runtime, statistics
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import quantization, rescaling, unrolling
from tests.compression.variants import (
    feeds_of,
    fused,
    sqnr,
)
from tests.simulators import models


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
    assert sqnr(path, changed, feeds_of(path)) > 30


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
    assert sqnr(path, better, feeds_of(path)) > sqnr(path, plain, feeds_of(path)) + 15
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
    assert sqnr(path, quantized, feeds_of(path)) > 25


@pytest.mark.parametrize("attribute", [{"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"group": 4}])
def test_only_a_plain_conv_can_be_unrolled(tmp_path: Path, attribute: dict[str, Any]) -> None:
    weights = {"w": np.ones((8, 4 // attribute.get("group", 1), 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **attribute)]
    shapes = {"x": ("N", 4, 8, 8)}, {"y": ("N", 8, "P", "Q")}
    model = graph.regular(models.save(tmp_path / "m.onnx", nodes, weights, *shapes))
    with pytest.raises(BadModel, match="cannot unroll: no plain Conv"):
        unrolling.apply(model, unrolling.Settings(nodes=("y",)))
