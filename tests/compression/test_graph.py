"""Models made regular: same answers, same names, same metadata; bad files in one line."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression import description, graph, kinds, runtime, statistics
from compression.errors import BadInputs, BadModel
from tests.simulators import models


def sample(path: Path) -> dict[str, np.ndarray]:
    return models.sample_inputs(path, 1)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
def test_constants_become_initializers_and_the_opset_is_raised(tmp_path: Path, opset: int) -> None:
    path = models.constants_in_nodes(tmp_path / "m.onnx", opset=opset)
    model = graph.regular(path, sample=sample(path))
    onnx.checker.check_model(model, full_check=True)
    assert "Constant" not in {node.op_type for node in model.graph.node}
    assert len(model.graph.initializer) == 10
    assert graph.opset(model) == (17 if opset < 13 else opset)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("character", "abc")]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    want = runtime.run(runtime.session(path), sample(path))
    got = runtime.run(runtime.session(model), sample(path))
    assert graph.difference(want, got) < 1e-5


def test_batch_normalization_and_a_separate_bias_are_folded_into_conv(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(4, 3, 3, 3)).astype("f4"),
        "bias": random.normal(size=(1, 4, 1, 1)).astype("f4"),
        **{n: random.uniform(0.5, 2, 4).astype("f4") for n in ("scale", "b", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "b", "mean", "var"], ["y"]),
    ]
    shapes = {"x": ("N", 3, 8, 8)}, {"y": ("N", 4, 6, 6)}
    path = models.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    model = graph.regular(path, sample=sample(path))
    assert [node.op_type for node in model.graph.node] == ["Conv"]


def test_initializers_that_pose_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 16]))
    path.write_bytes(model.SerializeToString())
    regular = graph.regular(path)
    assert [value.name for value in regular.graph.input] == ["x"]
    assert [spec.name for spec in description.describe(path).inputs] == ["x"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def text(path: Path) -> None:
    path.write_text("hello, I am no model\n" * 50)


def foreign(path: Path) -> None:
    node = helper.make_node("Magic", ["x"], ["y"], domain="com.acme")
    models.save(path, [node], {}, {"x": ("N", 2)}, {"y": ("N", 2)})


def unloadable(path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    models.save(path, [node], {}, {"x": ("N", 2)}, {"y": ("N", 2)})


def strings(path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    kinds = {"x": TensorProto.STRING, "y": TensorProto.STRING}
    models.save(path, [node], {}, {"x": ("N",)}, {"y": ("N",)}, dtypes=kinds)


def does_not_run(path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    models.save(path, nodes, {"s": np.array([7, 7], np.int64)}, {"x": ("N", 2)}, {"y": (7, 7)})


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "cannot use model m.onnx: not ONNX, or truncated"),
        (text, "cannot use model m.onnx: not ONNX, or truncated"),
        (lambda path: path.write_bytes(b""), "cannot use model m.onnx: not ONNX, or truncated"),
        (Path.unlink, "cannot use model m.onnx: No such file"),
        (foreign, "operator Magic of the unknown domain 'com.acme'"),
        (unloadable, "cannot load m.onnx: "),
        (strings, "'x' of type tensor"),
        (does_not_run, "cannot run the model on inputs of {'x': "),
        (huge, "cannot use model m.onnx: 2.0 GiB"),
    ],
)
def test_a_bad_model_is_one_clear_line(tmp_path: Path, spoil, message: str) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    spoil(path)
    with pytest.raises(BadModel) as caught:
        graph.regular(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_describes_inputs_and_guesses_what_outputs_mean(tmp_path: Path) -> None:
    found = description.describe(models.cnn(tmp_path / "m.onnx"))
    assert [(one.name, one.dtype, one.shape) for one in found.inputs] == [
        ("image", "float32", (-1, 3, 32, 32))
    ]
    assert [(one.name, one.kind) for one in found.outputs] == [("logits", "logits")]
    assert found.guessed == ("logits",)
    assert found.operators["Conv"] == 4


@pytest.mark.parametrize(
    ("name", "shape", "maker", "like_an_input", "kind"),
    [
        ("y", (-1, 10), "Softmax", False, "logits"),
        ("softmax_0", (-1, -1, 97), "Softmax", False, "steps"),
        ("prob", (-1, 1), "Sigmoid", False, "score"),
        ("hn", (2, 1, 64), "LSTM", True, "state"),
        ("boxes", (-1, 100, 4), "Concat", False, "detections"),
        ("sentence_embedding", (-1, 384), "Div", False, "embedding"),
        ("out", (-1, 1, 64, 64), "Sigmoid", False, "mask"),
        ("out", (-1, 3, 64, 64), "Conv", False, "tensor"),
    ],
)
def test_guesses(
    name: str, shape: tuple[int, ...], maker: str, *, like_an_input: bool, kind: str
) -> None:
    found = kinds.guess(name, shape=shape, maker=maker, like_an_input=like_an_input)
    assert found.kind == kind


def test_differences_are_relative_and_infinite_for_other_shapes() -> None:
    a = {"y": np.array([1.0, 100.0])}
    assert graph.difference(a, {"y": np.array([2.0, 100.0])}) == pytest.approx(0.01)
    assert graph.difference(a, {"y": np.array([1.0])}) == float("inf")
    assert graph.difference({"y": np.array([np.nan])}, {"y": np.array([np.nan])}) == 0


def test_ranges_are_those_of_the_tensors(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    model = graph.regular(path)
    rows = [{"x": row[None]} for row in models.sample_inputs(path, 9)["x"]]
    found = statistics.ranges(model, iter(rows), count=9)
    every = np.concatenate([row["x"] for row in rows])
    assert found["x"].low == pytest.approx(float(every.min()))
    assert found["x"].high == pytest.approx(float(every.max()))
    assert found["x"].mean_high == pytest.approx(float(every.max(axis=1).mean()), rel=1e-5)
    weights = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in model.graph.node for name in node.output}
    assert set(found) == made | {"x"}
    assert not weights & set(found)


def test_only_float_tensors_have_ranges(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 3)}, {"y": ("N", 3)})
    assert statistics.float_tensors(onnx.load(path)) == ("x", "y")


def test_what_statistics_hold_does_not_grow_with_the_samples() -> None:
    seen = statistics.Accumulator([f"t{index}" for index in range(50)])
    before = seen.state_bytes
    for index in range(2000):
        seen.add(np.full(50, -float(index)), np.full(50, float(index)))
    assert seen.state_bytes == before == 4 * 50 * 8
    assert Counter(len(value) for value in vars(seen).values() if hasattr(value, "__len__")) == {
        50: 5
    }
    assert seen.ranges()["t7"] == statistics.Range(-1999, 1999, -999.5, 999.5)


def test_calibration_without_samples_is_refused(tmp_path: Path) -> None:
    model = graph.regular(models.mlp(tmp_path / "m.onnx"))
    with pytest.raises(BadInputs, match="there are no samples"):
        statistics.ranges(model, [], count=0)
