"""Biases put right, layer after layer, by the means of the float model."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compression import graph, pipeline, runtime
from compression.errors import BadModel
from compression.job import Recipe
from tests.compression.variants import (
    STATIC,
    a_pass,
    convs,
    images,
    made,
    mean_shift,
    sqnr,
)
from tests.simulators import models


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 16])
def test_corrected_biases_keep_the_mean_of_every_channel(
    tmp_path: Path, groups: int, bias: bool
) -> None:
    model, rows = convs(tmp_path, groups=groups, bias=bias), images(20)
    plain = made(model, rows, STATIC)
    corrected = made(model, rows, STATIC, a_pass("correction"))
    onnx.checker.check_model(corrected, full_check=True)
    assert mean_shift(model, corrected, rows) < 0.3 * mean_shift(model, plain, rows)


def test_a_corrected_conv_without_bias_still_runs_as_integers(tmp_path: Path) -> None:
    model, rows = convs(tmp_path, bias=False), images(8)
    corrected = made(model, rows, STATIC, a_pass("correction"), a_pass("correction"))
    options = runtime.options(optimization="extended")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    runtime.session(corrected, options)
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert found["QLinearConv"] == 3
    assert not found["Conv"]


@pytest.mark.parametrize("after", ["correction", "reconstruction"])
@pytest.mark.parametrize("name", ["quantization", "dynamic"])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_product_is_put_right_in_the_constant_added_to_it(
    tmp_path: Path, name: str, after: str, turned: int
) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 32) if turned else (32, 8)).astype("f4"),
        "b": rng.normal(size=8).astype("f4"),
    }
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=turned)]
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 32)}, {"y": ("N", 8)})
    model = graph.regular(path)
    rows = [{"x": rng.normal(size=(1, 32)).astype("f4") + 3} for _ in range(30)]
    first = a_pass(name, weights="s8-7bit")
    plain, fixed = made(model, rows, first), made(model, rows, first, a_pass(after))
    assert sqnr(model, fixed, rows) > sqnr(model, plain, rows) + 3


def test_without_inputs_or_integers_nothing_is_corrected(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(3)
    with pytest.raises(BadModel, match="cannot correct biases: no layer has integer weights"):
        made(model, rows, a_pass("correction"))
    with pytest.raises(BadModel, match="cannot round weights again"):
        made(model, rows, a_pass("reconstruction"))
    recipe = Recipe(label="x", passes=(a_pass("correction"),))
    with pytest.raises(BadModel, match="there are no calibration inputs"):
        pipeline.run(recipe, model, calibrate=lambda _: {})
