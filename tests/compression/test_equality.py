"""The original is asked twice and at two shapes; what it cannot repeat is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression import graph
from compression.errors import BadModel
from compression.regular import equality, quantized
from tests.simulators import models

X, Y = {"x": ("N", 4)}, {"y": ("N", 4)}


def chance(path: Path, kind: str, **attributes: Any) -> Path:
    nodes = [
        helper.make_node(kind, ["x"], ["r"], **attributes),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return models.save(path, nodes, {}, X, Y)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("RandomNormalLike", {}),
        ("RandomUniformLike", {"seed": 3.0}),
        ("RandomNormalLike", {"scale": 1e-3}),
    ],
)
def test_a_model_that_answers_differently_each_time_is_refused_with_the_operator(
    tmp_path: Path, kind: str, attributes: dict[str, Any]
) -> None:
    path = chance(tmp_path / "m.onnx", kind, **attributes)
    with pytest.raises(BadModel, match=f"cannot use .*answers differently each time.*: {kind}"):
        graph.regular(path)


def test_chance_that_nobody_reads_is_no_reason_to_refuse(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, X, Y)
    assert [node.op_type for node in graph.regular(path).graph.node] == ["Relu"]


def test_a_model_whose_output_is_nan_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "nan"], ["y"])]
    values = {"nan": np.full(4, np.nan, np.float32)}
    path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
    with pytest.raises(BadModel, match="output 'y' is NaN in 4 of 4 values"):
        graph.regular(path)


def test_nan_on_random_inputs_is_forgiven_and_on_real_ones_is_not(tmp_path: Path) -> None:
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Sqrt", ["x"], ["y"])], {}, X, Y)
    assert graph.regular(path).graph.node
    sample = {"x": np.array([[1, 4, -1, 9]], np.float32)}
    with pytest.raises(BadModel, match="output 'y' is NaN in 1 of 4 values"):
        graph.regular(path, sample=sample)


@pytest.mark.parametrize(
    ("shape", "second"),
    [
        (("N", 4), (2, 4)),
        (("N", "T", "F"), (2, 16, 16)),
        ((1, "T"), (1, 16)),
        ((2, 4), None),
    ],
)
def test_dynamic_shapes_are_asked_twice(
    tmp_path: Path, shape: tuple[Any, ...], second: tuple[int, ...] | None
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": shape}, {"y": shape})
    oracle = equality.ask(path, sample=None)
    assert [feeds["x"].shape for feeds, _ in oracle.cases][1:] == ([second] if second else [])


def test_sizes_are_tried_until_the_model_runs(tmp_path: Path) -> None:
    """Three Convs without padding, stride 2: 8 is too small."""
    nodes = [
        helper.make_node("Conv", [source, "w"], [target], strides=[2, 2])
        for source, target in (("x", "a"), ("a", "b"), ("b", "y"))
    ]
    values = {"w": np.ones((1, 1, 3, 3), np.float32)}
    shape = {"x": ("N", 1, "H", "W")}, {"y": ("N", 1, "h", "w")}
    path = models.save(tmp_path / "m.onnx", nodes, values, *shape)
    oracle = equality.ask(path, sample=None)
    assert [feeds["x"].shape for feeds, _ in oracle.cases] == [(1, 1, 64, 64), (2, 1, 128, 128)]


def test_a_change_that_shows_only_at_another_shape_is_seen(tmp_path: Path) -> None:
    right = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = models.save(tmp_path / "m.onnx", right, {"shape": np.array([-1, 2])}, X, {"y": ("M", 2)})
    wrong = models.save(
        tmp_path / "wrong.onnx", right, {"shape": np.array([2, 2])}, X, {"y": ("M", 2)}
    )
    oracle = equality.ask(path, sample=None)
    assert oracle.accepts(path)
    assert not oracle.accepts(wrong)
    first_only = equality.Oracle(oracle.cases[:1])
    assert first_only.accepts(wrong)


def test_differences_are_relative_and_infinite_for_other_shapes() -> None:
    a = {"y": np.array([1.0, 100.0])}
    assert graph.difference(a, {"y": np.array([2.0, 100.0])}) == pytest.approx(0.01)
    assert graph.difference(a, {"y": np.array([1.0])}) == float("inf")
    assert graph.difference(a, {"y": np.array([1.0, 100.0], np.float32)}) == float("inf")
    assert graph.difference(a, {"y": np.array([1.0, np.nan])}) == float("inf")
    assert graph.difference({"y": np.array([np.nan])}, {"y": np.array([np.nan])}) == 0
    assert graph.difference({"y": np.array([np.inf])}, {"y": np.array([np.inf])}) == 0


def quantized_nodes(kind: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    values = {
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.uint8),
        "w": np.ones((4, 4), np.uint8),
    }
    if kind == "MatMulInteger":
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z", "zero"], ["i"]),
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s"], ["y"]),
        ]
        return nodes, values
    inner = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    return inner, values


@pytest.mark.parametrize("kind", ["QDQ", "MatMulInteger"])
def test_what_is_quantized_already_is_kept_as_it_is(tmp_path: Path, kind: str) -> None:
    nodes, values = quantized_nodes(kind)
    path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
    model = graph.regular(path)
    assert quantized.is_quantized(model)
    assert model.SerializeToString() == path.read_bytes()
    assert quantized.reason(model).startswith(
        "cannot compress further: the model is quantized already (1 "
    )


def test_a_float_model_is_not_quantized(tmp_path: Path) -> None:
    model = graph.regular(models.cnn(tmp_path / "m.onnx"))
    assert not quantized.is_quantized(model)
